/**
 * What the generators of golden images share: content that compresses and does not repeat, and the writing of stored files and
 * truth.json. Run through the shell script of each format.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

export const KIB = 1024;
export const MIB = 1024 * KIB;

/** Lines that say where they are: `disk 3 at 0000004096 line 0 ...`. */
export function text(seed: number, offset: number, length: number): Buffer {
  const lines: string[] = [];
  for (let size = 0, line = 0; size < length; line++) {
    const at = `disk ${seed} at ${String(offset).padStart(12, '0')} line ${line} ${((line * 2654435761) >>> 0).toString(36)}\n`;
    lines.push(at);
    size += at.length;
  }
  return Buffer.from(lines.join('')).subarray(0, length);
}

/** A disk with text in some of its pages, about one in `every`, and zeros elsewhere. */
export function scattered(seed: number, size: number, every: number, page = 4 * KIB): Buffer {
  const disk = Buffer.alloc(size);
  for (let at = 0, number = 0; at < size; at += page, number++) {
    if ((Math.imul(number + seed * 977, 2654435761) >>> 0) % every !== 0 && at !== 0) continue;
    text(seed, at, Math.min(page, size - at)).copy(disk, at);
  }
  return disk;
}

export const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

export function run(program: string, ...args: string[]): void {
  execFileSync(program, args, { stdio: ['ignore', 'ignore', 'inherit'] });
}

export interface Entry {
  title: string;
  made: string;
  /** Name in the repository -> bytes. */
  files: Record<string, Buffer>;
  leaf: string;
  snapshot?: string;
  /** The whole disk. */
  disk: Buffer;
  findings?: string[];
}

/** Writes each entry's files, compressed, and truth.json into test/data/images/FORMAT. */
export function writeGolden(format: string, entries: readonly Entry[], out: string): void {
  const folder = join(out, format);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const stored = new Map<string, string>();
  const truth = entries.map(({ files, disk, ...entry }) => ({
    ...entry,
    files: Object.fromEntries(
      Object.entries(files).map(([name, bytes]) => {
        const hash = sha256(bytes);
        let file = stored.get(hash);
        if (file === undefined) {
          file = `${format}-${String(stored.size + 1).padStart(2, '0')}.gz`;
          stored.set(hash, file);
          const packed = gzipSync(bytes, { level: 9 });
          if (packed.length > 60 * KIB) throw new Error(`${name} takes ${packed.length} bytes`);
          writeFileSync(join(folder, file), packed);
        }
        return [name, file];
      }),
    ),
    size: disk.length,
    sha256: sha256(disk),
  }));
  writeFileSync(join(folder, 'truth.json'), `${JSON.stringify(truth, undefined, 2)}\n`);
}

/** A folder for the time of `body`. */
export function withScratch<T>(body: (folder: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'chainlift-golden-'));
  try {
    return body(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The raw disk that qemu-img reads out of an image. */
export function qemuTruth(format: string, image: string, folder: string): Buffer {
  const raw = join(folder, 'truth.raw');
  run('qemu-img', 'convert', '-f', format, '-O', 'raw', image, raw);
  return readFileSync(raw);
}
