/**
 * Numbers and layouts of the NBD protocol that both phases share, under the names the specification gives them.
 *
 * Specification: NetworkBlockDevice/nbd, doc/proto.md (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md).
 * Everything on the wire is big-endian. 64-bit magics are kept as two halves: the data path never touches a BigInt.
 */

/** `NBDMAGIC`, then `IHAVEOPT`: the server's greeting and the head of every option. */
export const NBDMAGIC = 0x4e42444d41474943n;
export const IHAVEOPT = 0x49484156454f5054n;
export const OPTION_REPLY_MAGIC = 0x0003e889045565a9n;

/** Handshake flags (16 bits, from the server). */
export const FLAG_FIXED_NEWSTYLE = 1 << 0;
export const FLAG_NO_ZEROES = 1 << 1;
/** Client flags (32 bits). */
export const FLAG_C_FIXED_NEWSTYLE = 1 << 0;
export const FLAG_C_NO_ZEROES = 1 << 1;

export const OPT = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  PEEK_EXPORT: 4,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
  EXTENDED_HEADERS: 11,
} as const;

export const REP = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: 0x8000_0001,
  ERR_POLICY: 0x8000_0002,
  ERR_INVALID: 0x8000_0003,
  ERR_PLATFORM: 0x8000_0004,
  ERR_TLS_REQD: 0x8000_0005,
  ERR_UNKNOWN: 0x8000_0006,
  ERR_SHUTDOWN: 0x8000_0007,
  ERR_BLOCK_SIZE_REQD: 0x8000_0008,
  ERR_TOO_BIG: 0x8000_0009,
} as const;

export const INFO = { EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3 } as const;

/** Transmission flags (16 bits). */
export const TRANSMISSION = {
  HAS_FLAGS: 1 << 0,
  READ_ONLY: 1 << 1,
  SEND_FLUSH: 1 << 2,
  SEND_DF: 1 << 7,
  CAN_MULTI_CONN: 1 << 8,
} as const;

export const REQUEST_MAGIC = 0x25609513;
export const SIMPLE_REPLY_MAGIC = 0x67446698;
export const STRUCTURED_REPLY_MAGIC = 0x668e33ef;
/** Bytes of a request: magic, flags, type, cookie, offset, length. */
export const REQUEST_BYTES = 28;
/** Bytes of a simple reply: magic, error, cookie. */
export const SIMPLE_REPLY_BYTES = 16;
/** Bytes of a structured reply chunk's head: magic, flags, type, cookie, length. */
export const CHUNK_BYTES = 20;

export const CMD = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
} as const;

export const CMD_FLAG_DF = 1 << 2;
export const CMD_FLAG_REQ_ONE = 1 << 3;

export const REPLY_FLAG_DONE = 1 << 0;
export const REPLY_TYPE = { NONE: 0, OFFSET_DATA: 1, OFFSET_HOLE: 2, BLOCK_STATUS: 5, ERROR: 0x8001 } as const;

/** Error values of the protocol, the same on every system. */
export const ERROR = { EPERM: 1, EIO: 5, EINVAL: 22, ESHUTDOWN: 108 } as const;

export const STATE_HOLE = 1 << 0;
export const STATE_ZERO = 1 << 1;

/** The one metadata context there is, and the id this server gives it. */
export const BASE_ALLOCATION = 'base:allocation';
export const BASE_ALLOCATION_ID = 1;

/** Block size constraints this server announces: any byte may be asked for, pages are preferred, 32 MiB is the most at once. */
export const MIN_BLOCK = 1;
export const PREFERRED_BLOCK = 4096;
export const MAX_PAYLOAD = 32 << 20;

/** Longest string of the protocol (names, descriptions, queries, messages), in bytes of UTF-8. */
export const MAX_STRING = 4096;

const UNIT = 0x1_0000_0000;

/** The high and low halves of a number up to 2^53-1, for two 32-bit stores. */
export function high32(value: number): number {
  return Math.floor(value / UNIT);
}
export function low32(value: number): number {
  return value >>> 0;
}
/** Two unsigned halves as one number; more than 2^53-1 loses bits, so compare the high half first where that matters. */
export function join64(high: number, low: number): number {
  return high * UNIT + low;
}
