/** Folders for tests, and the proof that tests leave images as they were. */
import { createHash } from 'node:crypto';
import { closeSync, mkdirSync, mkdtempSync, openSync, readdirSync, readSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect } from 'vitest';

/** A folder that exists for the tests of the current `describe` (or file) and is removed after them. Read `.path` inside hooks and tests only. */
export function scratchFolder(label = 'test'): { readonly path: string } {
  let path = '';
  beforeAll(() => {
    path = mkdtempSync(join(tmpdir(), `chainlift-${label}-`));
  });
  afterAll(() => {
    rmSync(path, { recursive: true, force: true });
  });
  return {
    get path() {
      if (path === '') throw new Error('scratchFolder().path is there only while tests run');
      return path;
    },
  };
}

/** SHA-256 of a file's content, lower-case hex. */
export function sha256File(path: string): string {
  const hash = createHash('sha256');
  const fd = openSync(path, 'r');
  const buffer = Buffer.allocUnsafe(1 << 20);
  try {
    for (let n = readSync(fd, buffer); n > 0; n = readSync(fd, buffer)) hash.update(buffer.subarray(0, n));
  } finally {
    closeSync(fd);
  }
  return hash.digest('hex');
}

/** SHA-256 and modification time of every regular file below a folder, by path. */
export function fingerprint(folder: string): Record<string, string> {
  const result: Record<string, string> = {};
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    result[path] = `${sha256File(path)} ${statSync(path).mtimeMs}`;
  }
  return result;
}

/** Runs `body` and asserts that no file below `folder` was changed, added or removed by it. */
export async function leavesUntouched<T>(folder: string, body: () => Promise<T> | T): Promise<T> {
  const before = fingerprint(folder);
  try {
    return await body();
  } finally {
    expect(fingerprint(folder)).toEqual(before);
  }
}

/** Gives each case of a test file a new folder below `scratch`. Call the result inside hooks and tests only. */
export function caseFolders(scratch: { readonly path: string }): () => string {
  let number = 0;
  return () => {
    const folder = join(scratch.path, `case-${number++}`);
    mkdirSync(folder);
    return folder;
  };
}

/** The same where another program has its say: a folder for images, one beside it, and there a place for a raw disk. */
export function imageFolders(scratch: { readonly path: string }): () => { folder: string; aside: string; raw: string } {
  const fresh = caseFolders(scratch);
  return () => {
    const aside = fresh();
    const folder = join(aside, 'vm');
    mkdirSync(folder);
    return { folder, aside, raw: join(aside, 'disk.raw') };
  };
}
