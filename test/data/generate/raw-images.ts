/** The golden raw images; see `raw.sh`. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Entry, KIB, run, scattered, withScratch, writeGolden } from './golden-writer.ts';

const out = process.argv[2]!;

/** @param args of split(1), without the file and the prefix. */
function split(title: string, size: number, prefix: string, args: readonly string[]): Entry {
  return withScratch((folder) => {
    const disk = scattered(size % 83, size, 12);
    writeFileSync(join(folder, 'whole'), disk);
    run('split', ...args, join(folder, 'whole'), join(folder, prefix));
    const names = readdirSync(folder).filter((name) => name !== 'whole').sort();
    const files = Object.fromEntries(names.map((name) => [name, readFileSync(join(folder, name))]));
    const made = `GNU coreutils 9.1: split ${args.join(' ')} disk ${prefix}; truth: the file before it was split`;
    return { title, made, files, leaf: names[0]!, disk };
  });
}

const whole = scattered(1, 300 * KIB + 512, 12);
writeGolden(
  'raw',
  [
    { title: 'one file', made: 'lines of text at some offsets', files: { 'web01.img': whole }, leaf: 'web01.img', disk: whole },
    split('split, numbered from 0', 512 * KIB + 1536, 'web01.raw.', ['-b', '128K', '-d', '-a', '3']),
    split('split, numbered from 1', 500 * KIB, 'web01.', ['-b', '100K', '--numeric-suffixes=1', '-a', '3']),
    split('split, lettered', 300 * KIB, 'web01.img.', ['-b', '90K']),
    split('split into more parts than letters of one kind', 100 * KIB, 'web01.dd.', ['-b', '2K', '-a', '2']),
  ],
  out,
);
