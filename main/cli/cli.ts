/**
 * The command line: the contract's operations for scripts. Each command's code is loaded when it is used, so that a listing
 * starts about as fast as Node itself.
 */
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { version } from '../engine/version.ts';
import type { CommonOptions } from './context.ts';
import { say } from './output.ts';

// A defect of ours. Node would print the line it is in, which in a built program is all of it.
process.on('uncaughtException', (error: unknown) => {
  say(`chainlift: internal: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  process.exit(1);
});

function index(text: string): number {
  if (!/^\d{1,4}$/.test(text)) throw new InvalidArgumentError('a disk is a number, counted from 0.');
  return Number(text);
}
function port(text: string): number {
  const value = Number(text);
  if (!/^\d{1,5}$/.test(text) || value > 65_535) throw new InvalidArgumentError('a port is a number up to 65535.');
  return value;
}

const program = new Command('chainlift')
  .description('Restore from backups of virtual machines: browse any point in time, get files out, mount disks')
  .version(version)
  .showHelpAfterError('(chainlift --help, or chainlift help <command>, says more)')
  .exitOverride()
  .configureOutput({ outputError: (text, write) => write(`chainlift: usage: ${text.replace(/^error: /, '')}`) });

/** A command on a source: all of them narrow it the same way and can answer in JSON. */
function onSource(name: string, description: string, argument = '<source>'): Command {
  return program
    .command(`${name} ${argument}`)
    .description(description)
    .option('--json', 'answer in JSON')
    .option('--vm <name>', 'VM in the repository')
    .option('--point <id-or-name>', 'restore point of the VM')
    .addOption(new Option('--disk <n>', 'disk of the point').argParser(index));
}

program
  .command('scan <repository>')
  .description('VMs, their points, disks, orphans, warnings')
  .option('--json', 'answer in JSON')
  .action(async (source: string, options: CommonOptions) => (await import('./commands/scan.ts')).scan(source, options));
onSource('verify', 'every link, content id, size, table and checksum; exit 1 with findings').action(
  async (source: string, options: CommonOptions) => (await import('./commands/verify.ts')).verify(source, options),
);
onSource('info', 'the layers of a disk').action(async (source: string, options: CommonOptions) =>
  (await import('./commands/disk.ts')).info(source, options),
);
onSource('map', 'the runs of a disk, with the layer each comes from').action(
  async (source: string, options: CommonOptions) => (await import('./commands/disk.ts')).map(source, options),
);
onSource('hash', "SHA-256 of the virtual disk's content").action(async (source: string, options: CommonOptions) =>
  (await import('./commands/disk.ts')).hash(source, options),
);
onSource('convert', 'a whole disk restored to one new image, sparse, read back', '<source> <out>')
  .addOption(
    new Option('--format <format>', 'format of the image; by the ending of its name when absent').choices([
      'raw',
      'qcow2',
      'vmdk',
      'vhdx',
    ]),
  )
  .addOption(
    new Option('--variant <variant>', 'kind of VMDK').choices([
      'monolithicSparse',
      'streamOptimized',
      'monolithicFlat',
    ]),
  )
  .option('--no-verify', 'do not read the image back')
  .option('--replace', 'replace an image of that name')
  .option('--resume', 'go on with an interrupted conversion to the same image')
  .action(async (source: string, out: string, options) =>
    (await import('./commands/convert.ts')).convert(source, out, options),
  );
onSource('volumes', 'partitions, their file systems, and how those were left').action(
  async (source: string, options: CommonOptions) => (await import('./commands/volumes.ts')).volumes(source, options),
);
onSource('ls', 'a folder inside a point; / lists the volumes', '<source> [path]')
  .option('-l, --long', 'mode, owner, size and time of each')
  .option('-R, --recursive', 'and everything below')
  .option('--sort', 'sort by name (on a terminal that is the rule)')
  .action(async (source: string, path: string | undefined, options) =>
    (await import('./commands/files.ts')).ls(source, path ?? '/', options),
  );
onSource('stat', 'everything known of one file or folder', '<source> <path>').action(
  async (source: string, path: string, options: CommonOptions) =>
    (await import('./commands/files.ts')).stat(source, path, options),
);
onSource('cat', "a file's content", '<source> <path>').action(
  async (source: string, path: string, options: CommonOptions) =>
    (await import('./commands/files.ts')).cat(source, path, options),
);
onSource('cp', 'files out, with metadata, verified by reading back', '<source> <paths...>')
  .usage('[options] <source> <path>... <destination>')
  .option('-r, --recursive', 'folders with all they hold')
  .option('--no-verify', 'do not read copies back')
  .addOption(
    new Option('--existing <policy>', 'what to do where a file of that name exists')
      .choices(['refuse', 'replace', 'rename', 'skip'])
      .default('refuse'),
  )
  .action(async (source: string, paths: string[], options) =>
    (await import('./commands/copy.ts')).cp(source, paths, options),
  );
onSource('nbd', 'serves a disk read-only; prints its NBD URI first, serves until interrupted')
  .option('--socket <path>', 'Unix socket to serve on')
  .option('--listen <host:port>', 'loopback address to serve on; port 0 lets the system choose')
  .option('--workers <n>', 'data workers', index)
  .action(async (source: string, options) => (await import('./commands/nbd.ts')).nbd(source, options));
program
  .command('locate <source> <image> [parent]')
  .description('says where the parent of an image is now; its identity is checked, and remembered')
  .option('--forget', 'forget what was said')
  .option('--json', 'answer in JSON')
  .action(async (source: string, image: string, parent: string | undefined, options) =>
    (await import('./commands/locate.ts')).locate(source, image, parent, options),
  );
program
  .command('serve [repository]')
  .description('the window in a browser; prints its URL first, serves until interrupted')
  .option('--port <port>', 'port on loopback', port)
  .option('--open', 'open it in the browser')
  .action(async (source: string | undefined, options) => (await import('./commands/serve.ts')).serve(source, options));
program
  .command('demo <folder>')
  .description('writes the demo repository')
  .action(async (folder: string) => (await import('./commands/demo.ts')).demo(folder));

program.parseAsync().catch((error: unknown) => {
  if (!(error instanceof CommanderError)) throw error;
  // Help and version are answers; everything else Commander refuses is wrong usage.
  process.exitCode = error.exitCode === 0 ? 0 : 2;
});
