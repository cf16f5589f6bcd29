/**
 * Seeded mutation of whole repositories, for as long as one has patience: every operation on a damaged copy must end in an
 * answer or in an error of our families, within bounds of time and memory, and must not touch the copy.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { writeDemo } from '../../main/engine/demo/demo.ts';
import { ChainliftError } from '../../main/engine/errors.ts';
import { createEngine } from '../../main/engine/service/engine.ts';
import { randomFrom } from '../support/random.ts';

/** Seconds that one operation on a damaged 96 MiB disk may take. */
const PATIENCE = 60;
/** Bytes of resident memory that no input may drive us beyond. */
const CEILING = 1 << 30;

/** Changes bytes, words or the length of one file of the folder. Small files and the fronts of large ones get most of it. */
function damage(folder: string, random: () => number): string {
  const names = readdirSync(folder).filter((name) => statSync(join(folder, name)).isFile());
  const name = names[Math.floor(random() * names.length)]!;
  const path = join(folder, name);
  const bytes = readFileSync(path);
  if (bytes.length === 0) return `${name}: empty`;
  const what: string[] = [];
  for (let n = 1 + Math.floor(random() * 8); n > 0; n--) {
    const near = random() < 0.5 ? Math.min(bytes.length, 131_072) : bytes.length;
    const at = Math.floor(random() * near);
    switch (Math.floor(random() * 4)) {
      case 0:
        bytes[at] = Math.floor(random() * 256);
        break;
      case 1:
        bytes.fill(random() < 0.5 ? 0 : 0xff, at, Math.min(bytes.length, at + 1 + Math.floor(random() * 512)));
        break;
      case 2:
        bytes.copyWithin(at, Math.floor(random() * bytes.length), Math.floor(random() * bytes.length));
        break;
      default:
        if (at + 4 <= bytes.length) bytes.writeUInt32LE(Math.floor(random() * 2 ** 32), at);
    }
    what.push(String(at));
  }
  writeFileSync(path, random() < 0.1 ? bytes.subarray(0, Math.floor(random() * bytes.length)) : bytes);
  return `${name} at ${what.join(', ')}`;
}

async function look(folder: string): Promise<void> {
  const engine = createEngine({ synchronous: true, configFolder: null });
  try {
    const report = await engine.api.report({ source: folder });
    const verify = await engine.api.verify({ target: { source: folder } });
    for await (const snapshot of engine.api.watchTask({ id: verify.id })) {
      if (snapshot.state === 'failed' && snapshot.error?.kind === 'internal') throw new Error(snapshot.error.message);
    }
    for (const vm of report.vms) {
      for (const point of vm.points) {
        const target = { source: folder, vm: vm.name, point: point.id };
        await quietly(async () => {
          await engine.api.volumes({ target });
          for await (const rows of engine.api.list({ target, path: '/', recursive: true, long: true })) {
            for (const row of rows.slice(0, 3)) {
              if (row.kind !== 'file' || row.error !== undefined) continue;
              await quietly(() => engine.api.preview({ target, path: row.path, limit: 65_536 }));
              await quietly(() => engine.api.stat({ target, path: row.path }));
            }
          }
        });
        await quietly(() => engine.api.changes({ target, path: '/sda2/srv/www' }));
      }
    }
  } catch (error) {
    if (!(error instanceof ChainliftError)) throw error;
  } finally {
    await engine.close();
  }
}

/** Lets errors of our families pass: they are answers. */
async function quietly(body: () => Promise<unknown>): Promise<void> {
  try {
    await body();
  } catch (error) {
    if (!(error instanceof ChainliftError)) throw error;
  }
}

/** Runs for `seconds` from `seed` on. @returns the number of rounds; throws with the seed of the round that failed. */
export async function soak(seconds: number, seed: number, say: (text: string) => void): Promise<number> {
  const until = Date.now() + seconds * 1000;
  let round = 0;
  for (; Date.now() < until; round++) {
    const folder = mkdtempSync(join(tmpdir(), 'chainlift-soak-'));
    const random = randomFrom(seed + round);
    try {
      await writeDemo(folder);
      const what = damage(folder, random);
      const started = Date.now();
      await look(folder).catch((error: unknown) => {
        throw new Error(`seed ${seed + round} (${what}): ${error instanceof Error ? error.stack : String(error)}`);
      });
      const took = (Date.now() - started) / 1000;
      if (took > PATIENCE) throw new Error(`seed ${seed + round} (${what}): took ${took} s`);
      const { rss } = process.memoryUsage();
      if (rss > CEILING) throw new Error(`seed ${seed + round} (${what}): ${rss} bytes of memory`);
      if (round % 20 === 0) say(`round ${round}: ${what}, ${took.toFixed(1)} s`);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }
  return round;
}
