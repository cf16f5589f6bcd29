import { execFileSync } from 'node:child_process';
import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { CorruptError, IoError, UnsupportedError } from '../../../main/engine/errors.ts';
import { LocalFile } from '../../../main/engine/storage/local-file.ts';
import { scratchFolder } from '../../support/scratch.ts';

const linux = process.platform === 'linux';
const scratch = scratchFolder('local-file');

function fileOf(name: string, size: number): { path: string; bytes: Buffer } {
  const path = join(scratch.path, name);
  const bytes = Buffer.alloc(size);
  for (let i = 0; i < size; i++) bytes[i] = (i * 31 + (i >> 8)) & 0xff;
  writeFileSync(path, bytes);
  return { path, bytes };
}

/** Descriptors of this process that lead to `path`. */
function descriptorsOf(path: string): string[] {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === path;
    } catch {
      return false; // The listing's own descriptor, gone by now.
    }
  });
}

for (const synchronous of [true, false]) {
  describe(`LocalFile, ${synchronous ? 'on this thread' : 'through the thread pool'}`, () => {
    const open = (path: string) => LocalFile.open(path, { synchronous });

    it('reads any range, and only whole ones', async () => {
      const { path, bytes } = fileOf('ranges', 10_001);
      const file = open(path);
      expect(file.size).toBe(10_001);
      for (const [offset, length] of [
        [0, 0],
        [0, 10_001],
        [1, 10_000],
        [10_000, 1],
        [10_001, 0],
        [4095, 4098],
      ] as const) {
        expect(Buffer.from(await file.read(offset, length))).toEqual(bytes.subarray(offset, offset + length));
        const target = new Uint8Array(length);
        file.readIntoSync(target, offset);
        expect(Buffer.from(target)).toEqual(bytes.subarray(offset, offset + length));
      }
      for (const [offset, length] of [
        [0, 10_002],
        [10_001, 1],
        [-1, 1],
        [Number.NaN, 1],
        [2 ** 53, 1],
      ] as const) {
        await expect(file.read(offset, length)).rejects.toThrow(CorruptError);
        expect(() => file.readIntoSync(new Uint8Array(length), offset)).toThrow(CorruptError);
      }
      await file.close();
    });

    it('says where a file ends that was cut off after it was opened', async () => {
      const { path, bytes } = fileOf('shrinks', 5000);
      const file = open(path);
      truncateSync(path, 3000);
      expect(Buffer.from(await file.read(0, 3000))).toEqual(bytes.subarray(0, 3000));
      const expected = { kind: 'corrupt', details: { structure: 'File', source: path, position: 3000 } };
      await expect(file.read(2000, 3000)).rejects.toMatchObject(expected);
      await expect(file.read(0, 5000)).rejects.toMatchObject(expected);
      await expect(file.read(4000, 10)).rejects.toMatchObject({ details: { position: 4000 } });
      expect(() => file.readIntoSync(new Uint8Array(3000), 2000)).toThrow(CorruptError);
      await file.close();
    });

    it('finishes reads that are in flight when it is closed, and refuses later ones', async () => {
      const { path, bytes } = fileOf('closing', 200_000);
      const file = open(path);
      const reads = Array.from({ length: 50 }, (_, i) => file.read(i * 1000, 4000));
      await file.close();
      await file.close();
      for (const [i, read] of (await Promise.all(reads)).entries()) {
        expect(Buffer.from(read)).toEqual(bytes.subarray(i * 1000, i * 1000 + 4000));
      }
      await expect(file.read(0, 1)).rejects.toThrow(IoError);
      expect(() => file.readIntoSync(new Uint8Array(1), 0)).toThrow(IoError);
      if (linux) expect(descriptorsOf(path)).toEqual([]);
    });

    it('never gives its descriptor away while a read holds it', async () => {
      const { path, bytes } = fileOf('reused', 100_000);
      const other = fileOf('other', 100_000);
      writeFileSync(other.path, Buffer.alloc(100_000, 0xee));
      for (let round = 0; round < 50; round++) {
        const file = open(path);
        const read = file.read(0, 100_000);
        const closing = file.close();
        // The next file to be opened gets the lowest free number: the one just closed, were it closed.
        const fd = openSync(other.path, 'r');
        expect(Buffer.compare(await read, bytes)).toBe(0);
        await closing;
        closeSync(fd);
      }
    });

    it.runIf(linux)('is opened without any right to write', async () => {
      const { path } = fileOf('flags', 10);
      const file = open(path);
      const [fd] = descriptorsOf(path);
      const flags = /^flags:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))![1]!;
      const bits = Number.parseInt(flags, 8);
      expect(bits & 3).toBe(constants.O_RDONLY);
      expect(bits & (constants.O_APPEND | constants.O_TRUNC | constants.O_CREAT)).toBe(0);
      await file.close();
    });
  });
}

describe('LocalFile.open', () => {
  it('names what is not there', () => {
    const path = join(scratch.path, 'absent');
    expect(() => LocalFile.open(path, { name: 'web01.vmdk' })).toThrow(IoError);
    try {
      LocalFile.open(path, { name: 'web01.vmdk' });
    } catch (error) {
      expect((error as IoError).toWire()).toMatchObject({
        kind: 'io',
        details: { source: 'web01.vmdk', code: 'ENOENT' },
      });
    }
  });

  it('refuses what is no regular file, and leaves nothing open', () => {
    const folder = join(scratch.path, 'folder');
    mkdirSync(folder);
    expect(() => LocalFile.open(folder)).toThrow(UnsupportedError);
    if (linux) {
      expect(descriptorsOf(folder)).toEqual([]);
      expect(() => LocalFile.open('/dev/null')).toThrow(UnsupportedError);
    }
  });

  it.runIf(linux)('does not wait for the writer of a FIFO', () => {
    const path = join(scratch.path, 'fifo');
    execFileSync('mkfifo', [path]);
    expect(() => LocalFile.open(path)).toThrow(UnsupportedError);
    expect(descriptorsOf(path)).toEqual([]);
  });
});
