/**
 * What every disk image format must do, whatever it is. A format supplies images (a function that writes one into a folder, with
 * the disk it should be) and gets the same assertions as all others.
 */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ChainliftError, CorruptError } from '../../main/engine/errors.ts';
import type { CompressedRun, Finding, ImageLayer, LayerRun } from '../../main/engine/image/image.ts';
import { Confinement } from '../../main/engine/storage/confinement.ts';
import { runAsync, runSync } from '../../main/engine/storage/io.ts';
import { randomFrom } from '../support/random.ts';
import { leavesUntouched, scratchFolder } from '../support/scratch.ts';

export interface ImageSample {
  readonly title: string;
  /**
   * Writes the image into an empty folder. `model` is the disk with zeros where the layer has no answer; `kinds` says for each byte
   * range what the layer must call it, where the format can tell.
   */
  write(folder: string): {
    path: string;
    model: Buffer;
    kinds: readonly ExpectedKind[];
    /** Where the tables of the (only) file are, if not in its first 16 KiB: most mutations go there. */
    tables?: readonly { readonly offset: number; readonly length: number }[];
  };
}

export interface ExpectedKind {
  readonly offset: number;
  readonly length: number;
  readonly kind: LayerRun['kind'];
}

export interface ImageConformance {
  readonly format: string;
  readonly samples: readonly ImageSample[];
  open(path: string, folder: Confinement): Promise<ImageLayer>;
  /** True for a format without metadata, where a shorter file is a smaller disk and a changed byte is other data. */
  readonly opaque?: boolean;
}

/** Asserts that the runs cover the range in order, without gap or overlap. */
export function expectCover(runs: readonly LayerRun[], offset: number, length: number): void {
  let at = offset;
  for (const run of runs) {
    expect(run.offset).toBe(at);
    expect(run.length).toBeGreaterThan(0);
    if (run.kind === 'data') expect(run.position + run.length).toBeLessThanOrEqual(run.source.size);
    if (run.kind === 'compressed') {
      const within = run.offset % run.codec.unit;
      expect(within + run.length).toBeLessThanOrEqual(run.codec.unit);
      expect(run.position + run.stored).toBeLessThanOrEqual(run.source.size);
    }
    at += run.length;
  }
  expect(at).toBe(offset + length);
}

/** The bytes of a range as this layer alone has them: zeros where it says zero or absent. */
export async function readLayer(layer: ImageLayer, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  for (const run of await runAsync(layer.runs(offset, length))) {
    if (run.kind === 'data') bytes.set(await run.source.read(run.position, run.length), run.offset - offset);
    if (run.kind === 'compressed') bytes.set(await unpacked(run), run.offset - offset);
  }
  return bytes;
}

/** The bytes of a compressed run, the same by both ways of unpacking. */
async function unpacked({ codec, source, position, stored, offset, length }: CompressedRun): Promise<Uint8Array> {
  const start = offset - (offset % codec.unit);
  const unit = await runAsync(codec.unpack(source, position, stored, start));
  expect(unit.length).toBe(codec.unit);
  if (codec.unpackAsync !== undefined) {
    expect(Buffer.compare(await codec.unpackAsync(source, position, stored, start), unit)).toBe(0);
  }
  return unit.subarray(offset - start, offset - start + length);
}

export async function findings(layer: ImageLayer): Promise<Finding[]> {
  const all: Finding[] = [];
  for await (const finding of layer.check()) all.push(finding);
  return all;
}

/** Does `body`, and takes our own errors for an answer; anything else that is thrown fails the test. */
async function dataOrTypedError(body: () => Promise<void>): Promise<'data' | 'error'> {
  try {
    await body();
    return 'data';
  } catch (error) {
    if (error instanceof ChainliftError) return 'error';
    throw error;
  }
}

export function describeImageLayer(suite: ImageConformance): void {
  describe.each(suite.samples.map((sample) => [sample.title, sample] as const))(
    `${suite.format}: %s`,
    (_title, sample) => {
      const scratch = scratchFolder('image');
      let number = 0;

      /** A fresh folder with the image in it. */
      function make() {
        const folder = join(scratch.path, `image-${number++}`);
        mkdirSync(folder);
        return { folder, ...sample.write(folder) };
      }
      async function withLayer<T>(
        image: { folder: string; path: string },
        body: (layer: ImageLayer) => Promise<T>,
        synchronous = false,
      ): Promise<T> {
        const layer = await suite.open(image.path, new Confinement(image.folder, { synchronous }));
        try {
          return await body(layer);
        } finally {
          await layer.close();
        }
      }

      it('covers random ranges exactly, with the bytes of the model, and leaves the files alone', async () => {
        const image = make();
        const random = randomFrom(7);
        await leavesUntouched(image.folder, () =>
          withLayer(image, async (layer) => {
            expect(layer.format).toBe(suite.format);
            expect(layer.virtualSize).toBe(image.model.length);
            const size = layer.virtualSize;
            const ranges = [
              [0, size],
              [0, 0],
              [size, 0],
              [size - 1, 1],
              [0, 1],
            ];
            for (let i = 0; i < 200; i++) {
              const offset = Math.floor(random() * size);
              ranges.push([offset, Math.floor(random() ** 3 * (size - offset + 1))]);
            }
            for (const [offset, length] of ranges as [number, number][]) {
              expectCover(await runAsync(layer.runs(offset, length)), offset, length);
              const got = await readLayer(layer, offset, length);
              if (!got.equals(image.model.subarray(offset, offset + length))) {
                expect.fail(`bytes differ in ${length} bytes from ${offset}`);
              }
            }
          }),
        );
      });

      it('holds data, zero and absent apart', async () => {
        const image = make();
        await withLayer(image, async (layer) => {
          for (const expected of image.kinds) {
            const runs = await runAsync(layer.runs(expected.offset, expected.length));
            expect(
              runs.map((run) => run.kind),
              `at ${expected.offset}`,
            ).toEqual(runs.map(() => expected.kind));
          }
          const covered = image.kinds
            .filter(({ kind }) => kind === 'data' || kind === 'compressed')
            .reduce((sum, { length }) => sum + length, 0);
          expect(await layer.allocatedBytes()).toBe(covered);
        });
      });

      it('answers the same synchronously and asynchronously', async () => {
        const image = make();
        const plain = (runs: readonly LayerRun[]) =>
          runs.map((run) =>
            run.kind === 'data' || run.kind === 'compressed'
              ? { ...run, source: run.source.name, codec: undefined }
              : run,
          );
        const wide = await withLayer(image, async (layer) => plain(await runAsync(layer.runs(0, layer.virtualSize))));
        const sync = await withLayer(image, async (layer) => plain(runSync(layer.runs(0, layer.virtualSize))), true);
        expect(sync).toEqual(wide);
      });

      it('refuses ranges outside the disk', async () => {
        const image = make();
        await withLayer(image, async (layer) => {
          const size = layer.virtualSize;
          for (const [offset, length] of [
            [size, 1],
            [0, size + 1],
            [-1, 1],
            [-512, 512],
            [Number.NaN, 1],
            [0, -1],
          ] as const) {
            await expect(runAsync(layer.runs(offset, length)), `${length} from ${offset}`).rejects.toThrow(
              CorruptError,
            );
          }
        });
      });

      it('has nothing to say against a whole image', async () => {
        const image = make();
        const found = await leavesUntouched(image.folder, () => withLayer(image, findings));
        expect(found.filter(({ severity }) => severity !== 'note')).toEqual([]);
      });

      it('answers cancellation', async () => {
        if (suite.opaque) return;
        const image = make();
        await withLayer(image, async (layer) => {
          const signal = AbortSignal.abort();
          await expect(layer.allocatedBytes(signal)).rejects.toMatchObject({ kind: 'cancelled' });
          await expect(layer.check(signal)[Symbol.asyncIterator]().next()).rejects.toMatchObject({ kind: 'cancelled' });
        });
      });

      it.skipIf(suite.opaque)('never gives wrong data for a file that was cut off', async () => {
        const image = make();
        const random = randomFrom(11);
        let errors = 0;
        let cuts = 0;
        for (const file of await withLayer(image, async (layer) => layer.files)) {
          // The text of a descriptor has no redundancy: a cut that leaves a whole smaller descriptor can't be told.
          if (file.role === 'descriptor') continue;
          const sizes = [0, 1, 511, 512, 513, 2047, 2048, file.size - 1, file.size - 512];
          for (let i = 0; i < 25; i++) sizes.push(Math.floor(random() * file.size));
          for (const size of sizes) {
            if (size < 0 || size >= file.size) continue;
            cuts++;
            const copy = mkdtempSync(join(scratch.path, 'cut-'));
            cpSync(image.folder, copy, { recursive: true });
            truncateSync(join(copy, file.name), size);
            const answer = await dataOrTypedError(() =>
              withLayer({ folder: copy, path: image.path.replace(image.folder, copy) }, async (layer) => {
                const got = await readLayer(layer, 0, layer.virtualSize);
                if (!got.equals(image.model)) expect.fail(`${file.name} cut to ${size} bytes reads as other data`);
              }),
            );
            if (answer === 'error') errors++;
            rmSync(copy, { recursive: true });
          }
        }
        expect(cuts).toBeGreaterThan(0);
        expect(errors).toBeGreaterThan(0);
      });

      it('answers damage with data or a typed error, in time', async () => {
        const image = make();
        const random = randomFrom(13);
        const files = await withLayer(image, async (layer) => layer.files);
        const originals = new Map(files.map((file) => [file.path, readFileSync(file.path)]));
        let errors = 0;
        for (let i = 0; i < 150; i++) {
          const file = files[i % files.length]!;
          const original = originals.get(file.path)!;
          const bytes = Buffer.from(original);
          for (let n = 1 + Math.floor(random() * 4); n > 0; n--) {
            // Most mutations go to the metadata.
            const tables = image.tables ?? [{ offset: 0, length: Math.min(bytes.length, 16_384) }];
            const reach =
              random() < 0.8
                ? tables[tables.length === 1 ? 0 : Math.floor(random() * tables.length)]!
                : { offset: 0, length: bytes.length };
            const at = reach.offset + Math.floor(random() * reach.length);
            if (random() < 0.5) bytes[at] = Math.floor(random() * 256);
            else bytes.fill(random() < 0.5 ? 0xff : 0, at, Math.min(bytes.length, at + 1 + Math.floor(random() * 8)));
          }
          writeFileSync(file.path, bytes);
          const answer = await dataOrTypedError(() =>
            withLayer(image, async (layer) => {
              // A mutation of the size can make the disk huge; what is asked of it is not.
              const length = Math.min(layer.virtualSize, 4 * image.model.length);
              expectCover(await runAsync(layer.runs(0, length)), 0, length);
              if (layer.virtualSize <= 4 * image.model.length) await findings(layer);
            }),
          );
          if (answer === 'error') errors++;
          writeFileSync(file.path, original);
        }
        if (!suite.opaque) expect(errors).toBeGreaterThan(0);
      });
    },
  );
}
