/**
 * What every FileSystem must do, whatever its format. A format supplies how to open a volume and what is in it; the truth
 * about the content comes from whoever made the volume (a kernel mount, the generator), never from the code under test.
 *
 *   fileSystemConformance({ name: 'ext4, 1 KiB blocks', open: async () => ({ fs, volume }), expected: () => tree });
 */
import { createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CancelledError, CorruptError, NotFoundError, UsageError } from '../../main/engine/errors.ts';
import type { Entry, EntryKind, FileContent, FileSystem, Timestamp } from '../../main/engine/filesystem/file-system.ts';
import type { ByteSource } from '../../main/engine/storage/byte-source.ts';

/** One thing that must be in the volume. Only what is given is compared; `path` and `kind` always are. */
export interface ExpectedEntry {
  /** Absolute, with names as `list` shows them. The root itself is not in the list. */
  readonly path: string;
  readonly kind: EntryKind;
  readonly size?: number;
  readonly sha256?: string;
  readonly linkTarget?: string;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly links?: number;
  readonly allocated?: number;
  readonly modified?: Timestamp;
  readonly accessed?: Timestamp;
  readonly changed?: Timestamp;
  readonly created?: Timestamp;
  readonly device?: { readonly major: number; readonly minor: number };
  readonly id?: number;
  /** Flags that must be among those of `stat`. */
  readonly flags?: readonly string[];
  /** All extended attributes, values in hex. */
  readonly attributes?: Readonly<Record<string, string>>;
}

export interface OpenFileSystem {
  readonly fs: FileSystem;
  /** The volume that `fs` stands on, so that the runs of files can be compared with its bytes. */
  readonly volume: ByteSource;
}

export interface FileSystemFixture {
  readonly name: string;
  open(): Promise<OpenFileSystem>;
  /** Everything in the volume but the root, in any order; called once the tests run. */
  expected(): readonly ExpectedEntry[] | Promise<readonly ExpectedEntry[]>;
  /** Facts about the whole. */
  readonly facts?: {
    readonly type?: string;
    readonly label?: string;
    readonly uuid?: string;
    readonly condition?: FileSystem['state']['condition'];
    readonly caseInsensitive?: boolean;
  };
  /** Files above this size are compared by ranges, not as a whole. Default 64 MiB. */
  readonly wholeFileLimit?: number;
}

export interface Walked {
  readonly path: string;
  readonly entry: Entry;
}

/** Every entry below the root, depth first; directories that were met before are not entered again. */
export async function walkAll(fs: FileSystem): Promise<Walked[]> {
  const result: Walked[] = [];
  const seen = new Set<number>();
  const visit = async (directory: Entry, path: string): Promise<void> => {
    if (seen.has(directory.id)) return;
    seen.add(directory.id);
    for await (const batch of fs.list(directory)) {
      for (const entry of batch) {
        const below = `${path}/${entry.name}`;
        result.push({ path: below, entry });
        if (entry.kind === 'directory' && entry.error === undefined) await visit(entry, below);
      }
    }
  };
  await visit(await fs.root(), '');
  return result;
}

/** SHA-256 of a content, read in pieces. */
export async function contentHash(content: FileContent, piece = 1 << 20): Promise<string> {
  const hash = createHash('sha256');
  for (let at = 0; at < content.size; at += piece) {
    hash.update(await content.read(at, Math.min(piece, content.size - at)));
  }
  return hash.digest('hex');
}

/** Registers the suite. Everything in it must hold for every file system. */
export function fileSystemConformance(fixture: FileSystemFixture): void {
  describe(`${fixture.name}: as a FileSystem`, () => {
    let fs: FileSystem;
    let volume: ByteSource;
    let expected: readonly ExpectedEntry[] = [];
    let walked: Walked[] = [];
    let byPath = new Map<string, Entry>();
    const found = (path: string): Entry => {
      const entry = byPath.get(path);
      if (entry === undefined) throw new Error(`${path} is not in the listing`);
      return entry;
    };
    const files = (): ExpectedEntry[] => expected.filter((e) => e.kind === 'file' && e.size !== undefined);
    const limit = fixture.wholeFileLimit ?? 64 << 20;

    beforeAll(async () => {
      ({ fs, volume } = await fixture.open());
      expected = await fixture.expected();
      walked = await walkAll(fs);
      byPath = new Map(walked.map((w) => [w.path, w.entry]));
    });
    afterAll(async () => {
      await fs?.close();
    });

    it('states the facts about itself', () => {
      const { facts = {} } = fixture;
      if (facts.type !== undefined) expect(fs.type).toBe(facts.type);
      if (facts.label !== undefined) expect(fs.label).toBe(facts.label);
      if (facts.uuid !== undefined) expect(fs.uuid).toBe(facts.uuid);
      if (facts.condition !== undefined) expect(fs.state).toMatchObject({ condition: facts.condition });
      if (facts.caseInsensitive !== undefined) expect(fs.caseInsensitive).toBe(facts.caseInsensitive);
      expect(fs.size).toBeGreaterThan(0);
      expect(fs.size).toBeLessThanOrEqual(volume.size);
      expect(fs.blockSize).toBeGreaterThanOrEqual(512);
      if (fs.free !== undefined) expect(fs.free).toBeLessThanOrEqual(fs.size);
      expect(JSON.parse(JSON.stringify(fs.features))).toEqual(fs.features);
    });

    it('has a root that is a directory without a name', async () => {
      const root = await fs.root();
      expect(root).toMatchObject({ name: '', kind: 'directory' });
      expect((await fs.entry('/')).id).toBe(root.id);
      expect((await fs.entry('/..')).id).toBe(root.id);
      expect((await fs.stat(root)).kind).toBe('directory');
    });

    it('lists exactly what is there, each with its kind', () => {
      const kinds = (list: { path: string; kind: EntryKind }[]): string[] =>
        list.map((e) => `${e.path} ${e.kind}`).sort();
      expect(kinds(walked.map((w) => ({ path: w.path, kind: w.entry.kind })))).toEqual(
        kinds(expected.map((e) => ({ path: e.path, kind: e.kind }))),
      );
      expect(walked.filter((w) => w.entry.error !== undefined).map((w) => w.path)).toEqual([]);
      expect(walked.filter((w) => w.entry.name === '.' || w.entry.name === '..' || w.entry.name === '')).toEqual([]);
    });

    it('stats every entry as expected', async () => {
      for (const want of expected) {
        const stat = await fs.stat(found(want.path));
        const { path, sha256: _s, linkTarget: _l, attributes: _a, flags = [], ...fields } = want;
        expect({ path, ...stat }).toMatchObject({ path, ...fields });
        expect(stat.flags, path).toEqual(expect.arrayContaining([...flags]));
      }
    });

    it('finds every path again, to the same entry', async () => {
      for (const { path, entry } of walked) {
        const again = await fs.entry(path);
        expect({ path, name: again.name, id: again.id, kind: again.kind }).toEqual({
          path,
          name: entry.name,
          id: entry.id,
          kind: entry.kind,
        });
      }
    });

    it('gives the content of every file', async () => {
      for (const want of files()) {
        if (want.sha256 === undefined || want.size! > limit) continue;
        const content = await fs.open(found(want.path));
        expect({ path: want.path, size: content.size }).toEqual({ path: want.path, size: want.size });
        expect({ path: want.path, sha256: await contentHash(content) }).toEqual({
          path: want.path,
          sha256: want.sha256,
        });
        await content.close();
      }
    });

    it('gives any range of a file, asynchronously and (where it can) synchronously', async () => {
      for (const want of files().slice(0, 200)) {
        const content = await fs.open(found(want.path));
        const size = content.size;
        if (size > limit) continue;
        const whole = await content.read(0, size);
        const ranges: [number, number][] = [
          [0, 0],
          [size, 0],
          [0, Math.min(1, size)],
          [Math.max(0, size - 1), Math.min(1, size)],
          [Math.floor(size / 3), Math.min(5000, size - Math.floor(size / 3))],
          [Math.min(511, size), Math.max(0, Math.min(2, size - 511))],
          [Math.min(4095, size), Math.max(0, Math.min(4098, size - 4095))],
        ];
        // All at once: reads must not disturb each other.
        const parts = await Promise.all(ranges.map(([at, length]) => content.read(at, length)));
        ranges.forEach(([at, length], i) => {
          expect(Buffer.compare(parts[i]!, whole.subarray(at, at + length)), `${want.path} ${at}+${length}`).toBe(0);
          if (content.readIntoSync !== undefined) {
            const target = new Uint8Array(length).fill(0xa5);
            content.readIntoSync(target, at);
            expect(Buffer.compare(target, whole.subarray(at, at + length)), `${want.path} ${at}+${length} sync`).toBe(
              0,
            );
          }
        });
        await expect(content.read(size, 1)).rejects.toBeInstanceOf(CorruptError);
        await expect(content.read(-1, 1)).rejects.toBeInstanceOf(CorruptError);
        await content.close();
      }
    });

    it('says where the bytes of a file are, without a gap, and they are there', async () => {
      for (const want of files()) {
        const content = await fs.open(found(want.path));
        const ranges: [number, number][] = [
          [0, content.size],
          [Math.floor(content.size / 2), content.size - Math.floor(content.size / 2)],
        ];
        for (const [from, length] of ranges) {
          let at = from;
          for (const run of await content.runs(from, length)) {
            expect({ path: want.path, offset: run.offset }).toEqual({ path: want.path, offset: at });
            expect(run.length).toBeGreaterThan(0);
            at += run.length;
            const sample = Math.min(run.length, 1 << 16);
            const bytes = await content.read(run.offset, sample);
            if (run.kind === 'zero') {
              expect(Buffer.compare(bytes, new Uint8Array(sample)), `${want.path} zero at ${run.offset}`).toBe(0);
            } else {
              const stored = await volume.read(run.position!, sample);
              expect(Buffer.compare(bytes, stored), `${want.path} ${run.kind} at ${run.offset}`).toBe(0);
            }
          }
          expect({ path: want.path, end: at }).toEqual({ path: want.path, end: from + length });
        }
      }
    });

    it('reads symbolic links', async () => {
      for (const want of expected.filter((e) => e.linkTarget !== undefined)) {
        expect({ path: want.path, target: await fs.readLink(found(want.path)) }).toEqual({
          path: want.path,
          target: want.linkTarget,
        });
      }
    });

    it('gives extended attributes', async () => {
      for (const want of expected.filter((e) => e.attributes !== undefined)) {
        const attributes = await fs.extendedAttributes(found(want.path));
        const hex = Object.fromEntries(attributes.map((a) => [a.name, Buffer.from(a.value).toString('hex')]));
        expect({ path: want.path, ...hex }).toEqual({ path: want.path, ...want.attributes });
      }
    });

    it('says of what is not there that it is not there', async () => {
      await expect(fs.entry('/no such entry here')).rejects.toBeInstanceOf(NotFoundError);
      await expect(fs.entry('/no such folder/file')).rejects.toBeInstanceOf(NotFoundError);
      const file = expected.find((e) => e.kind === 'file');
      if (file !== undefined) await expect(fs.entry(`${file.path}/below`)).rejects.toBeInstanceOf(NotFoundError);
      const folder = expected.find((e) => e.kind === 'directory');
      if (folder !== undefined) {
        await expect(fs.entry(`${folder.path}/no such entry here`)).rejects.toBeInstanceOf(NotFoundError);
      }
    });

    it('finds names of another case exactly where it says so', async () => {
      const other = (name: string): string => (name === name.toUpperCase() ? name.toLowerCase() : name.toUpperCase());
      const plain = walked.find((w) => /^\/[A-Za-z]+$/.test(w.path));
      if (plain === undefined) return;
      const path = other(plain.path);
      if (walked.some((w) => w.path === path)) return;
      if (fs.caseInsensitive) expect((await fs.entry(path)).id).toBe(plain.entry.id);
      else await expect(fs.entry(path)).rejects.toBeInstanceOf(NotFoundError);
    });

    it('refuses what makes no sense', async () => {
      const root = await fs.root();
      await expect(fs.open(root)).rejects.toBeInstanceOf(UsageError);
      await expect(fs.readLink(root)).rejects.toBeInstanceOf(UsageError);
      const file = expected.find((e) => e.kind === 'file');
      if (file === undefined) return;
      const listing = async (): Promise<void> => {
        for await (const _ of fs.list(found(file.path)));
      };
      await expect(listing()).rejects.toBeInstanceOf(UsageError);
      await expect(fs.readLink(found(file.path))).rejects.toBeInstanceOf(UsageError);
    });

    it('stops a listing when it is cancelled', async () => {
      const abort = new AbortController();
      abort.abort();
      const root = await fs.root();
      const listing = async (): Promise<void> => {
        for await (const _ of fs.list(root, abort.signal));
      };
      await expect(listing()).rejects.toBeInstanceOf(CancelledError);
    });
  });
}
