/** The source that the program was asked to open. */
import { resolve } from 'node:path';

/**
 * The first argument that is not an option, as an absolute path. Everything after `--` is no option. Chromium's own
 * options are all of the form `--name[=value]`, so none takes the next argument with it.
 *
 * @param argv as `process.argv` has it: the program, in development (`electron .`) the application, then the arguments.
 */
export function sourceOf(argv: readonly string[], workingFolder: string, packaged: boolean): string | undefined {
  let optionsEnded = false;
  for (const argument of programArguments(argv, packaged)) {
    if (!optionsEnded && argument === '--') optionsEnded = true;
    else if (argument !== '' && !argument.includes('\0') && (optionsEnded || !argument.startsWith('-'))) {
      return resolve(workingFolder, argument);
    }
  }
  return undefined;
}

function programArguments(argv: readonly string[], packaged: boolean): readonly string[] {
  if (packaged) return argv.slice(1);
  // `electron [options] . [arguments]`: the first argument that is no option is the application itself.
  const application = argv.findIndex((argument, index) => index > 0 && !argument.startsWith('-'));
  return application < 0 ? [] : argv.slice(application + 1);
}
