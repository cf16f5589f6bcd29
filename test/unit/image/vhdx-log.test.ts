/** The log of a VHDX: replayed in memory, so far as it is whole; the file is never touched. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { LogOverlay } from '../../../main/engine/image/vhdx/overlay.ts';
import { MemorySource } from '../../../main/engine/storage/byte-source.ts';
import { readLayer } from '../../conformance/image-layer.ts';
import { randomFrom } from '../../support/random.ts';
import { scratchFolder } from '../../support/scratch.ts';
import {
  type Block,
  buildVhdx,
  dirty,
  diskOf,
  type LogWrite,
  logEntry,
  MIB,
  markDirty,
  placeEntry,
  seal,
  type VhdxImage,
  writeHeader,
} from '../../support/vhdx-builder.ts';
import { codesOf, findingsOf, withVhdx } from '../../support/vhdx-open.ts';
import { pattern } from '../../support/vmdk-builder.ts';

const scratch = scratchFolder('vhdx-log');

const SIZE = 3 * MIB;
function build(): VhdxImage {
  return buildVhdx({
    virtualSize: SIZE,
    blocks: new Map<number, Block>([
      [2, pattern(2 * MIB, MIB)],
      [0, pattern(0, MIB)],
    ]),
  });
}

/** The sector of 4 KiB that the file has at `position`. */
const sectorOf = ({ bytes }: VhdxImage, position: number) => Buffer.from(bytes.subarray(position, position + 4096));

/** An image with these entries in its log, one behind the other from `offset`, all of one sequence. */
function withLog(
  image: VhdxImage,
  entries: readonly (readonly LogWrite[])[],
  options: { flushed?: number; last?: number; offset?: number; from?: bigint } = {},
): VhdxImage {
  const { offset = 0, from = 1n } = options;
  let at = offset;
  for (const [i, writes] of entries.entries()) {
    const flushed = options.flushed ?? image.bytes.length;
    const entry = logEntry({
      sequence: from + BigInt(i),
      tail: offset,
      writes,
      flushed,
      last: options.last ?? flushed,
    });
    at = placeEntry(image, at, entry);
  }
  markDirty(image);
  return image;
}

async function reads(image: VhdxImage, disk: Buffer): Promise<void> {
  await withVhdx(scratch.path, image, async (layer) => {
    const got = await readLayer(layer, 0, layer.virtualSize);
    expect(got.equals(disk)).toBe(true);
    expect(layer.properties.log).toBe('replayed in memory');
    expect(readFileSync(layer.path).equals(image.bytes)).toBe(true);
  });
}

/** A change to an entry of 8 KiB that leaves its checksum right. */
const resealed = (change: (bytes: Buffer, at: number) => void) => (image: VhdxImage, at: number) => {
  change(image.bytes, at);
  seal(image.bytes, at, 8192);
};

const refused = (image: VhdxImage, details: object) =>
  expect(withVhdx(scratch.path, image, async () => undefined)).rejects.toMatchObject(details);
const corrupt = (structure: string) => ({ kind: 'corrupt', details: { structure, source: 'disk.vhdx' } });
const unsupported = (feature: string) => ({ kind: 'unsupported', details: { feature, source: 'disk.vhdx' } });

describe('the log of a VHDX', () => {
  it('is applied to every table and to data, and told', async () => {
    const image = build();
    const disk = diskOf(image);
    const { at } = image;
    const places = [at.regionTables[0], at.bat, at.metadata, at.metadata + 65_536, at.blocks.get(0)! + 8192];
    dirty(image, places, Buffer.alloc(4096, 0x5a));
    await reads(image, disk);
    const all = await findingsOf(scratch.path, image);
    expect(codesOf(all)).toEqual([]);
    expect(all.find(({ code }) => code === 'log-replayed')).toMatchObject({
      severity: 'note',
      position: at.log,
      // The two that the later entries overwrite, and the five.
      found: 7,
    });
  });

  it('is not looked at when the header says that there is none', async () => {
    const image = withLog(build(), [[{ position: build().at.bat, zeros: 4096 }]]);
    writeHeader(image, 0, { sequence: 20n });
    await withVhdx(scratch.path, image, async (layer) => {
      expect((await readLayer(layer, 0, SIZE)).equals(diskOf(image))).toBe(true);
      expect(layer.properties.log).toBe('empty');
    });
  });

  it('may hold entries that write nothing', async () => {
    const image = withLog(build(), [[], []]);
    await reads(image, diskOf(image));
  });

  it('of another version is refused by name', async () => {
    const image = withLog(build(), [[]]);
    markDirty(image, { logVersion: 1 });
    await refused(image, unsupported('VHDX log of version 1'));
  });

  it('is refused where no log can be, and where it is too large to be held', async () => {
    const misplaced: Parameters<typeof markDirty>[1][] = [
      { logOffset: 0 },
      { logOffset: MIB + 4096 },
      { logOffset: 64 * MIB },
      { logLength: 0 },
      { logLength: MIB + 4096 },
      { logLength: 0xfff0_0000 },
    ];
    for (const fields of misplaced) {
      const image = withLog(build(), [[]]);
      markDirty(image, fields);
      await refused(image, corrupt('VHDX log'));
    }
    const image = withLog(build(), [[]]);
    const large = { ...image, bytes: Buffer.concat([image.bytes, Buffer.alloc(65 * MIB)]) };
    markDirty(large, { logLength: 65 * MIB });
    await refused(large, unsupported(`VHDX log of ${65 * MIB} bytes that has to be replayed`));
  });

  it('without a whole sequence is refused', async () => {
    const empty = build();
    markDirty(empty);
    await refused(empty, corrupt('VHDX log'));
    // The entry that the last one calls its tail is gone.
    const headless = withLog(build(), [[{ position: 3 * MIB, zeros: 4096 }], [], []]);
    headless.bytes.fill(0, headless.at.log, headless.at.log + 4096);
    await refused(headless, corrupt('VHDX log'));
  });

  it.each<[string, (image: VhdxImage, at: number) => void]>([
    ['signature', ({ bytes }, at) => bytes.write('logE', at)],
    ['checksum', ({ bytes }, at) => bytes.writeUInt32LE(1, at + 4)],
    ['content', ({ bytes }, at) => (bytes[at + 4096 + 100]! ^= 1)],
    ['length 0', ({ bytes }, at) => bytes.writeUInt32LE(0, at + 8)],
    ['length of no sectors', ({ bytes }, at) => bytes.writeUInt32LE(8191, at + 8)],
    ['length beyond the log', ({ bytes }, at) => bytes.writeUInt32LE(0x8000_0000, at + 8)],
    ['tail off the sectors', resealed((bytes, at) => bytes.writeUInt32LE(5, at + 12))],
    ['tail beyond the log', resealed((bytes, at) => bytes.writeUInt32LE(MIB, at + 12))],
    ['number 0', resealed((bytes, at) => bytes.writeBigUInt64LE(0n, at + 16))],
    ['too many descriptors', resealed((bytes, at) => bytes.writeUInt32LE(1000, at + 24))],
    [
      'more data than sectors',
      resealed((bytes, at) => {
        bytes.copyWithin(at + 96, at + 64, at + 96);
        bytes.writeUInt32LE(2, at + 24);
      }),
    ],
    ['log of another life', resealed((bytes, at) => bytes.writeUInt32LE(7, at + 32))],
    ['descriptor signature', resealed((bytes, at) => bytes.write('dexc', at + 64))],
    ['descriptor number', resealed((bytes, at) => bytes.writeUInt32LE(77, at + 88))],
    ['descriptor off the sectors', resealed((bytes, at) => bytes.writeUInt32LE(3 * MIB + 512, at + 80))],
    ['data signature', resealed((bytes, at) => bytes.write('dada', at + 4096))],
    ['data number, high', resealed((bytes, at) => bytes.writeUInt32LE(1, at + 4100))],
    ['data number, low', resealed((bytes, at) => bytes.writeUInt32LE(9, at + 8188))],
  ])('ends before a torn entry: %s', async (_, tear) => {
    const image = build();
    const disk = diskOf(image);
    const { bat } = image.at;
    const entry = sectorOf(image, bat);
    image.bytes.fill(0, bat, bat + 4096);
    withLog(image, [[{ position: bat, data: entry }], [{ position: bat, data: Buffer.alloc(4096, 0xff) }]]);
    tear(image, image.at.log + 8192);
    await reads(image, disk);
  });

  it('takes the sequence with the highest number, and what is older for done', async () => {
    const image = build();
    const disk = diskOf(image);
    const { bat } = image.at;
    const right = sectorOf(image, bat);
    const wrong = Buffer.alloc(4096, 0xff);
    const flushed = image.bytes.length;
    // In front of it an older sequence, behind it one that was begun before the ring came round.
    placeEntry(image, 0, logEntry({ sequence: 3n, tail: 0, flushed, writes: [{ position: bat, data: wrong }] }));
    withLog(image, [[{ position: bat, data: wrong }], [{ position: bat, data: right }]], {
      offset: 65_536,
      from: 900n,
    });
    placeEntry(
      image,
      131_072,
      logEntry({ sequence: 899n, tail: 131_072, flushed, writes: [{ position: bat, data: wrong }] }),
    );
    await reads(image, disk);
  });

  it('begins with the tail of its last entry: what is in front of that was done', async () => {
    const image = build();
    const disk = diskOf(image);
    const flushed = image.bytes.length;
    const data = image.at.blocks.get(0)!;
    // Replaying the first entry would put tables where data is by now.
    let at = placeEntry(
      image,
      0,
      logEntry({ sequence: 1n, tail: 0, flushed, writes: [{ position: data, zeros: 8192 }] }),
    );
    const tail = at;
    at = placeEntry(image, at, logEntry({ sequence: 2n, tail, flushed, writes: [] }));
    placeEntry(image, at, logEntry({ sequence: 3n, tail, flushed, writes: [] }));
    markDirty(image);
    await reads(image, disk);
  });

  it('writes zeros over what was written before, and the other way round', async () => {
    const image = build();
    const disk = diskOf(image);
    const first = image.at.blocks.get(0)!;
    const third = image.at.blocks.get(2)!;
    const data = Buffer.alloc(4096, 0xab);
    withLog(image, [
      [
        { position: first + 4096, data },
        { position: third, zeros: MIB },
      ],
      [
        { position: first, zeros: 3 * 4096 },
        { position: third + 8192, data },
      ],
      [{ position: first + 8192, data }],
    ]);
    disk.fill(0, 0, 8192);
    data.copy(disk, 8192);
    disk.fill(0, 2 * MIB, 3 * MIB);
    data.copy(disk, 2 * MIB + 8192);
    await reads(image, disk);
  });

  it('with a number beyond 2^32 has it in both halves', async () => {
    const image = build();
    const disk = diskOf(image);
    dirtyAt(image, 0x1234_5678_9abc_def0n);
    await reads(image, disk);
  });
  function dirtyAt(image: VhdxImage, from: bigint): void {
    const data = sectorOf(image, image.at.bat);
    image.bytes.fill(0, image.at.bat, image.at.bat + 4096);
    withLog(image, [[{ position: image.at.bat, data }]], { from });
  }

  it('knows how long the file was', async () => {
    const image = build();
    const size = image.bytes.length;
    await refused(withLog(build(), [[]], { flushed: size + MIB }), corrupt('VHDX log entry FlushedFileOffset'));
    // Only the last entry counts: the file may have been made smaller before it.
    const shrunk = build();
    const at = placeEntry(shrunk, 0, logEntry({ sequence: 1n, tail: 0, flushed: 100 * MIB, writes: [] }));
    placeEntry(shrunk, at, logEntry({ sequence: 2n, tail: 0, flushed: size, writes: [] }));
    markDirty(shrunk);
    await reads(shrunk, diskOf(shrunk));
  });

  it('does not put zeros in place of blocks that the file lost, and reads the others', async () => {
    const image = build();
    const disk = diskOf(image);
    const size = image.bytes.length;
    const short = { ...image, bytes: Buffer.from(image.bytes.subarray(0, size - MIB)) };
    withLog(short, [[]], { flushed: size - MIB, last: size });
    await withVhdx(scratch.path, short, async (layer) => {
      // Block 0 was laid last.
      await expect(readLayer(layer, 0, 1)).rejects.toMatchObject(corrupt('VHDX BAT entry'));
      expect((await readLayer(layer, MIB, 2 * MIB)).equals(disk.subarray(MIB))).toBe(true);
    });
    expect(codesOf(await findingsOf(scratch.path, short))).toEqual(['file-shorter-than-log', 'block-out-of-file']);
    // What the log itself has of a lost block is there.
    const whole: LogWrite[] = [
      { position: size - MIB, zeros: MIB },
      { position: size - 4096, data: disk.subarray(MIB - 4096, MIB) },
    ];
    const rest = { ...image, bytes: Buffer.from(short.bytes) };
    withLog(rest, [whole], { flushed: size - MIB, last: size });
    disk.fill(0, 0, MIB - 4096);
    await reads(rest, disk);
    // And a hole in it is not.
    const holed = { ...image, bytes: Buffer.from(short.bytes) };
    withLog(
      holed,
      [
        [
          { position: size - MIB, zeros: 4096 },
          { position: size - MIB + 8192, zeros: MIB - 8192 },
        ],
      ],
      { flushed: size - MIB, last: size },
    );
    await withVhdx(scratch.path, holed, async (layer) => {
      await expect(readLayer(layer, 0, MIB)).rejects.toMatchObject({ kind: 'corrupt' });
    });
  });

  it.each<[string, LogWrite]>([
    ['the first header', { position: 65_536, zeros: 4096 }],
    ['the second header', { position: 131_072, data: Buffer.alloc(4096) }],
    ['everything', { position: 0, zeros: 4 * MIB }],
    ['itself', { position: MIB + 65_536, zeros: 4096 }],
    ['what lies behind the file', { position: 100 * MIB, zeros: 4096 }],
    ['what lies behind the file by its length', { position: 4 * MIB, zeros: 2 ** 52 }],
  ])('must not write %s', async (_, write) => {
    await refused(withLog(build(), [[write]]), corrupt('VHDX log descriptor FileOffset'));
  });

  it('with positions beyond 2^53 is refused', async () => {
    for (const [offset, structure] of [
      [80, 'VHDX log entry descriptor FileOffset'],
      [72, 'VHDX log entry descriptor ZeroLength'],
      [48, 'VHDX log entry FlushedFileOffset'],
      [56, 'VHDX log entry LastFileOffset'],
    ] as const) {
      const image = withLog(build(), [[{ position: 4 * MIB, zeros: 4096 }]]);
      image.bytes.writeBigUInt64LE(1n << 63n, image.at.log + offset);
      seal(image.bytes, image.at.log, 4096);
      await refused(image, corrupt(structure));
    }
  });

  it('made of entries inside entries costs no more than others', async () => {
    const image = build();
    for (let at = 0; at < MIB; at += 4096) {
      const entry = logEntry({ sequence: 1n, tail: 0, flushed: 0, writes: [] });
      entry.writeUInt32LE(MIB, 8);
      placeEntry(image, at, entry);
    }
    markDirty(image);
    const start = performance.now();
    await refused(image, corrupt('VHDX log'));
    expect(performance.now() - start).toBeLessThan(2000);
  });

  it('of as many zero descriptors as there is room for opens in time', async () => {
    const image = build();
    const count = (MIB - 64) / 32;
    const writes: LogWrite[] = [];
    // All over each other: the worst for what puts them together.
    for (let i = 0; i < count; i++)
      writes.push({ position: 4 * MIB + (i % 128) * 4096, zeros: 4096 * (1 + (i % 255)) });
    withLog(image, [writes]);
    const start = performance.now();
    await withVhdx(scratch.path, image, async (layer) => {
      const third = await readLayer(layer, 2 * MIB, MIB);
      expect(third.subarray(0, MIB).every((byte) => byte === 0)).toBe(true);
      expect((await readLayer(layer, MIB / 2, MIB / 2)).equals(diskOf(image).subarray(MIB / 2, MIB))).toBe(true);
    });
    expect(performance.now() - start).toBeLessThan(4000);
  });
});

describe('a log over its file', () => {
  it('reads as if its writes had been done, whatever they are', async () => {
    const random = randomFrom(5);
    const pick = (count: number) => Math.floor(random() * count);
    for (let round = 0; round < 60; round++) {
      const sectors = 1 + pick(40);
      const model = Buffer.from(pattern(round * 7, (sectors + 10) * 4096));
      const file = new MemorySource(Buffer.from(model.subarray(0, sectors * 4096)), 'file');
      model.fill(0, sectors * 4096);
      const covered = new Set<number>();
      const writes = Array.from({ length: pick(30) }, (_, i) => {
        const first = pick(sectors + 8);
        const length = random() < 0.5 ? 4096 : 4096 * (1 + pick(sectors + 10 - first));
        const bytes = length === 4096 && random() < 0.7 ? pattern(i * 31, 4096, round) : undefined;
        if (bytes === undefined) model.fill(0, first * 4096, first * 4096 + length);
        else bytes.copy(model, first * 4096);
        for (let s = first; s < first + length / 4096; s++) covered.add(s);
        return { position: first * 4096, length, bytes };
      });
      const overlay = new LogOverlay(file, writes, model.length);
      for (let i = 0; i < 40; i++) {
        const offset = pick(model.length);
        const length = pick(model.length - offset + 1);
        let whole = true;
        for (let s = Math.max(sectors, Math.floor(offset / 4096)); s * 4096 < offset + length; s++) {
          if (!covered.has(s)) whole = false;
        }
        expect(overlay.holds(offset, length)).toBe(whole);
        const target = Buffer.alloc(length, 0x77);
        if (whole) {
          expect(Buffer.compare(await overlay.read(offset, length), model.subarray(offset, offset + length))).toBe(0);
          overlay.readIntoSync!(target, offset);
          expect(target.equals(model.subarray(offset, offset + length))).toBe(true);
        } else {
          await expect(overlay.read(offset, length)).rejects.toMatchObject({ kind: 'corrupt' });
          expect(() => overlay.readIntoSync!(target, offset)).toThrow(/damaged/);
        }
      }
    }
  });
});
