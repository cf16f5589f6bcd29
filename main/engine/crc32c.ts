/**
 * CRC-32C (Castagnoli, reflected polynomial 0x82F63B78; RFC 3720 appendix B.4), eight bytes at a step with eight tables
 * ("slicing-by-8"). The tables are built when first needed.
 */

let tables: Int32Array | undefined;

function buildTables(): Int32Array {
  const t = new Int32Array(8 * 256);
  for (let n = 0; n < 256; n++) {
    let c = n;
    for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0x82f63b78 : c >>> 1;
    t[n] = c;
  }
  for (let k = 1; k < 8; k++) {
    for (let n = 0; n < 256; n++) {
      const before = t[(k - 1) * 256 + n]!;
      t[k * 256 + n] = (before >>> 8) ^ t[before & 0xff]!;
    }
  }
  return t;
}

/**
 * Feeds `bytes[start, end)` into a running CRC-32C register, without the inversions before and after: the form in which
 * ext4 and Btrfs chain and store it. Begin with 0xffffffff (or a seed). Unsigned.
 */
export function crc32cUpdate(register: number, bytes: Uint8Array, start = 0, end = bytes.length): number {
  tables ??= buildTables();
  const t = tables;
  let c = register | 0;
  let i = start;
  for (const stop = end - 7; i < stop; i += 8) {
    const low = c ^ (bytes[i]! | (bytes[i + 1]! << 8) | (bytes[i + 2]! << 16) | (bytes[i + 3]! << 24));
    c =
      t[1792 + (low & 0xff)]! ^
      t[1536 + ((low >>> 8) & 0xff)]! ^
      t[1280 + ((low >>> 16) & 0xff)]! ^
      t[1024 + (low >>> 24)]! ^
      t[768 + bytes[i + 4]!]! ^
      t[512 + bytes[i + 5]!]! ^
      t[256 + bytes[i + 6]!]! ^
      t[bytes[i + 7]!]!;
  }
  for (; i < end; i++) c = (c >>> 8) ^ t[(c ^ bytes[i]!) & 0xff]!;
  return c >>> 0;
}

/** The CRC-32C of `bytes` as protocols define it (`123456789` gives e3069283). Unsigned. */
export function crc32c(bytes: Uint8Array): number {
  return (crc32cUpdate(0xffffffff, bytes) ^ 0xffffffff) >>> 0;
}
