/** What happens where no window can be told: on standard error, for whoever started the program from a terminal. */
export function warn(message: string): void {
  process.stderr.write(`chainlift: ${message}\n`);
}
