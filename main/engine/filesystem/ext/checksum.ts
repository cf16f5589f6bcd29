/**
 * Checksums of ext metadata: CRC-32C chained from a seed (metadata_csum), and CRC-16/ARC begun at 0xffff for group descriptors (uninit_bg).
 */
import { crc32cUpdate } from '../../crc32c.ts';

const word = new Uint8Array(8);
const wordView = new DataView(word.buffer);

/** Feeds a little-endian 32-bit number. */
export function crcU32(register: number, value: number): number {
  wordView.setUint32(0, value, true);
  return crc32cUpdate(register, word, 0, 4);
}

/** Feeds a little-endian 64-bit number below 2^53. */
export function crcU64(register: number, value: number): number {
  wordView.setUint32(0, value % 0x1_0000_0000, true);
  wordView.setUint32(4, Math.floor(value / 0x1_0000_0000), true);
  return crc32cUpdate(register, word, 0, 8);
}

const zeros = new Uint8Array(4);

/** Feeds bytes in which `holeLength` bytes from `hole` (the place of the checksum itself) count as zeros. */
export function crcWithHole(register: number, bytes: Uint8Array, hole: number, holeLength: number): number {
  let c = crc32cUpdate(register, bytes, 0, hole);
  c = crc32cUpdate(c, zeros, 0, holeLength);
  return crc32cUpdate(c, bytes, hole + holeLength);
}

/** CRC-16 with the reflected polynomial 0xA001. */
export function crc16(register: number, bytes: Uint8Array, start = 0, end = bytes.length): number {
  let c = register;
  for (let i = start; i < end; i++) {
    c ^= bytes[i]!;
    for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0xa001 : c >>> 1;
  }
  return c;
}
