/**
 * The handshake phase of an NBD server: fixed newstyle option haggling, without a socket. Bytes go in, replies come out, and at the
 * end an export has been chosen or the connection is to be closed. Nothing a client sends makes it keep more than one
 * option's bytes.
 *
 * Specification: NetworkBlockDevice/nbd, doc/proto.md, "Handshake phase", "Option types", "Metadata querying".
 */
import type { ExportDirectory, ExportEntry } from './exports.ts';
import {
  BASE_ALLOCATION,
  BASE_ALLOCATION_ID,
  FLAG_C_FIXED_NEWSTYLE,
  FLAG_C_NO_ZEROES,
  FLAG_FIXED_NEWSTYLE,
  FLAG_NO_ZEROES,
  IHAVEOPT,
  INFO,
  MAX_PAYLOAD,
  MAX_STRING,
  MIN_BLOCK,
  NBDMAGIC,
  OPT,
  OPTION_REPLY_MAGIC,
  PREFERRED_BLOCK,
  REP,
  TRANSMISSION,
} from './protocol.ts';

/** Longest option data that is read. The longest legitimate one is SET_META_CONTEXT: a name and a few queries of 4 KiB each. */
export const MAX_OPTION_BYTES = 64 << 10;
/** Options one connection may send. Clients need fewer than ten; nbdinfo --list as many again as there are exports. */
export const MAX_OPTIONS = 4096;
/** Bytes of replies one handshake may ask for: a client that repeats LIST and never reads must not fill memory. */
export const MAX_REPLY_BYTES = 32 << 20;

const CLIENT_FLAGS_BYTES = 4;
const OPTION_HEAD_BYTES = 16;

/** What a connection does next. */
export type HandshakeOutcome =
  /** Waiting for more bytes. */
  | { readonly state: 'more' }
  /** Transmission starts with `rest`, the bytes that came after the handshake's. */
  | {
      readonly state: 'transmission';
      readonly exportIndex: number;
      readonly structured: boolean;
      readonly blockStatus: boolean;
      readonly rest: Uint8Array;
    }
  /** Send what there is to send, then close. `reason` is undefined where the client asked for it (ABORT). */
  | { readonly state: 'close'; readonly reason: string | undefined };

const MORE: HandshakeOutcome = { state: 'more' };

/** The transmission flags of every export here. DF may only be offered with structured replies. */
export function transmissionFlags(structured: boolean): number {
  const { HAS_FLAGS, READ_ONLY, SEND_FLUSH, CAN_MULTI_CONN, SEND_DF } = TRANSMISSION;
  return HAS_FLAGS | READ_ONLY | SEND_FLUSH | CAN_MULTI_CONN | (structured ? SEND_DF : 0);
}

export class Handshake {
  readonly #exports: ExportDirectory;
  readonly #send: (bytes: Uint8Array) => void;
  #buffered: Buffer = Buffer.alloc(0);
  #flags: number | undefined;
  #options = 0;
  #replied = 0;
  #structured = false;
  /** The export whose `base:allocation` the client selected. */
  #context: number | undefined;

  /** @param send takes the bytes for the client, in order. */
  constructor(exports: ExportDirectory, send: (bytes: Uint8Array) => void) {
    this.#exports = exports;
    this.#send = send;
  }

  /** Sends the server's first words. */
  greet(): void {
    const bytes = Buffer.alloc(18);
    bytes.writeBigUInt64BE(NBDMAGIC, 0);
    bytes.writeBigUInt64BE(IHAVEOPT, 8);
    bytes.writeUInt16BE(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES, 16);
    this.#send(bytes);
  }

  /** Takes bytes from the client. After an outcome other than `more` it must not be called again. */
  receive(chunk: Uint8Array): HandshakeOutcome {
    const input = this.#buffered.length === 0 ? asBuffer(chunk) : Buffer.concat([this.#buffered, chunk]);
    let at = 0;
    if (this.#flags === undefined) {
      if (input.length < CLIENT_FLAGS_BYTES) return this.#keep(input, 0);
      const flags = input.readUInt32BE(0);
      if ((flags & ~(FLAG_C_FIXED_NEWSTYLE | FLAG_C_NO_ZEROES)) !== 0) {
        return close(`unknown client flags 0x${flags.toString(16)}`);
      }
      this.#flags = flags;
      at = CLIENT_FLAGS_BYTES;
    }
    while (input.length - at >= OPTION_HEAD_BYTES) {
      if (input.readBigUInt64BE(at) !== IHAVEOPT) return close('an option without its magic');
      const option = input.readUInt32BE(at + 8);
      const length = input.readUInt32BE(at + 12);
      if (length > MAX_OPTION_BYTES) {
        this.#reply(option, REP.ERR_TOO_BIG, text(`an option may have ${MAX_OPTION_BYTES} bytes`));
        return close(`option ${option} of ${length} bytes`);
      }
      const end = at + OPTION_HEAD_BYTES + length;
      if (end > input.length) break;
      if (++this.#options > MAX_OPTIONS) return close(`more than ${MAX_OPTIONS} options`);
      const outcome = this.#option(option, input.subarray(at + OPTION_HEAD_BYTES, end), input.subarray(end));
      if (outcome.state !== 'more') return outcome;
      if (this.#replied > MAX_REPLY_BYTES) return close(`more than ${MAX_REPLY_BYTES} bytes of replies`);
      at = end;
    }
    return this.#keep(input, at);
  }

  /** Keeps the unread rest: less than one option, in memory of its own so that the socket's chunk can go. */
  #keep(input: Buffer, at: number): HandshakeOutcome {
    this.#buffered = Buffer.from(input.subarray(at));
    return MORE;
  }

  #option(option: number, data: Buffer, rest: Uint8Array): HandshakeOutcome {
    if (option === OPT.EXPORT_NAME) return this.#exportName(data, rest);
    if ((this.#flags! & FLAG_C_FIXED_NEWSTYLE) === 0)
      return close(`option ${option} from a client without fixed newstyle`);
    switch (option) {
      case OPT.ABORT:
        this.#reply(option, REP.ACK);
        return close(undefined);
      case OPT.LIST:
        return this.#list(data);
      case OPT.INFO:
      case OPT.GO:
        return this.#infoOrGo(option, data, rest);
      case OPT.STRUCTURED_REPLY:
        if (data.length > 0) return this.#invalid(option, 'STRUCTURED_REPLY has no data');
        this.#structured = true;
        this.#reply(option, REP.ACK);
        return MORE;
      case OPT.LIST_META_CONTEXT:
      case OPT.SET_META_CONTEXT:
        return this.#metaContext(option, data);
      default:
        // STARTTLS among them: this server has no TLS, and serves local sockets only.
        this.#reply(option, REP.ERR_UNSUP, text(`option ${option} is not supported`));
        return MORE;
    }
  }

  #exportName(data: Buffer, rest: Uint8Array): HandshakeOutcome {
    const name = data.toString('utf8');
    const index = data.length > MAX_STRING ? undefined : this.#exports.find(name);
    // EXPORT_NAME has no error reply: closing is the only answer.
    if (index === undefined) return close(`no export named ${JSON.stringify(name.slice(0, 100))}`);
    const zeroes = (this.#flags! & FLAG_C_NO_ZEROES) === 0 ? 124 : 0;
    const bytes = Buffer.alloc(10 + zeroes);
    bytes.writeBigUInt64BE(BigInt(this.#exports.entries[index]!.size), 0);
    bytes.writeUInt16BE(transmissionFlags(this.#structured), 8);
    this.#send(bytes);
    return this.#start(index, rest);
  }

  #start(index: number, rest: Uint8Array): HandshakeOutcome {
    // Contexts hold for the export they were selected for, and only with structured replies.
    const blockStatus = this.#structured && this.#context === index;
    return { state: 'transmission', exportIndex: index, structured: this.#structured, blockStatus, rest };
  }

  #list(data: Buffer): HandshakeOutcome {
    if (data.length > 0) return this.#invalid(OPT.LIST, 'LIST has no data');
    for (const { name, description } of this.#exports.entries) {
      const bytes = Buffer.concat([Buffer.alloc(4), text(name), text(description)]);
      bytes.writeUInt32BE(Buffer.byteLength(name), 0);
      this.#reply(OPT.LIST, REP.SERVER, bytes);
    }
    this.#reply(OPT.LIST, REP.ACK);
    return MORE;
  }

  #infoOrGo(option: number, data: Buffer, rest: Uint8Array): HandshakeOutcome {
    const name = readString(data, 0);
    if (name === undefined || data.length < name.end + 2)
      return this.#invalid(option, 'the name does not fit its option');
    const count = data.readUInt16BE(name.end);
    if (data.length !== name.end + 2 + 2 * count) return this.#invalid(option, 'the requests do not fit their option');
    const index = this.#exports.find(name.value);
    if (index === undefined) return this.#unknown(option, name.value);
    const wanted = new Set<number>();
    for (let i = 0; i < count; i++) wanted.add(data.readUInt16BE(name.end + 2 + 2 * i));
    this.#sendInfo(option, this.#exports.entries[index]!, wanted);
    this.#reply(option, REP.ACK);
    return option === OPT.GO ? this.#start(index, rest) : MORE;
  }

  #sendInfo(option: number, entry: ExportEntry, wanted: ReadonlySet<number>): void {
    const size = Buffer.alloc(12);
    size.writeUInt16BE(INFO.EXPORT, 0);
    size.writeBigUInt64BE(BigInt(entry.size), 2);
    size.writeUInt16BE(transmissionFlags(this.#structured), 10);
    this.#reply(option, REP.INFO, size);
    if (wanted.has(INFO.NAME)) this.#reply(option, REP.INFO, infoText(INFO.NAME, entry.name));
    if (wanted.has(INFO.DESCRIPTION)) this.#reply(option, REP.INFO, infoText(INFO.DESCRIPTION, entry.description));
    if (wanted.has(INFO.BLOCK_SIZE)) {
      const sizes = Buffer.alloc(14);
      sizes.writeUInt16BE(INFO.BLOCK_SIZE, 0);
      sizes.writeUInt32BE(MIN_BLOCK, 2);
      sizes.writeUInt32BE(PREFERRED_BLOCK, 6);
      sizes.writeUInt32BE(MAX_PAYLOAD, 10);
      this.#reply(option, REP.INFO, sizes);
    }
  }

  #metaContext(option: number, data: Buffer): HandshakeOutcome {
    if (option === OPT.SET_META_CONTEXT) this.#context = undefined;
    if (!this.#structured) return this.#invalid(option, 'structured replies must be negotiated first');
    const name = readString(data, 0);
    if (name === undefined || data.length < name.end + 4)
      return this.#invalid(option, 'the name does not fit its option');
    const count = data.readUInt32BE(name.end);
    const queries: string[] = [];
    let at = name.end + 4;
    // Each query takes four bytes at least, so `count` can't make this longer than the option's data.
    for (let i = 0; i < count; i++) {
      const query = readString(data, at);
      if (query === undefined) return this.#invalid(option, 'the queries do not fit their option');
      if (!query.value.includes(':')) return this.#invalid(option, 'a query needs a namespace and a colon');
      queries.push(query.value);
      at = query.end;
    }
    if (at !== data.length) return this.#invalid(option, 'bytes behind the last query');
    const index = this.#exports.find(name.value);
    if (index === undefined) return this.#unknown(option, name.value);

    // Listing without a query lists everything, and `base:` everything of its namespace; selecting takes exact names only.
    const listing = option === OPT.LIST_META_CONTEXT;
    const matches =
      queries.includes(BASE_ALLOCATION) || (listing && (queries.length === 0 || queries.includes('base:')));
    if (matches) {
      const reply = Buffer.concat([Buffer.alloc(4), text(BASE_ALLOCATION)]);
      reply.writeUInt32BE(listing ? 0 : BASE_ALLOCATION_ID, 0);
      this.#reply(option, REP.META_CONTEXT, reply);
      if (!listing) this.#context = index;
    }
    this.#reply(option, REP.ACK);
    return MORE;
  }

  #invalid(option: number, why: string): HandshakeOutcome {
    this.#reply(option, REP.ERR_INVALID, text(why));
    return MORE;
  }

  #unknown(option: number, name: string): HandshakeOutcome {
    this.#reply(option, REP.ERR_UNKNOWN, text(`no export named ${JSON.stringify(name.slice(0, 100))}`));
    return MORE;
  }

  #reply(option: number, type: number, data: Uint8Array = Buffer.alloc(0)): void {
    const bytes = Buffer.alloc(20 + data.length);
    bytes.writeBigUInt64BE(OPTION_REPLY_MAGIC, 0);
    bytes.writeUInt32BE(option, 8);
    bytes.writeUInt32BE(type, 12);
    bytes.writeUInt32BE(data.length, 16);
    bytes.set(data, 20);
    this.#replied += bytes.length;
    this.#send(bytes);
  }
}

function close(reason: string | undefined): HandshakeOutcome {
  return { state: 'close', reason };
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}

function text(value: string): Buffer {
  return Buffer.from(value, 'utf8');
}

function infoText(type: number, value: string): Buffer {
  const bytes = Buffer.concat([Buffer.alloc(2), text(value)]);
  bytes.writeUInt16BE(type, 0);
  return bytes;
}

/** A 32-bit length and that many bytes of UTF-8; undefined when they do not fit or are longer than the protocol allows. */
function readString(data: Buffer, at: number): { value: string; end: number } | undefined {
  if (at + 4 > data.length) return undefined;
  const length = data.readUInt32BE(at);
  const end = at + 4 + length;
  if (length > MAX_STRING || end > data.length) return undefined;
  return { value: data.toString('utf8', at + 4, end), end };
}
