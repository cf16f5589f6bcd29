/**
 * Right checksums for broken structures, so that mutants get past them: written from the formats' specifications (MS VHD 1.0,
 * [MS-VHDX] 2.2, POSIX ustar), and independent of the readers under test.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';

type Write = (path: string, at: number, bytes: Buffer) => () => void;

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0x82f63b78 : c >>> 1;
  return c >>> 0;
});
function crc32c(bytes: Buffer): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** Writes right checksums into whatever of these structures the file has. @returns what undoes it. */
export function fixChecksums(path: string, write: Write): (() => void)[] {
  const undo: (() => void)[] = [];
  const fd = openSync(path, 'r');
  const { size } = fstatSync(fd);
  const read = (at: number, length: number): Buffer => {
    const bytes = Buffer.alloc(Math.max(0, Math.min(length, size - at)));
    if (at >= 0 && at < size) readSync(fd, bytes, 0, bytes.length, at);
    return bytes;
  };
  try {
    // VHD: ones' complement of the sum of all other bytes.
    for (const [at, length, field, cookie] of [
      [0, 512, 64, 'conectix'],
      [size - 512, 512, 64, 'conectix'],
      [512, 1024, 36, 'cxsparse'],
    ] as const) {
      const bytes = read(at, length);
      if (bytes.length < length || bytes.toString('latin1', 0, 8) !== cookie) continue;
      bytes.fill(0, field, field + 4);
      const sum = Buffer.alloc(4);
      sum.writeUInt32BE(~bytes.reduce((total, byte) => total + byte, 0) >>> 0);
      undo.push(write(path, at + field, sum));
    }
    // VHDX: CRC-32C over headers of 4 KiB and region tables of 64 KiB.
    for (const [at, length, signature] of [
      [64 << 10, 4096, 'head'],
      [128 << 10, 4096, 'head'],
      [192 << 10, 65536, 'regi'],
      [256 << 10, 65536, 'regi'],
    ] as const) {
      const bytes = read(at, length);
      if (bytes.length < length || bytes.toString('latin1', 0, 4) !== signature) continue;
      bytes.fill(0, 4, 8);
      const sum = Buffer.alloc(4);
      sum.writeUInt32LE(crc32c(bytes));
      undo.push(write(path, at + 4, sum));
    }
    // tar: the sum of a header's bytes with blanks in place of the sum.
    if (read(257, 5).toString('latin1') === 'ustar') {
      for (let at = 0, members = 0; at + 512 <= size && members < 4096; members++) {
        const header = read(at, 512);
        if (header.toString('latin1', 257, 262) !== 'ustar') break;
        header.fill(0x20, 148, 156);
        const sum = header.reduce((total, byte) => total + byte, 0);
        undo.push(write(path, at + 148, Buffer.from(`${sum.toString(8).padStart(6, '0')}\0 `, 'latin1')));
        const length = Number.parseInt(header.toString('latin1', 124, 135), 8);
        if (!Number.isSafeInteger(length) || length < 0) break;
        at += 512 + Math.ceil(length / 512) * 512;
      }
    }
  } finally {
    closeSync(fd);
  }
  return undo;
}
