/**
 * Does with a hostile image everything that is done with an honest one, and holds the answer against what any of them may cost: an
 * error of our families or data, within five seconds, without memory taken for what the image says, and without a look outside the
 * folder.
 */
import fs, { readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { relative, resolve } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect } from 'vitest';
import { scanRepository } from '../../../main/engine/catalog/catalog.ts';
import type { Catalog } from '../../../main/engine/catalog/model.ts';
import type { Disk } from '../../../main/engine/chain/disk.ts';
import { openChain } from '../../../main/engine/chain/open.ts';
import { verifyChain } from '../../../main/engine/chain/verify.ts';
import { ChainliftError, type WireError } from '../../../main/engine/errors.ts';
import type { Finding } from '../../../main/engine/image/image.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';

/** What an attack may cost. Processor time, so that what else the machine does counts for nothing; a wait is ended by the test's own limit. */
const SECONDS = 5;
/** Growth of the process at its peak: V8 lets garbage lie for some tens of MiB, an allocation that an image asks for is seen above it. */
const GROWTH = 96 << 20;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** The process's highest memory since `forgetPeak`, and what it holds now, in bytes. */
function memory(): { peak: number; now: number } {
  try {
    const status = readFileSync('/proc/self/status', 'latin1');
    const kib = (field: string): number => Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0);
    return { peak: kib('VmHWM') * 1024, now: kib('VmRSS') * 1024 };
  } catch {
    // No Linux: the highest ever. A first attack of its kind is still seen.
    return { peak: process.resourceUsage().maxRSS * 1024, now: process.memoryUsage.rss() };
  }
}

/** Bytes of garbage that may lie about when a measurement begins: collecting it takes longer than most attacks. */
const LITTER = 16 << 20;
let tidy = 0;

function tidyUp(): void {
  const held = (): number => {
    const { heapUsed, external } = process.memoryUsage();
    return heapUsed + external;
  };
  if (tidy !== 0 && held() < tidy + LITTER) return;
  collect();
  tidy = held();
}

function forgetPeak(): void {
  try {
    writeFileSync('/proc/self/clear_refs', '5');
  } catch {
    // See `memory`.
  }
}

/** Every file that was opened while `body` ran, by its real path. */
export async function opened(body: () => Promise<void>): Promise<string[]> {
  const { openSync, open, createReadStream, readFileSync: readWhole } = fs;
  const { open: openPromise, readFile } = fs.promises;
  const seen = new Set<string>();
  const see = (path: unknown): void => {
    if (typeof path !== 'string' && !(path instanceof URL) && !Buffer.isBuffer(path)) return;
    const whole = resolve(String(path));
    if (whole.startsWith('/proc/self/')) return;
    try {
      seen.add(realpathSync(whole));
    } catch {
      seen.add(whole);
    }
  };
  const watched = <A extends unknown[], R>(original: (...args: A) => R): ((...args: A) => R) =>
    function (this: unknown, ...args: A): R {
      see(args[0]);
      return original.apply(this, args);
    };
  Object.assign(fs, {
    openSync: watched(openSync),
    open: watched(open as (...args: unknown[]) => unknown),
    createReadStream: watched(createReadStream as (...args: unknown[]) => unknown),
    readFileSync: watched(readWhole as (...args: unknown[]) => unknown),
  });
  Object.assign(fs.promises, {
    open: watched(openPromise as (...args: unknown[]) => unknown),
    readFile: watched(readFile as (...args: unknown[]) => unknown),
  });
  syncBuiltinESMExports();
  try {
    await body();
  } finally {
    Object.assign(fs, { openSync, open, createReadStream, readFileSync: readWhole });
    Object.assign(fs.promises, { open: openPromise, readFile });
    syncBuiltinESMExports();
  }
  return [...seen].sort();
}

/** Runs `body` and fails when it costs too much or opens a file outside `folder`. @returns files it opened, relative to it. */
export async function withinBounds(folder: string, body: () => Promise<void>, growth = GROWTH): Promise<string[]> {
  const root = realpathSync(folder);
  tidyUp();
  forgetPeak();
  const before = memory().now;
  const clock = process.cpuUsage();
  const files = await opened(body);
  const { user, system } = process.cpuUsage(clock);
  const grew = memory().peak - before;
  const outside = files.filter((path) => path !== root && !path.startsWith(`${root}/`));
  expect(outside, 'files opened outside the folder').toEqual([]);
  expect((user + system) / 1e6, 'seconds').toBeLessThan(SECONDS);
  expect(grew / 2 ** 20, 'MiB more at the peak').toBeLessThan(growth / 2 ** 20);
  return files.map((path) => relative(root, path));
}

/** What `body` throws of our families; undefined when it does not throw. Anything else it throws is a crash, and thrown on. */
export async function refusal(body: () => Promise<unknown>): Promise<WireError | undefined> {
  try {
    await body();
    return undefined;
  } catch (error) {
    if (error instanceof ChainliftError) return error.toWire();
    throw error;
  }
}

/** What became of an attack. */
export interface Outcome {
  /** Why it could not be opened or read; undefined where all of it could. */
  readonly error: WireError | undefined;
  /** It was opened as a disk, whatever came of reading it. */
  readonly size: number | undefined;
  /** Format of each layer of the chain. */
  readonly formats: readonly string[];
  /** The first bytes of the disk, as far as they were read without an error. */
  readonly bytes: Buffer;
  readonly findings: readonly Finding[];
  /** Files that opening and reading opened, relative to the folder. */
  readonly files: readonly string[];
}

/** Findings listened to: damage can be all over. */
const MAX_FINDINGS = 2_000;
/** Bytes read of a disk from its beginning, and from its end. */
const MAX_READ = 6 << 20;
const CHUNK = 1 << 20;

async function readDisk(disk: Disk, into: Buffer[]): Promise<void> {
  for (let at = 0; at < Math.min(disk.size, MAX_READ); at += CHUNK) {
    const length = Math.min(CHUNK, disk.size - at, MAX_READ - at);
    const bytes = await disk.read(at, length);
    expect(bytes.length).toBe(length);
    into.push(Buffer.from(bytes));
  }
  const tail = Math.min(disk.size, 70_000);
  await disk.read(disk.size - tail, tail);
  const end = Math.min(disk.size, 64 << 20);
  let at = 0;
  for (const run of await disk.runs(0, end)) {
    expect(run.offset).toBe(at);
    at += run.length;
  }
  expect(at).toBe(end);
}

/**
 * Opens and reads what `leaf` of `folder` names (both ways), verifies it, and scans the folder, each within bounds.
 */
export async function attack(
  folder: string,
  leaf: string,
  options: { scan?: boolean; growth?: number } = {},
): Promise<Outcome> {
  let error: WireError | undefined;
  let size: number | undefined;
  let formats: string[] = [];
  let chunks: Buffer[] = [];
  let files: string[] = [];
  for (const synchronous of [true, false]) {
    const previous = error;
    chunks = [];
    size = undefined;
    files = await withinBounds(
      folder,
      async () => {
        error = await refusal(() =>
          withFolder(folder, synchronous, async (confinement) => {
            const disk = await openChain(leaf, confinement, { synchronous });
            try {
              size = disk.size;
              formats = disk.layers.map(({ format }) => format);
              await readDisk(disk, chunks);
            } finally {
              await disk.close();
            }
          }),
        );
      },
      options.growth,
    );
    if (!synchronous) expect(error, 'both ways of reading give the same answer').toEqual(previous);
  }
  const findings: Finding[] = [];
  await withinBounds(
    folder,
    async () => {
      const failed = await refusal(() =>
        withFolder(folder, true, async (confinement) => {
          for await (const finding of verifyChain(leaf, confinement)) if (findings.push(finding) >= MAX_FINDINGS) break;
        }),
      );
      expect(failed, 'verify never throws for damage').toBeUndefined();
    },
    options.growth,
  );
  if (options.scan !== false) await scan(folder, options.growth);
  return { error, size, formats, bytes: Buffer.concat(chunks), findings, files };
}

/** Scans the folder as a repository, within bounds. */
export async function scan(folder: string, growth?: number): Promise<Catalog> {
  let catalog: Catalog | undefined;
  await withinBounds(
    folder,
    async () => {
      catalog = await scanRepository(folder, { synchronous: true });
      await catalog.folder.close();
    },
    growth,
  );
  return catalog!;
}

async function withFolder(
  folder: string,
  synchronous: boolean,
  body: (confinement: Confinement) => Promise<void>,
): Promise<void> {
  const confinement = new Confinement(folder, { synchronous });
  try {
    await body(confinement);
  } finally {
    await confinement.close();
  }
}

/** Codes of the findings, without notes. */
export function codes(findings: readonly Finding[]): string[] {
  return [...new Set(findings.filter(({ severity }) => severity !== 'note').map(({ code }) => code))].sort();
}
