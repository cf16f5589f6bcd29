/** Structures on their way into a file: fields of a fixed layout, and writes that are whole or fail. */
import { writeSync, writevSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { IoError } from '../../errors.ts';

/** A structure of fixed size that is filled in field by field, little-endian unless the name says otherwise. */
export class Structure {
  readonly bytes: Buffer;

  constructor(length: number) {
    this.bytes = Buffer.alloc(length);
  }
  u8(offset: number, value: number): this {
    this.bytes.writeUInt8(value, offset);
    return this;
  }
  u16(offset: number, value: number): this {
    this.bytes.writeUInt16LE(value, offset);
    return this;
  }
  u32(offset: number, value: number): this {
    this.bytes.writeUInt32LE(value, offset);
    return this;
  }
  u64(offset: number, value: number): this {
    this.bytes.writeBigUInt64LE(BigInt(value), offset);
    return this;
  }
  u32be(offset: number, value: number): this {
    this.bytes.writeUInt32BE(value, offset);
    return this;
  }
  u64be(offset: number, value: number): this {
    this.bytes.writeBigUInt64BE(BigInt(value), offset);
    return this;
  }
  text(offset: number, value: string, encoding: BufferEncoding = 'latin1'): this {
    this.bytes.write(value, offset, encoding);
    return this;
  }
  put(offset: number, value: Uint8Array): this {
    this.bytes.set(value, offset);
    return this;
  }
}

/** The error for a write that failed; ENOSPC and the like are in its details and its words. */
export function writeError(name: string, cause: unknown): IoError {
  return new IoError(`${name} cannot be written`, { destination: name }, cause);
}

function tookNothing(name: string): IoError {
  return new IoError(`${name} cannot be written: nothing was taken`, { destination: name });
}

/** An open file with the name that errors call it. */
export interface OutputFile {
  readonly fd: number;
  readonly name: string;
}

/** Writes all of `bytes` at `position`, on this thread. @throws IoError. */
export function putSync({ fd, name }: OutputFile, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length; ) {
    let count: number;
    try {
      count = writeSync(fd, bytes, done, bytes.length - done, position + done);
    } catch (error) {
      throw writeError(name, error);
    }
    if (count === 0) throw tookNothing(name);
    done += count;
  }
}

/** Writes the pieces one after the other from `position`, on this thread, in one call where the system takes all. @throws IoError. */
export function putAllSync(file: OutputFile, pieces: readonly Uint8Array[], position: number): void {
  if (pieces.length === 1) {
    putSync(file, pieces[0]!, position);
    return;
  }
  let count: number;
  try {
    count = writevSync(file.fd, pieces, position);
  } catch (error) {
    throw writeError(file.name, error);
  }
  // What it did not take is written piece by piece.
  let at = position;
  for (const piece of pieces) {
    const done = Math.min(piece.length, count);
    count -= done;
    if (done < piece.length) putSync(file, piece.subarray(done), at + done);
    at += piece.length;
  }
}

/** Writes all of `bytes` at `position` without keeping the event loop. @throws IoError. */
export async function put(handle: FileHandle, name: string, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    let count: number;
    try {
      ({ bytesWritten: count } = await handle.write(bytes, done, bytes.length - done, position + done));
    } catch (error) {
      throw writeError(name, error);
    }
    if (count === 0) throw tookNothing(name);
    done += count;
  }
}

/** Sets a file's length. @throws IoError. */
export async function setLength(handle: FileHandle, name: string, length: number): Promise<void> {
  try {
    await handle.truncate(length);
  } catch (error) {
    throw writeError(name, error);
  }
}
