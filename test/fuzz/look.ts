/** Everything that is done with a mutant. Each step ends in data or in an error of our families; anything else is a crash. */
import { scanRepository } from '../../main/engine/catalog/catalog.ts';
import { openChain } from '../../main/engine/chain/open.ts';
import { verifyChain } from '../../main/engine/chain/verify.ts';
import { ChainliftError } from '../../main/engine/errors.ts';
import { Confinement } from '../../main/engine/storage/confinement.ts';
import { randomFrom } from '../support/random.ts';

/** Findings listened to: damage can be all over. */
const MAX_FINDINGS = 2_000;
/** Bytes read of a disk. */
const MAX_READ = 8 << 20;

export interface Looked {
  readonly read: 'data' | 'error';
  readonly findings: number;
}

/** Opens, reads, verifies and scans. @param path of the image, in `folder`. */
export async function look(folder: string, path: string, seed: number): Promise<Looked> {
  const random = randomFrom(seed ^ 0x5eed);
  const synchronous = random() < 0.5;
  const read = await typed(async () => {
    const confinement = new Confinement(folder, { synchronous });
    try {
      const disk = await openChain(path, confinement, { synchronous });
      try {
        let budget = MAX_READ;
        const take = async (at: number, length: number): Promise<void> => {
          const fit = Math.min(length, disk.size - at, budget);
          if (fit <= 0) return;
          budget -= fit;
          const bytes = await disk.read(at, fit);
          if (bytes.length !== fit) throw new Error(`a read of ${fit} bytes gave ${bytes.length}`);
        };
        await take(0, Math.min(disk.size, 2 << 20));
        for (let i = 0; i < 24; i++) await take(Math.floor(random() * disk.size), 1 + Math.floor(random() * 100_000));
        await take(Math.max(0, disk.size - 70_000), 70_000);
        const end = Math.min(disk.size, 64 << 20);
        let at = 0;
        for (const run of await disk.runs(0, end)) {
          if (run.offset !== at) throw new Error(`a run at ${run.offset}, not ${at}`);
          at += run.length;
        }
        if (at !== end) throw new Error(`runs to ${at}, not ${end}`);
      } finally {
        await disk.close();
      }
    } finally {
      await confinement.close();
    }
  });
  let findings = 0;
  await typed(async () => {
    const confinement = new Confinement(folder, { synchronous });
    try {
      for await (const _ of verifyChain(path, confinement)) if (++findings >= MAX_FINDINGS) break;
    } finally {
      await confinement.close();
    }
  });
  await typed(async () => {
    const catalog = await scanRepository(folder, { synchronous });
    await catalog.folder.close();
  });
  return { read, findings };
}

async function typed(body: () => Promise<void>): Promise<'data' | 'error'> {
  try {
    await body();
    return 'data';
  } catch (error) {
    if (error instanceof ChainliftError) return 'error';
    throw error;
  }
}
