/**
 * A process that looks at mutants and says of each how it went, a JSON object a line. Its parent watches the clock: a mutant that
 * hangs can't be noticed from within.
 *
 * Arguments: first mutant, number of mutants, folder to work in, and the title of the only golden image wanted ("" for all).
 */
import fs, { mkdirSync, readFileSync, readSync, writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join, resolve } from 'node:path';
import { goldenImages, goldenPath, unpackGolden } from '../support/golden.ts';
import { look } from './look.ts';
import { apply, mutant, type Patch, type Target, targetOf } from './mutate.ts';

const [first = '0', count = '0', work = '', only = '', replay = ''] = process.argv.slice(2);
mkdirSync(work, { recursive: true });

interface Prepared {
  readonly title: string;
  readonly format: string;
  readonly folder: string;
  readonly path: string;
  readonly targets: readonly Target[];
}

function say(line: object): void {
  writeFileSync(1, `${JSON.stringify(line)}\n`);
}

const goldens = goldenImages().filter(({ title, format }) => only === '' || `${format}: ${title}` === only);
const prepared = new Map<string, Prepared>();

function prepare(index: number): Prepared {
  const golden = goldens[index]!;
  const key = `${golden.format}: ${golden.title}`;
  let ready = prepared.get(key);
  if (ready === undefined) {
    const folder = unpackGolden(golden, work);
    const targets = Object.keys(golden.files).map((file) => targetOf(folder, file));
    ready = { title: golden.title, format: golden.format, folder, path: goldenPath(golden, folder), targets };
    prepared.set(key, ready);
  }
  return ready;
}

/** Files that were opened outside the folder the image is in: none may be. */
let outside: string | undefined;
let inside = '';
const { openSync } = fs;
fs.openSync = (path, ...rest) => {
  const whole = resolve(String(path));
  if (inside !== '' && whole !== inside && !whole.startsWith(`${inside}/`)) outside ??= whole;
  return openSync(path, ...rest);
};
syncBuiltinESMExports();

async function one(image: Prepared, patches: readonly Patch[], seed: number): Promise<void> {
  const undo = apply(image.folder, patches, seed % 2 === 0);
  const started = performance.now();
  outside = undefined;
  inside = image.folder;
  let failure: string | undefined;
  let read: string | undefined;
  try {
    ({ read } = await look(image.folder, image.path, seed));
  } catch (error) {
    failure = error instanceof Error ? (error.stack ?? error.message) : String(error);
  }
  inside = '';
  undo();
  if (outside !== undefined) failure ??= `it opened ${outside}, outside its folder`;
  const took = performance.now() - started;
  const rss = process.memoryUsage.rss();
  say({
    seed,
    took,
    rss,
    read,
    ...(failure === undefined ? {} : { failure, patches, image: `${image.format}: ${image.title}` }),
  });
}

if (replay !== '') {
  const { patches, seed } = JSON.parse(readFileSync(replay, 'utf8')) as { patches: Patch[]; seed: number };
  await one(prepare(0), patches, seed);
} else {
  for (let seed = Number(first); seed < Number(first) + Number(count); seed++) {
    const image = prepare(seed % goldens.length);
    const read = (file: string, at: number, n: number): Buffer => {
      const fd = openSync(join(image.folder, file), 'r');
      const bytes = Buffer.alloc(n);
      readSync(fd, bytes, 0, n, at);
      fs.closeSync(fd);
      return bytes;
    };
    say({ seed, started: `${image.format}: ${image.title}` });
    await one(image, mutant(seed, image.targets, read), seed);
  }
}
