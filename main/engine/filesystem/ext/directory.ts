/** Directories: listing in large contiguous reads, and looking up one name. */
import { type ChainliftError, CorruptError, throwIfCancelled } from '../../errors.ts';
import { runAsync } from '../../storage/io.ts';
import type { Entry } from '../file-system.ts';
import { asEntryError } from '../path-walk.ts';
import { foldCase } from './casefold.ts';
import { DirectoryContext, damagedBlockEntry, parseDirectoryBlock, parseEntries } from './directory-block.ts';
import { indexedLookup } from './htree.ts';
import { inlineParts } from './inline-data.ts';
import { has, type Inode, type InodeTable } from './inode.ts';
import { ino, inodeFlag } from './layout.ts';
import { checkMappable, mapBlocks } from './mapping.ts';

/** Bytes of a directory that are read at once. */
const readSize = 1 << 20;
/** Bytes of a directory whose entries are handed over at once: small enough that they die young where they are not kept. */
const batchSize = 12 << 10;
/** Blocks of a directory that are mapped at once. */
const mapWindow = 1 << 15;

/** The kinds that only the inodes know (no filetype feature), read through the cache of inode tables. */
async function resolveKinds(table: InodeTable, entries: Entry[], unknown: readonly number[]): Promise<void> {
  for (const index of unknown) {
    const entry = entries[index]!;
    try {
      const inode = await runAsync(table.read(entry.id));
      entries[index] = { ...entry, kind: inode.kind };
    } catch (error) {
      entries[index] = { ...entry, error: asEntryError(error) };
    }
  }
}

/** The entries of a directory in the order they are stored, in small batches; the blocks are read a megabyte at a time. */
export async function* listDirectory(table: InodeTable, inode: Inode, signal?: AbortSignal): AsyncGenerator<Entry[]> {
  throwIfCancelled(signal, 'Listing');
  const context = new DirectoryContext(table, inode);
  if (has(inode, inodeFlag.inlineData)) {
    const batch = inlineEntries(context);
    await resolveKinds(table, batch.entries, batch.unknown);
    yield batch.entries;
    return;
  }
  checkMappable(table, inode);
  const { blockSize, blocksCount } = table.superblock;
  const blocks = Math.ceil(inode.size / blockSize);
  let read = 0;
  for (let first = 0; first < blocks; first += mapWindow) {
    throwIfCancelled(signal, 'Listing');
    const count = Math.min(mapWindow, blocks - first);
    let at = first;
    for (const run of await runAsync(mapBlocks(table, inode, first, count))) {
      if (run.logical > at) yield [hole(inode, at, run.logical)];
      at = run.logical + run.count;
      const step = Math.max(1, Math.floor(readSize / blockSize));
      for (let i = 0; i < run.count; i += step) {
        throwIfCancelled(signal, 'Listing');
        const length = Math.min(step, run.count - i);
        read += length;
        if (read > blocksCount) {
          throw inode.fields.corrupt('i_size', ino.sizeLo, `at most ${blocksCount} blocks`, `${blocks} blocks`);
        }
        yield* readBlocks(context, run.logical + i, (run.physical + i) * blockSize, length);
      }
    }
    if (at < first + count) yield [hole(inode, at, first + count)];
  }
}

/** The entries of `count` blocks that lie together in the volume. */
async function* readBlocks(
  context: DirectoryContext,
  logical: number,
  position: number,
  count: number,
): AsyncGenerator<Entry[]> {
  const { table } = context;
  const { blockSize } = table.superblock;
  const { source } = table.cache;
  let bytes: Uint8Array;
  try {
    bytes = await source.read(position, count * blockSize);
  } catch (error) {
    // What can't be read is one error entry; where many blocks were asked for at once, each is tried for itself.
    const failure: ChainliftError = asEntryError(error);
    if (count > 1) {
      for (let i = 0; i < count; i++) yield* readBlocks(context, logical + i, position + i * blockSize, 1);
    } else {
      const id = -Math.floor(position / blockSize);
      yield [{ name: `<unreadable block ${logical}>`, kind: 'unknown', id, error: failure }];
    }
    return;
  }
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const step = Math.max(1, Math.floor(batchSize / blockSize));
  for (let first = 0; first < count; first += step) {
    const entries: Entry[] = [];
    const unknown: number[] = [];
    for (let i = first; i < Math.min(count, first + step); i++) {
      const start = i * blockSize;
      const place = { logical: logical + i, position: position + start };
      parseDirectoryBlock(context, buffer, start, blockSize, place, entries, unknown);
    }
    if (unknown.length > 0) await resolveKinds(table, entries, unknown);
    if (entries.length > 0) yield entries;
  }
}

function hole(inode: Inode, first: number, end: number): Entry {
  const blocks = end - first === 1 ? String(first) : `${first}-${end - 1}`;
  const error = new CorruptError(`ext directory of inode ${inode.number}`, {
    source: inode.fields.source,
    position: inode.position,
    expected: 'blocks without a gap',
    found: `a hole at block ${blocks}`,
  });
  // No block to take an id from: the inode and the place in it, below zero like all that are no inodes.
  return damagedBlockEntry(blocks, -(inode.number * 0x10_0000 + (first % 0x10_0000)), error);
}

/** Entries inside the inode: after the four bytes of the parent's number in i_block, then in `system.data`. */
function inlineEntries(context: DirectoryContext): { entries: Entry[]; unknown: number[] } {
  const entries: Entry[] = [];
  const unknown: number[] = [];
  inlineParts(context.table, context.inode).forEach((part, index) => {
    const skip = index === 0 ? 4 : 0;
    const buffer = Buffer.from(part.bytes.buffer, part.bytes.byteOffset + skip, part.bytes.length - skip);
    const place = { logical: index, position: part.position + skip };
    const broken = parseEntries(context, buffer, 0, buffer.length, place, false, entries, unknown, undefined);
    if (broken !== undefined) entries.push(damagedBlockEntry(`${index} (inline)`, -place.position, broken));
  });
  return { entries, unknown };
}

/** Names that stand for damage: they are in no index, only listings have them. */
const madeUp = /^<(?:damaged|unreadable) block |\\x(?:2f|00|2e)/;

/**
 * The entry called `name`, as `list` shows it, or undefined. Large directories are looked up through their index; where that
 * can't answer for certain, all blocks are read.
 * @throws CorruptError when the name was not found and a block that may have held it is damaged.
 */
export async function lookUp(table: InodeTable, inode: Inode, name: string): Promise<Entry | undefined> {
  const context = new DirectoryContext(table, inode);
  const plain = !context.encrypted && !has(inode, inodeFlag.inlineData) && !madeUp.test(name);
  if (context.indexed && plain) {
    const answer = await runAsync(indexedLookup(context, name));
    if (answer.entry !== undefined) {
      const entries = [answer.entry];
      if (answer.entry.kind === 'unknown' && answer.entry.error === undefined) await resolveKinds(table, entries, [0]);
      return entries[0];
    }
    if (answer.certain) return undefined;
  }
  const folded = has(inode, inodeFlag.casefold) && !context.encrypted ? foldCase(name) : undefined;
  let damage: ChainliftError | undefined;
  let sameFolded: Entry | undefined;
  for await (const batch of listDirectory(table, inode)) {
    for (const entry of batch) {
      if (entry.name === name) return entry;
      if (entry.id < 0) damage ??= entry.error;
      else if (folded !== undefined && sameFolded === undefined && foldCase(entry.name) === folded) sameFolded = entry;
    }
  }
  if (sameFolded !== undefined) return sameFolded;
  if (damage !== undefined) throw damage;
  return undefined;
}
