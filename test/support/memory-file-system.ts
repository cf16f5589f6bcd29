/**
 * A guest's file system in memory, as hostile as a test wants it: any name, one name twice, loops, damage at any place, content
 * that fails half-way or calls the test while it is read. What it holds is what the test put in.
 */
import type { ChainliftError } from '../../main/engine/errors.ts';
import { CorruptError, NotFoundError, UsageError } from '../../main/engine/errors.ts';
import type {
  Entry,
  EntryKind,
  ExtendedAttribute,
  FileContent,
  FileRun,
  FileSystem,
  Stat,
} from '../../main/engine/filesystem/file-system.ts';
import { walkPath } from '../../main/engine/filesystem/path-walk.ts';
import { checkRange } from '../../main/engine/storage/byte-source.ts';

export type Attributes = Partial<Omit<Stat, 'kind' | 'id' | 'size' | 'links'>>;

/** Damage that makes an entry or an operation fail. */
export interface Faults {
  /** The entry itself is damaged: it stands in its listing with this error. */
  readonly entry?: ChainliftError;
  readonly stat?: ChainliftError;
  readonly open?: ChainliftError;
  /** Listing ends with this error after so many entries. */
  readonly list?: { readonly after: number; readonly error: ChainliftError };
}

interface Common {
  readonly attributes: Attributes;
  readonly faults: Faults;
}
export interface FileNode extends Common {
  readonly kind: 'file';
  readonly content: Content;
}
export interface DirectoryNode extends Common {
  readonly kind: 'directory';
  /** In the order they are stored; names may come twice. May be added to: that is how loops are made. */
  readonly children: [name: string, node: Node][];
}
export interface LinkNode extends Common {
  readonly kind: 'symlink';
  readonly target: string;
}
export interface SpecialNode extends Common {
  readonly kind: Exclude<EntryKind, 'file' | 'directory' | 'symlink'>;
}
export type Node = FileNode | DirectoryNode | LinkNode | SpecialNode;

/** What a file holds, and what happens when it is read. */
export interface Content {
  readonly size: number;
  /** Holes, in order; all else is stored. */
  readonly holes?: readonly { readonly offset: number; readonly length: number }[];
  /** Bytes of a stored range. */
  readonly bytes: (offset: number, length: number) => Uint8Array;
  /** Called before each read; may throw, or change the world. */
  readonly beforeRead?: (offset: number, length: number) => void | Promise<void>;
  /** Replaces the map, for maps that are wrong. */
  readonly runs?: (offset: number, length: number) => FileRun[];
}

export function file(
  content: string | Uint8Array | Content,
  attributes: Attributes = {},
  faults: Faults = {},
): FileNode {
  if (typeof content !== 'string' && !(content instanceof Uint8Array)) {
    return { kind: 'file', content, attributes, faults };
  }
  const bytes = typeof content === 'string' ? Buffer.from(content) : content;
  return {
    kind: 'file',
    content: { size: bytes.length, bytes: (offset, length) => bytes.slice(offset, offset + length) },
    attributes,
    faults,
  };
}

export function directory(
  children: Readonly<Record<string, Node>> | [string, Node][],
  attributes: Attributes = {},
  faults: Faults = {},
): DirectoryNode {
  return {
    kind: 'directory',
    children: Array.isArray(children) ? children : Object.entries(children),
    attributes,
    faults,
  };
}

export function symlink(target: string, attributes: Attributes = {}): LinkNode {
  return { kind: 'symlink', target, attributes, faults: {} };
}

export function special(kind: SpecialNode['kind'], attributes: Attributes = {}): SpecialNode {
  return { kind, attributes, faults: {} };
}

/** An error for damage of a test's own making. */
export function damage(structure = 'Inode'): CorruptError {
  return new CorruptError(structure, { source: 'memory', position: 4096, expected: 'sense', found: 'none' });
}

export class MemoryFileSystem implements FileSystem {
  readonly type = 'memory';
  readonly size = 1 << 30;
  readonly blockSize = 4096;
  readonly state = { condition: 'clean', evidence: [] } as const;
  readonly features = [];
  readonly caseInsensitive = false;
  /** Contents that are open now. */
  openContents = 0;
  closed = false;
  readonly #root: DirectoryNode;
  readonly #batch: number;
  readonly #ids: Map<Node, number>;
  readonly #nodes = new Map<number, Node>();
  readonly #links = new Map<Node, number>();

  /**
   * @param batch entries in one batch of a listing.
   * @param ids numbers given to nodes; shared between file systems that are one at different times.
   */
  constructor(root: DirectoryNode, batch = 3, ids = new Map<Node, number>()) {
    this.#root = root;
    this.#batch = batch;
    this.#ids = ids;
    this.#count(root, new Set());
  }

  #count(node: Node, seen: Set<Node>): void {
    this.#links.set(node, (this.#links.get(node) ?? 0) + 1);
    if (node.kind !== 'directory' || seen.has(node)) return;
    seen.add(node);
    for (const [, child] of node.children) this.#count(child, seen);
  }

  /** The number of a node: one for one node, however many names it has. */
  idOf(node: Node): number {
    let id = this.#ids.get(node);
    if (id === undefined) {
      id = this.#ids.size + 2;
      this.#ids.set(node, id);
    }
    this.#nodes.set(id, node);
    return id;
  }

  entryOf(name: string, node: Node): Entry {
    const base = { name, kind: node.kind, id: this.idOf(node) };
    return node.faults.entry === undefined ? base : { ...base, error: node.faults.entry };
  }

  #node(entry: Entry): Node {
    const node = this.#nodes.get(entry.id);
    if (node === undefined) throw new Error(`no node ${entry.id}`);
    return node;
  }

  async root(): Promise<Entry> {
    return this.entryOf('', this.#root);
  }

  entry(path: string, options: { follow?: boolean } = {}): Promise<Entry> {
    return walkPath(
      {
        root: () => this.root(),
        lookup: async (at, name) => {
          const node = this.#node(at);
          const child = node.kind === 'directory' ? node.children.find(([known]) => known === name) : undefined;
          return child === undefined ? undefined : this.entryOf(name, child[1]);
        },
        readLink: (entry) => this.readLink(entry),
      },
      path,
      options,
    );
  }

  async *list(at: Entry, signal?: AbortSignal): AsyncGenerator<Entry[]> {
    const node = this.#node(at);
    if (node.kind !== 'directory') throw new UsageError(`${at.name} is no directory`);
    const end = node.faults.list?.after ?? node.children.length;
    for (let from = 0; from < end; from += this.#batch) {
      signal?.throwIfAborted();
      yield node.children
        .slice(from, Math.min(end, from + this.#batch))
        .map(([name, child]) => this.entryOf(name, child));
    }
    if (node.faults.list !== undefined) throw node.faults.list.error;
  }

  async stat(entry: Entry): Promise<Stat> {
    const node = this.#node(entry);
    if (node.faults.stat !== undefined) throw node.faults.stat;
    const size =
      node.kind === 'file' ? node.content.size : node.kind === 'symlink' ? Buffer.byteLength(node.target) : 4096;
    return {
      kind: node.kind,
      id: entry.id,
      size,
      allocated: size,
      links: this.#links.get(node) ?? 1,
      flags: [],
      ...node.attributes,
    };
  }

  async open(entry: Entry): Promise<FileContent> {
    const node = this.#node(entry);
    if (node.kind !== 'file') throw new UsageError(`${entry.name} is no file`);
    if (node.faults.open !== undefined) throw node.faults.open;
    this.openContents++;
    const { content } = node;
    const source: FileContent = {
      name: entry.name,
      size: content.size,
      read: async (offset, length) => {
        checkRange(source, offset, length);
        await content.beforeRead?.(offset, length);
        return content.bytes(offset, length);
      },
      runs: async (offset, length) => content.runs?.(offset, length) ?? runsOf(content, offset, offset + length),
      close: async () => {
        this.openContents--;
      },
    };
    return source;
  }

  async readLink(entry: Entry): Promise<string> {
    const node = this.#node(entry);
    if (node.kind !== 'symlink') throw new UsageError(`${entry.name} is no symbolic link`);
    return node.target;
  }

  async extendedAttributes(): Promise<ExtendedAttribute[]> {
    return [];
  }

  async close(): Promise<void> {
    this.closed = true;
  }

  /** What the engine copies: the entry at `path`, as `/sda1/PATH`. */
  async source(path: string, name?: string) {
    const entry = await this.entry(path);
    if (entry === undefined) throw new NotFoundError(path);
    return { path: `/sda1${path}`, fileSystem: this, entry, name: name ?? (entry.name || 'sda1') };
  }
}

function runsOf(content: Content, offset: number, end: number): FileRun[] {
  const runs: FileRun[] = [];
  let at = offset;
  for (const hole of content.holes ?? []) {
    const from = Math.max(at, hole.offset);
    const to = Math.min(end, hole.offset + hole.length);
    if (from >= to) continue;
    if (from > at) runs.push({ kind: 'volume', offset: at, length: from - at, position: at });
    runs.push({ kind: 'zero', offset: from, length: to - from });
    at = to;
  }
  if (at < end) runs.push({ kind: 'volume', offset: at, length: end - at, position: at });
  return runs;
}
