/** Random access into gzip files of every make, and what is said of damaged ones. */
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { constants, deflateRawSync, gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { CancelledError, type ChainliftError, CorruptError, UnsupportedError } from '../../../main/engine/errors.ts';
import { buildGzipIndex, type GzipPlaces } from '../../../main/engine/storage/archive/gzip-index.ts';
import { GzipSource } from '../../../main/engine/storage/archive/gzip-source.ts';
import { loadIndex, storeIndex } from '../../../main/engine/storage/archive/index-cache.ts';
import { MemorySource } from '../../../main/engine/storage/byte-source.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { LocalFile } from '../../../main/engine/storage/local-file.ts';
import { randomFrom } from '../../support/random.ts';
import { scratchFolder } from '../../support/scratch.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

/** Content like a disk's: text, noise, long stretches of zeros, things seen before. */
function content(length: number, seed = 5): Buffer {
  const random = randomFrom(seed);
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; ) {
    const run = Math.min(length - at, 1 + Math.floor(random() ** 2 * 90_000));
    const kind = Math.floor(random() * 4);
    if (kind === 0) for (let i = 0; i < run; i++) bytes[at + i] = Math.floor(random() * 256);
    if (kind === 1) for (let i = 0; i < run; i++) bytes[at + i] = 97 + Math.floor(random() ** 3 * 26);
    if (kind === 2 && at > 40_000) bytes.copy(bytes, at, at - 40_000, at - 40_000 + Math.min(run, 40_000));
    at += run;
  }
  return bytes;
}

const plain = content(3 * MIB + 12_345);

/** bgzip's way: members of at most 64 KiB, each with its length in an extra field, and an empty one at the end. */
function bgzip(bytes: Buffer): Buffer {
  const members: Buffer[] = [];
  for (let at = 0; at <= bytes.length; at += 65_280) {
    const piece = bytes.subarray(at, at + 65_280);
    const body = deflateRawSync(piece);
    const header = Buffer.from('1f8b08040000000000ff0600424302000000', 'hex');
    header.writeUInt16LE(header.length + body.length + 8 - 1, 16);
    const trailer = gzipSync(piece).subarray(-8);
    members.push(Buffer.concat([header, body, trailer]));
  }
  return Buffer.concat([...members, Buffer.from('1f8b08040000000000ff0600424302001b0003000000000000000000', 'hex')]);
}

/** One DEFLATE block however long the content: a run of one byte, coded with fixed codes. */
function oneBlock(length: number): Buffer {
  // The literal 0x41, then copies of 258 bytes from one byte back: codes 01110001, then 11000101 and 00000, and the end of block.
  const bits: number[] = [1, 1, 0];
  const put = (code: string): void => {
    for (const bit of code) bits.push(Number(bit));
  };
  put((0x30 + 0x41).toString(2).padStart(8, '0'));
  for (let i = 0; i < (length - 1) / 258; i++) put('1100010100000');
  put('0000000');
  const bytes = Buffer.alloc(Math.ceil(bits.length / 8));
  bits.forEach((bit, i) => {
    bytes[i >> 3]! |= bit << (i & 7);
  });
  const trailer = gzipSync(Buffer.alloc(length, 0x41)).subarray(-8);
  return Buffer.concat([Buffer.from('1f8b08000000000000ff', 'hex'), bytes, trailer]);
}

describe('a gzip file', () => {
  const scratch = scratchFolder('gzip');
  let number = 0;
  const write = (bytes: Uint8Array, name = `file-${number++}.gz`): string => {
    const path = join(scratch.path, name);
    writeFileSync(path, bytes);
    return path;
  };

  /** Thousands of ranges, small and large, near and far, read both ways. */
  async function expectReads(path: string, expected: Buffer, places: GzipPlaces, ranges: number): Promise<void> {
    const random = randomFrom(ranges);
    for (const synchronous of [true, false]) {
      const source = new GzipSource(LocalFile.open(path, { synchronous }), places, 3 * MIB);
      expect(source.size).toBe(expected.length);
      const check = async (offset: number, length: number): Promise<void> => {
        let bytes: Uint8Array;
        if (synchronous) {
          bytes = new Uint8Array(length);
          source.readIntoSync!(bytes, offset);
        } else bytes = await source.read(offset, length);
        if (Buffer.compare(bytes, expected.subarray(offset, offset + length)) !== 0) {
          expect.fail(`${length} bytes from ${offset} differ (synchronous: ${synchronous})`);
        }
      };
      await check(0, 0);
      await check(expected.length, 0);
      await check(0, expected.length);
      const several: Promise<void>[] = [];
      for (let i = 0; i < ranges; i++) {
        const offset = Math.floor(random() * expected.length);
        const length = Math.floor(random() ** 6 * (expected.length - offset + 1));
        several.push(check(offset, length));
        if (several.length === 8) await Promise.all(several.splice(0));
      }
      await Promise.all(several);
      await expect(source.read(expected.length, 1)).rejects.toThrow(CorruptError);
      await source.close();
    }
  }

  async function placesOf(path: string, options: Parameters<typeof buildGzipIndex>[1] = {}): Promise<GzipPlaces> {
    const file = LocalFile.open(path);
    try {
      return await buildGzipIndex(file, options);
    } finally {
      await file.close();
    }
  }

  it.each([1, 2, 3, 4, 5, 6, 7, 8, 9])('is read from anywhere at level %i', async (level) => {
    const path = write(gzipSync(plain, { level }));
    const places = await placesOf(path, { spacing: 256 * KIB });
    expect(places.count).toBeGreaterThan(8);
    expect(places.joints.every((joint) => joint === 0)).toBe(true);
    await expectReads(path, plain, places, 200);
  });

  it.each([
    ['stored blocks', gzipSync(plain, { level: 0 })],
    ['fixed codes', gzipSync(plain, { strategy: constants.Z_FIXED })],
    ['tiny blocks', gzipSync(plain, { memLevel: 1 })],
    ['members of 64 KiB, as bgzip writes them', bgzip(plain)],
    [
      'files after one another',
      Buffer.concat([
        gzipSync(plain.subarray(0, 1_700_000)),
        gzipSync(Buffer.alloc(0)),
        gzipSync(plain.subarray(1_700_000)),
      ]),
    ],
    ['padding of zeros behind it', Buffer.concat([gzipSync(plain), Buffer.alloc(70_000)])],
  ])('is read from anywhere: %s', async (_, packed) => {
    const path = write(packed);
    for (const spacing of [100 * KIB, MIB]) {
      const places = await placesOf(path, { spacing });
      expect(places.trailing).toBe(0);
      await expectReads(path, plain, places, 120);
    }
  });

  it('is read from inside a block that does not end, and of a bomb only what is asked', async () => {
    const length = 1 + 258 * 120_000;
    const path = write(oneBlock(length));
    const places = await placesOf(path, { spacing: MIB });
    expect(places.count).toBeGreaterThan(4);
    expect([...places.bits].some((bit, i) => bit !== places.blockBits[i])).toBe(true);
    await expectReads(path, Buffer.alloc(length, 0x41), places, 40);
    // Stored blocks end every 64 KiB; with places nearer than that some lie inside one.
    const stored = write(gzipSync(plain.subarray(0, 900_000), { level: 0 }));
    const near = await placesOf(stored, { spacing: 5 * KIB });
    await expectReads(stored, plain.subarray(0, 900_000), near, 150);
  });

  it('keeps its places within the ceiling, however many there would be', async () => {
    const path = write(gzipSync(plain));
    const places = await placesOf(path, { spacing: 64 * KIB, ceiling: 200 * KIB });
    const held = places.windows.reduce((sum, { length }) => sum + length, 0);
    expect(held).toBeLessThan(200 * KIB);
    expect(places.count).toBeGreaterThan(3);
    await expectReads(path, plain, places, 100);
    const joined = write(bgzip(plain));
    const thinned = await placesOf(joined, { spacing: 1, ceiling: 4 * KIB });
    expect(thinned.count).toBeLessThan(40);
    await expectReads(joined, plain, thinned, 100);
  });

  it('goes on inside long spans instead of beginning again', async () => {
    const long = content(9 * MIB, 9);
    const path = write(gzipSync(long, { level: 1 }));
    const places = await placesOf(path, { spacing: 64 * MIB });
    expect(places.count).toBe(1);
    await expectReads(path, long, places, 25);
    let read = 0;
    const file = LocalFile.open(path, { synchronous: true });
    const counting = new GzipSource(
      {
        name: 'counted',
        size: file.size,
        read: (offset, length) => file.read(offset, length),
        readIntoSync: (target, offset) => {
          read += target.length;
          file.readIntoSync(target, offset);
        },
        close: () => file.close(),
      },
      places,
      MIB,
    );
    for (let at = 0; at < long.length; at += 100_000) {
      const target = new Uint8Array(Math.min(100_000, long.length - at));
      counting.readIntoSync!(target, at);
      expect(Buffer.compare(target, long.subarray(at, at + target.length))).toBe(0);
    }
    expect(read).toBeLessThan(file.size * 1.2);
    await counting.close();
  });

  it('tells progress, passes content on in order, and answers cancellation', async () => {
    const long = content(30 * MIB, 3);
    const path = write(gzipSync(long, { level: 1 }));
    const told: number[] = [];
    let seen = 0;
    await placesOf(path, {
      onProgress: (done, total) => {
        expect(total).toBe(statSync(path).size);
        told.push(done);
      },
      onContent: (bytes, offset) => {
        expect(offset).toBe(seen);
        expect(Buffer.compare(bytes, long.subarray(offset, offset + bytes.length))).toBe(0);
        seen += bytes.length;
      },
    });
    expect(seen).toBe(long.length);
    expect(told.length).toBeGreaterThan(3);
    expect(told).toEqual([...told].sort((a, b) => a - b));
    const controller = new AbortController();
    const cancelled = placesOf(path, { signal: controller.signal, onProgress: () => controller.abort() });
    await expect(cancelled).rejects.toThrow(CancelledError);
  });

  describe('that is damaged', () => {
    const packed = gzipSync(plain.subarray(0, 300_000));
    const verdict = async (bytes: Uint8Array): Promise<ChainliftError> => {
      try {
        await buildGzipIndex(new MemorySource(bytes, 'web01.gz'));
      } catch (error) {
        return error as ChainliftError;
      }
      return expect.unreachable();
    };
    const patched = (at: number, byte: number): Buffer => {
      const bytes = Buffer.from(packed);
      bytes[at < 0 ? bytes.length + at : at] = byte;
      return bytes;
    };

    it.each([
      ['is empty', Buffer.alloc(0), 'Gzip header', 0],
      ['has another magic', patched(1, 0), 'Gzip header magic', 0],
      ['has reserved flags', patched(3, 0x20), 'Gzip header flags', 3],
      ['has a name without end', Buffer.from('1f8b0808000000000003616263', 'hex'), 'Gzip header name', 10],
      ['has a wrong checksum', patched(-8, packed.at(-8)! ^ 1), 'Gzip checksum', packed.length - 8],
      ['has a wrong length', patched(-4, packed.at(-4)! ^ 1), 'Gzip length', packed.length - 4],
      ['is cut off in its trailer', packed.subarray(0, -3), 'Gzip stream', packed.length - 3],
      ['is cut off in its content', packed.subarray(0, 50_000), 'Gzip stream', 50_000],
      ['is cut off in its header', packed.subarray(0, 7), 'Gzip header', 0],
    ])('says so when it %s', async (_, bytes, structure, position) => {
      const error = await verdict(bytes);
      expect(error).toBeInstanceOf(CorruptError);
      expect(error.details).toMatchObject({ source: 'web01.gz', structure, position });
    });

    it('is refused when it is compressed by a method that is not DEFLATE', async () => {
      expect(await verdict(patched(2, 7))).toBeInstanceOf(UnsupportedError);
    });

    it('never passes with other content, wherever a byte is changed', async () => {
      const small = gzipSync(plain.subarray(100_000, 110_000));
      const random = randomFrom(77);
      let refused = 0;
      for (let i = 0; i < 600; i++) {
        const bytes = Buffer.from(small);
        // Byte 4 to 9 (time, extra flags, system) mean nothing for the content.
        const at = 10 + Math.floor(random() * (bytes.length - 10));
        bytes[at] = bytes[at]! ^ (1 << Math.floor(random() * 8));
        const got: Buffer[] = [];
        try {
          await buildGzipIndex(new MemorySource(bytes, 'x.gz'), { onContent: (piece) => got.push(Buffer.from(piece)) });
          expect(Buffer.concat(got).equals(plain.subarray(100_000, 110_000))).toBe(true);
        } catch (error) {
          expect(error).toBeInstanceOf(CorruptError);
          refused++;
        }
      }
      expect(refused).toBeGreaterThan(550);
    });

    it('tells of bytes behind it, and does not read them', async () => {
      const places = await buildGzipIndex(new MemorySource(Buffer.concat([packed, Buffer.from('rest')]), 'x.gz'));
      expect(places).toMatchObject({ trailing: 4, size: 300_000 });
    });

    it('that changes after its index was made is an error, not other data', async () => {
      const path = write(gzipSync(plain));
      const places = await placesOf(path, { spacing: 256 * KIB });
      writeFileSync(path, Buffer.alloc(statSync(path).size, 0x55));
      for (const synchronous of [true, false]) {
        const source = new GzipSource(LocalFile.open(path, { synchronous }), places);
        await expect(source.read(3 * MIB, 10)).rejects.toThrow(CorruptError);
        if (synchronous) expect(() => source.readIntoSync!(new Uint8Array(10), MIB)).toThrow(CorruptError);
        await source.close();
      }
    });
  });

  describe('whose index is kept', () => {
    it('is not read again until it changes, and whatever happens to the kept index', async () => {
      const folder = join(scratch.path, 'repository');
      const cacheFolder = join(scratch.path, 'cache', 'indexes');
      mkdirSync(folder, { recursive: true });
      const image = join(folder, 'disk.raw.gz');
      const disk = gzipSync(Buffer.concat([plain, plain]), { level: 1 });
      writeFileSync(image, disk);
      utimesSync(image, 1000, 1000);
      const mount = async (): Promise<{ built: boolean; notes: string[] }> => {
        let built = false;
        const confinement = new Confinement(folder, { cacheFolder });
        const archive = await confinement.mount(image, {
          onProgress: () => {
            built = true;
          },
        });
        const file = archive!.open('disk.raw', 'disk.raw.gz/disk.raw');
        expect(Buffer.compare(await file.read(2 * MIB, 4096), plain.subarray(2 * MIB, 2 * MIB + 4096))).toBe(0);
        await confinement.close();
        return { built, notes: archive!.findings.map(({ code }) => code) };
      };
      const kept = () => readdirSync(cacheFolder).map((name) => join(cacheFolder, name));
      expect(await mount()).toEqual({ built: true, notes: [] });
      expect(statSync(cacheFolder).mode & 0o777).toBe(0o700);
      expect(kept()).toHaveLength(1);
      expect(statSync(kept()[0]!).mode & 0o777).toBe(0o600);
      expect(await mount()).toEqual({ built: false, notes: [] });
      // A damaged one is made anew, wherever the damage is.
      const good = readFileSync(kept()[0]!);
      for (const at of [0, 30, 60, good.length >> 1, good.length - 1]) {
        const bad = Buffer.from(good);
        bad[at]! ^= 0xff;
        writeFileSync(kept()[0]!, bad);
        expect(await mount()).toEqual({ built: true, notes: [] });
        expect(await mount()).toEqual({ built: false, notes: [] });
      }
      writeFileSync(kept()[0]!, '');
      expect((await mount()).built).toBe(true);
      // The file changes, keeping size and time.
      writeFileSync(image, disk);
      utimesSync(image, 1000, 1000);
      expect((await mount()).built).toBe(true);
      // Others could write here: it is not trusted.
      chmodSync(cacheFolder, 0o777);
      expect(await mount()).toEqual({ built: true, notes: ['index-not-kept'] });
      chmodSync(cacheFolder, 0o700);
      expect((await mount()).built).toBe(false);
    });

    it('goes when the folder is full, the one used longest ago first', async () => {
      const folder = join(scratch.path, 'small-cache');
      const places = await buildGzipIndex(new MemorySource(gzipSync(plain), 'x.gz'), { spacing: 128 * KIB });
      const file = { name: 'x.gz', size: gzipSync(plain).length };
      const place = (identity: string) => ({ folder, identity, folderBytes: MIB });
      for (let i = 0; i < 12; i++) {
        expect(await storeIndex(place(`file ${i}`), { places, tar: undefined }, file)).toBeUndefined();
        const time = new Date(1_000_000 + i * 1000);
        for (const name of readdirSync(folder)) {
          if (statSync(join(folder, name)).mtimeMs > 1e9) utimesSync(join(folder, name), time, time);
        }
      }
      const total = readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
      expect(total).toBeLessThanOrEqual(MIB);
      expect(await loadIndex(place('file 0'), file.size)).toBeUndefined();
      expect(await loadIndex(place('file 11'), file.size + 1)).toBeUndefined();
      expect((await loadIndex(place('file 11'), file.size))?.places).toEqual(places);
      const tooLarge = await storeIndex({ ...place('huge'), folderBytes: 1000 }, { places, tar: undefined }, file);
      expect(tooLarge?.code).toBe('index-not-kept');
    });
  });
});
