/**
 * A Parallels disk as one layer of a chain: a single expandable image (`.hdd`, `.hds`), or a snapshot of a `.hdd` folder, which
 * DiskDescriptor.xml puts together from image files: one, or several side by side.
 *
 * An image that a descriptor beside it names is opened as the descriptor says, never as a disk of its own: only the descriptor
 * knows that it has a parent, and without it the parent's data would read as zeros.
 */
import { CorruptError, throwIfCancelled } from '../../errors.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import { checkRange } from '../../storage/byte-source.ts';
import { type Io, runAsync } from '../../storage/io.ts';
import type { Finding, ImageLayer, InternalSnapshot, LayerFile, LayerRun, ParentClaim } from '../image.ts';
import { RunList } from '../run-list.ts';
import { SideBySide } from '../side-by-side.ts';
import { checkExpanding } from './parallels-check.ts';
import { ExpandingStorage, type Storage } from './storage.ts';

/** What a layer is made from. */
export interface ParallelsParts {
  readonly name: string;
  readonly path: string;
  /** In the order of the disk. The layer closes their files. */
  readonly storages: readonly Storage[];
  readonly files: readonly LayerFile[];
  readonly id: string | undefined;
  readonly parent: ParentClaim | undefined;
  readonly snapshots?: readonly InternalSnapshot[];
  readonly properties: Readonly<Record<string, string | number | boolean>>;
  readonly findings: readonly Finding[];
}

export class ParallelsLayer implements ImageLayer {
  readonly format = 'parallels';
  readonly variant: string;
  readonly name: string;
  readonly path: string;
  readonly virtualSize: number;
  readonly parent: ParentClaim | undefined;
  readonly id: string | undefined;
  readonly snapshots?: readonly InternalSnapshot[];
  readonly files: readonly LayerFile[];
  readonly granularity: number;
  readonly properties: Readonly<Record<string, string | number | boolean>>;
  readonly #storages: SideBySide<Storage>;
  readonly #findings: readonly Finding[];

  constructor(parts: ParallelsParts) {
    this.name = parts.name;
    this.path = parts.path;
    this.parent = parts.parent;
    this.id = parts.id;
    if (parts.snapshots !== undefined) this.snapshots = parts.snapshots;
    this.files = parts.files;
    this.#storages = new SideBySide(parts.storages);
    this.#findings = parts.findings;
    this.virtualSize = this.#storages.size;
    this.granularity = Math.min(...parts.storages.map(({ granularity }) => granularity));
    this.variant = parts.storages.length > 1 ? 'split' : parts.storages[0]!.type;
    this.properties = parts.properties;
  }

  *runs(offset: number, length: number): Io<LayerRun[]> {
    checkRange({ name: this.name, size: this.virtualSize }, offset, length);
    const out = new RunList();
    for (const { part, base, start, end } of this.#storages.shares(offset, length)) {
      yield* part.runs(start - base, end - start, base, out);
    }
    return out.finish();
  }

  async allocatedBytes(signal?: AbortSignal): Promise<number> {
    let total = 0;
    for (const storage of this.#storages.parts) {
      for (let at = 0; at < storage.size; at += storage.step) {
        throwIfCancelled(signal);
        const out = new RunList();
        await runAsync(storage.runs(at, Math.min(storage.step, storage.size - at), 0, out), signal);
        for (const run of out.finish()) if (run.kind === 'data') total += run.length;
      }
    }
    return total;
  }

  async *check(signal?: AbortSignal): AsyncGenerator<Finding> {
    throwIfCancelled(signal, 'The check');
    yield* this.#findings;
    for (const storage of this.#storages.parts) {
      if (storage instanceof ExpandingStorage) yield* checkExpanding(storage, signal);
      else if (storage.file.size > storage.size) yield longer(storage);
    }
  }

  async close(): Promise<void> {
    await closeAll(this.#storages.parts.map(({ file }) => file));
  }
}

function longer({ file, size }: Storage): Finding {
  return {
    severity: 'note',
    code: 'plain-image-larger',
    message: `${file.name} is larger than its descriptor says; the rest is not part of the disk`,
    source: file.name,
    structure: 'Parallels plain image',
    expected: size,
    found: file.size,
  };
}

export async function closeAll(files: readonly OpenFile[]): Promise<void> {
  await Promise.all(files.map((file) => file.close()));
}

/** The error for an expandable image that is smaller than the part of the disk that it should cover. */
export function tooSmall(file: OpenFile, expected: number, found: number): CorruptError {
  return new CorruptError('Parallels header nb_sectors', {
    source: file.name,
    position: 36,
    expected: `at least ${expected / 512}, as its descriptor says`,
    found: found / 512,
  });
}
