/** One regular file out of a guest: sparse where it was sparse, hashed while it is written, read back before it gets its name. */
import { createHash } from 'node:crypto';
import { type FileHandle, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { CorruptError, IoError, throwIfCancelled } from '../errors.ts';
import type { FileContent, FileRun } from '../filesystem/file-system.ts';
import { Breather } from '../task/breather.ts';
import { createPartial, type OverwritePolicy, publish } from './output-folder.ts';

const CHUNK = 1 << 20;
/** Bytes of a file whose runs are asked for at a time. */
const WINDOW = 64 * CHUNK;

export interface FileCopyOptions {
  readonly verify: boolean;
  readonly overwrite: OverwritePolicy;
  readonly signal: AbortSignal;
  /** Called with the number of bytes of content that were written (holes count as written). */
  readonly wrote: (bytes: number) => void;
  /** Sets owner, mode and times on the open file before it gets its name. */
  readonly finish: (handle: FileHandle) => Promise<void>;
}

/**
 * Writes `content` to `final`. Until it is whole, verified and dressed it has a temporary name beside its place; on any failure
 * that is removed. @returns the SHA-256 of the content, lower-case hex. @throws IoError, CorruptError, CancelledError.
 */
export async function copyFile(content: FileContent, final: string, options: FileCopyOptions): Promise<string> {
  const partial = await createPartial(dirname(final));
  let published = false;
  try {
    let sha256: string;
    try {
      sha256 = await writeContent(content, partial.handle, final, options);
      if (options.verify) await readBack(partial.handle, content.size, sha256, final, options.signal);
      await options.finish(partial.handle);
    } finally {
      // Some file systems (NFS, quotas) only say here that there was no room.
      await writing(final, partial.handle.close());
    }
    throwIfCancelled(options.signal, 'The copy');
    await publish(partial.path, final, options.overwrite);
    published = true;
    return sha256;
  } finally {
    if (!published) await discard(partial.path);
  }
}

async function discard(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    // Gone with its folder, or moved to its final name: there is nothing left to remove.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw new IoError(`${path} cannot be removed`, { destination: path }, error);
  }
}

async function writeContent(
  content: FileContent,
  handle: FileHandle,
  final: string,
  options: FileCopyOptions,
): Promise<string> {
  const hash = createHash('sha256');
  const zeros = new Uint8Array(Math.min(CHUNK, content.size));
  const breather = new Breather();
  // The length first: a hole at the end keeps it, and a file too large for the destination is refused now, not in an hour.
  if (content.size > 0) await writing(final, handle.truncate(content.size));
  for (let at = 0; at < content.size; ) {
    const end = Math.min(content.size, at + WINDOW);
    for (const run of await content.runs(at, end - at)) {
      if (run.offset !== at || run.length > end - at) throw gap(content, at, run);
      for (const stop = at + run.length; at < stop; ) {
        throwIfCancelled(options.signal, 'The copy');
        if (breather.due) await breather.breathe();
        const length = Math.min(CHUNK, stop - at);
        if (run.kind === 'zero') {
          hash.update(zeros.subarray(0, length));
        } else {
          const bytes = await content.read(at, length);
          hash.update(bytes);
          await writeAll(handle, bytes, at, final);
        }
        at += length;
        options.wrote(length);
      }
    }
    if (at !== end) throw gap(content, at, undefined);
  }
  return hash.digest('hex');
}

/** A map with a hole in it would leave zeros in place of data. */
function gap(content: FileContent, at: number, run: FileRun | undefined): CorruptError {
  return new CorruptError('File map', {
    source: content.name,
    position: at,
    expected: `a run from byte ${at} of the file`,
    found: run === undefined ? 'none' : `${run.length} bytes from ${run.offset}`,
  });
}

async function writeAll(handle: FileHandle, bytes: Uint8Array, position: number, final: string): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await writing(final, handle.write(bytes, done, bytes.length - done, position + done));
    if (bytesWritten === 0) throw new IoError(`${final} cannot be written: nothing was taken`, { destination: final });
    done += bytesWritten;
  }
}

async function writing<T>(final: string, operation: Promise<T>): Promise<T> {
  try {
    return await operation;
  } catch (error) {
    throw new IoError(`${final} cannot be written`, { destination: final }, error);
  }
}

async function readBack(
  handle: FileHandle,
  size: number,
  sha256: string,
  final: string,
  signal: AbortSignal,
): Promise<void> {
  const hash = createHash('sha256');
  const buffer = new Uint8Array(Math.max(1, Math.min(CHUNK, size)));
  let at = 0;
  while (at < size) {
    throwIfCancelled(signal, 'The copy');
    const { bytesRead } = await writing(final, handle.read(buffer, 0, Math.min(buffer.length, size - at), at));
    if (bytesRead === 0) break;
    hash.update(buffer.subarray(0, bytesRead));
    at += bytesRead;
  }
  const found = hash.digest('hex');
  if (at !== size || found !== sha256) {
    throw new CorruptError('Written copy', {
      source: final,
      expected: `${size} bytes, SHA-256 ${sha256}`,
      found: `${at} bytes, SHA-256 ${found}`,
    });
  }
}
