/** Seeded damage to FAT volumes: every outcome is data or one of our errors, in bounded time. */
import { expect, it } from 'vitest';
import { ChainliftError } from '../../../main/engine/errors.ts';
import { fatFileSystem } from '../../../main/engine/filesystem/fat/fat.ts';
import type { Entry } from '../../../main/engine/filesystem/file-system.ts';
import { MemorySource } from '../../../main/engine/storage/byte-source.ts';
import { FatBuilder, pattern } from '../../support/fat-builder.ts';
import { randomFrom } from '../../support/random.ts';

function sound(type: 12 | 16 | 32): FatBuilder {
  const built = new FatBuilder({ type, clusters: type === 16 ? 4200 : 300, rootEntries: 64 });
  built.file(built.root, 'A', pattern(3000), { longName: 'a long enough name.txt', fragmented: true });
  let folder = built.folder(built.root, 'D', { longName: 'directory one' });
  for (let i = 0; i < 3; i++) {
    for (let j = 0; j < 10; j++) built.file(folder, `F${j}`, pattern(100 * j), { longName: `file number ${j}` });
    folder = built.folder(folder, 'D');
  }
  return built;
}

it.each([12, 16, 32] as const)(
  'fat%i: 700 damaged volumes end in data or a typed error',
  async (type) => {
    const next = randomFrom(0xfa7 + type);
    const built = sound(type);
    const hot: [number, number][] = [
      [0, 96],
      [built.fatStart, 400],
      [built.rootStart, 512],
      [built.dataStart, 60 * 512],
    ];
    const started = performance.now();
    let opened = 0;
    let files = 0;
    for (let round = 0; round < 700; round++) {
      const image = Uint8Array.from(built.image);
      const changes = 1 + Math.floor(next() * 8);
      for (let i = 0; i < changes; i++) {
        const [at, length] = hot[Math.floor(next() ** (round % 2 === 0 ? 0.4 : 1) * hot.length)]!;
        const position = at + Math.floor(next() * length);
        image[position] = next() < 0.25 ? 0xff : next() < 0.3 ? 0 : Math.floor(next() * 256);
      }
      const volume = new MemorySource(
        image.subarray(0, next() < 0.1 ? Math.floor(next() * image.length) : image.length),
      );
      try {
        const fs = await fatFileSystem.open(volume);
        opened++;
        const budget = { entries: 20_000 };
        const visit = async (directory: Entry, depth: number): Promise<void> => {
          expect(depth).toBeLessThan(500);
          for await (const batch of fs.list(directory)) {
            for (const entry of batch) {
              if (--budget.entries < 0) return;
              expect(entry.name).not.toMatch(/^$|^\.\.?$|[/\0]/);
              if (entry.error !== undefined) continue;
              try {
                const stat = await fs.stat(entry);
                if (entry.kind === 'directory') {
                  await visit(entry, depth + 1);
                } else {
                  const file = await fs.open(entry);
                  expect(file.size).toBe(stat.size);
                  expect((await file.read(0, Math.min(file.size, 1 << 20))).length).toBe(Math.min(file.size, 1 << 20));
                  files++;
                }
              } catch (error) {
                if (!(error instanceof ChainliftError)) throw error;
              }
            }
          }
        };
        await visit(await fs.root(), 0);
        await fs.entry('/directory one/d/file number 3').catch((error: unknown) => {
          if (!(error instanceof ChainliftError)) throw error;
        });
      } catch (error) {
        if (!(error instanceof ChainliftError)) throw error;
      }
    }
    // Most damage must leave something to read, or the test would only exercise the boot sector.
    expect(opened).toBeGreaterThan(200);
    expect(files).toBeGreaterThan(2000);
    expect(performance.now() - started).toBeLessThan(60_000);
  },
  90_000,
);
