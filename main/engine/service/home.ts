/** The user's home folder, also for users who have none. */
import { homedir } from 'node:os';
import { parse } from 'node:path';

/**
 * The home folder; the root of the file system for a user that neither HOME nor the system's list of users knows (a container's
 * numeric user, a service), for whom Node throws.
 */
export function homeFolder(): string {
  try {
    return homedir();
  } catch {
    // The only thing that `homedir` throws for is that the system can't say.
    return parse(process.cwd()).root;
  }
}
