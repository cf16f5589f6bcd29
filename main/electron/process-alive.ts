/** Whether a process is there. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // A process of another user is there too; only "no such process" says that it is not.
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}
