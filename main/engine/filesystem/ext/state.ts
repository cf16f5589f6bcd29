/** How an ext file system was left: what its superblock, its journal and its multiple-mount protection say. */
import { Fields } from '../../binary.ts';
import { ChainliftError } from '../../errors.ts';
import { type Io, readBytes } from '../../storage/io.ts';
import type { FileSystemState } from '../file-system.ts';
import type { InodeTable } from './inode.ts';
import {
  compat,
  incompat,
  journalMagic,
  journalStart,
  mmpMagic,
  mmpNodeName,
  mmpSeqClean,
  roCompat,
  stateErrors,
  stateValid,
} from './layout.ts';
import { mapBlocks } from './mapping.ts';

/** The state of a file system; `damage` is the primary superblock's error when a copy is used in its place. */
export function* readState(table: InodeTable, damage: ChainliftError | undefined): Io<FileSystemState> {
  const s = table.superblock;
  const { source } = table.cache;
  const evidence: string[] = [];
  let errors = false;
  let dirty = false;

  if (damage !== undefined) {
    errors = true;
    evidence.push(
      `${damage.message}; the copy in group ${s.group} at byte ${s.position} is used, which does not say whether the journal needs replay`,
    );
  }
  if (s.blocksCount * s.blockSize > source.size) {
    errors = true;
    evidence.push(
      `the file system has ${s.blocksCount * s.blockSize} bytes, the volume only ${source.size}: what lies beyond is missing`,
    );
  }
  if ((s.state & stateErrors) !== 0) {
    errors = true;
    evidence.push('the guest recorded errors (s_state has ERROR_FS)');
  }
  if (s.errorCount > 0) {
    const { seconds, inode, block, where } = s.lastError;
    const when = new Date(seconds * 1000);
    evidence.push(
      `${s.errorCount} errors were recorded, the last ${Number.isNaN(when.getTime()) ? '' : `at ${when.toISOString()} `}in ${where || 'an unknown function'}, inode ${inode}, block ${block}`,
    );
  }

  const hasJournal = (s.compat & compat.hasJournal) !== 0;
  const replay = (s.incompat & incompat.recover) !== 0;
  const external = hasJournal && s.journalInode === 0;
  if (external) evidence.push(`the journal is on another device (UUID ${s.journalUuid})`);
  if (replay) evidence.push('the journal needs replay (needs_recovery is set)');
  if (hasJournal && !external && (replay || damage !== undefined)) evidence.push(yield* journalEvidence(table));
  if (!hasJournal && (s.state & stateValid) === 0) {
    dirty = true;
    evidence.push('it was not unmounted cleanly (s_state lacks VALID_FS) and has no journal');
  }
  if (s.lastOrphan !== 0) evidence.push(`the list of orphans begins with inode ${s.lastOrphan}`);
  if ((s.roCompat & roCompat.orphanPresent) !== 0) evidence.push('the orphan file may hold inodes (orphan_present)');
  if (s.mmpBlock !== 0) {
    const user = yield* mountedBy(table);
    if (user !== undefined) {
      dirty = true;
      evidence.push(user);
    }
  }
  if (replay) return { condition: 'needs-replay', evidence };
  if (errors) return { condition: 'errors', evidence };
  if (dirty) return { condition: 'dirty', evidence };
  if (evidence.length === 0) evidence.push('it was unmounted cleanly');
  return { condition: 'clean', evidence };
}

/** What the journal's own superblock says. A journal that can't be read is evidence too, and does not keep the volume closed. */
function* journalEvidence(table: InodeTable): Io<string> {
  const s = table.superblock;
  try {
    const inode = yield* table.read(s.journalInode);
    const run = (yield* mapBlocks(table, inode, 0, 1))[0];
    if (run === undefined) return `the journal (inode ${s.journalInode}) has no first block`;
    const position = run.physical * s.blockSize;
    const f = new Fields(
      yield* readBytes(table.cache.source, position, 1024),
      'ext journal',
      table.cache.source.name,
      position,
    );
    const magic = f.u32be(0);
    f.require(magic === journalMagic, 'h_magic', 0, '0xc03b3998', `0x${magic.toString(16)}`);
    const start = f.u32be(journalStart);
    return start === 0
      ? `the journal (inode ${s.journalInode}) is empty`
      : `the journal (inode ${s.journalInode}) begins at block ${start}, transaction ${f.u32be(0x18)}`;
  } catch (error) {
    if (error instanceof ChainliftError) return `the journal can't be read: ${error.message}`;
    throw error;
  }
}

/** Who had the volume mounted according to multiple-mount protection, or undefined when nobody had. */
function* mountedBy(table: InodeTable): Io<string | undefined> {
  const s = table.superblock;
  const position = s.mmpBlock * s.blockSize;
  try {
    const f = new Fields(
      yield* readBytes(table.cache.source, position, 1024),
      'ext MMP block',
      table.cache.source.name,
      position,
    );
    const magic = f.u32(0);
    f.require(magic === mmpMagic, 'mmp_magic', 0, '0x004d4d50', `0x${magic.toString(16)}`);
    if (f.u32(4) === mmpSeqClean) return undefined;
    return `multiple-mount protection says that "${f.ascii(mmpNodeName, 64)}" had it in use`;
  } catch (error) {
    if (error instanceof ChainliftError) return `multiple-mount protection can't be read: ${error.message}`;
    throw error;
  }
}
