/**
 * Inline data (https://docs.kernel.org/filesystems/ext4/ifork.html#inline-data): content of up to some 160 bytes inside the
 * inode; its first 60 bytes in i_block, the rest as the value of the attribute `system.data`.
 */
import type { Inode, InodeTable } from './inode.ts';
import { ino, inodeBlockBytes } from './layout.ts';
import { inlineContinuation } from './xattr.ts';

/** A stretch of inline content, and where it lies in the volume. */
export interface InlinePart {
  readonly bytes: Uint8Array;
  readonly position: number;
}

/** The parts of an inode's inline content, which together hold at least its size. @throws CorruptError when they hold less. */
export function inlineParts(table: InodeTable, inode: Inode): InlinePart[] {
  const parts: InlinePart[] = [{ bytes: inode.block, position: inode.position + ino.block }];
  const more = inlineContinuation(table, inode);
  if (more !== undefined && more.value.length > 0) parts.push({ bytes: more.value, position: more.position });
  const room = inodeBlockBytes + (more?.value.length ?? 0);
  inode.fields.require(inode.size <= room, 'i_size', ino.sizeLo, `at most ${room} (inline data)`, inode.size);
  return parts;
}
