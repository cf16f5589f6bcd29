/** What `check` says of the footers and of the dynamic disk header: nothing here stops the disk from being read. */
import type { Fields } from '../../binary.ts';
import { isZero } from '../../binary.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import { findingOf } from '../findings.ts';
import type { Finding, Severity } from '../image.ts';
import { checksumFault, madeWithBatmap, type Tables } from './dynamic-header.ts';
import { type FooterPlace, type Footers, geometryBytes } from './footer.ts';
import * as layout from './layout.ts';
import { type Footer, SECTOR } from './layout.ts';
import type { ParentRecord } from './parent.ts';

/** Time stamps may be this much ahead of us, in seconds: clocks differ, and some hosts stamp in local time. */
const CLOCK_SLACK = 86_400;

/** Creators of whose images QEMU shows the size in the footer, too (block/vpc.c). */
const SIZED_BY_FOOTER: ReadonlySet<string> = new Set(['win', 'qem2', 'd2v', 'tap', 'CTXS', 'wa']);
/** The largest geometry: a larger disk has it too, so it says nothing of the size. */
const LARGEST_GEOMETRY = 65_535 * 16 * 255 * SECTOR;

interface Odd {
  readonly severity?: Severity;
  readonly code: string;
  readonly message: string;
  readonly field: string;
  readonly at: number;
  readonly expected: string | number;
  readonly found: string | number;
  readonly remedy?: string;
}

function odd(fields: Fields, { severity = 'note', field, at, ...rest }: Odd): Finding {
  return {
    severity,
    ...rest,
    source: fields.source,
    structure: `${fields.structure} ${field}`,
    position: fields.position + at,
  };
}

export function* checkFooters(file: OpenFile, footers: Footers): Generator<Finding> {
  yield* footers.findings;
  const { footer, used, last, copy } = footers;
  if (last.footer !== undefined && copy?.footer !== undefined) yield* compareFooters(last, copy);
  yield* checkFeatures(footer, used.fields);
  yield* checkSizes(footer, used.fields);
  const at = layout.FooterOffsets;
  if (footer.savedState !== 0) {
    yield odd(used.fields, {
      code: 'saved-state',
      message: `${file.name} belongs to a virtual machine whose state was saved: what its memory held and had not written is not in it`,
      field: 'saved state',
      at: at.savedState,
      expected: 0,
      found: footer.savedState,
    });
  }
  if (footer.timeStamp + layout.EPOCH_2000 > Date.now() / 1000 + CLOCK_SLACK) {
    yield odd(used.fields, {
      code: 'created-in-future',
      message: `${file.name} says that it was made in the future`,
      field: 'time stamp',
      at: at.timeStamp,
      expected: 'a time that has passed',
      found: layout.timeText(footer.timeStamp),
    });
  }
  if (!isZero(used.fields.bytes.slice(at.reserved))) {
    yield odd(used.fields, {
      code: 'reserved-not-zero',
      message: `The reserved part of the footer of ${file.name} is in use, by a program that is not known here`,
      field: 'reserved',
      at: at.reserved,
      expected: 'zeros',
      found: 'other bytes',
    });
  }
}

function* compareFooters(last: FooterPlace, copy: FooterPlace): Generator<Finding> {
  const a = last.fields.bytes.subarray(0, last.length);
  const b = copy.fields.bytes.subarray(0, last.length);
  const { hidden, checksum } = layout.FooterOffsets;
  // XenServer's tools of versions 0.1 and 1.1 marked the copy only.
  const old = layout.madeByTapdisk(copy.footer!) && copy.footer!.creatorVersion <= layout.TAP_VERSION_BATMAP;
  for (let at = 0; at < a.length; at++) {
    if (a[at] === b[at] || (old && (at === hidden || (at >= checksum && at < checksum + 4)))) continue;
    const names = Object.entries(layout.FooterOffsets).filter(([, offset]) => offset <= at);
    yield odd(last.fields, {
      severity: 'suspicious',
      code: 'footer-copy-differs',
      message: `The two footers of ${last.fields.source} are both whole and differ: a change of it was interrupted`,
      field: names.at(-1)![0],
      at,
      expected: `as in the copy at byte ${at}, 0x${b[at]!.toString(16)}`,
      found: `0x${a[at]!.toString(16)}`,
      remedy:
        'The footer in the last sector is followed. Compare the size of the disk with another copy of the backup.',
    });
    return;
  }
}

function* checkFeatures(footer: Footer, fields: Fields): Generator<Finding> {
  const known = layout.FEATURE_TEMPORARY | layout.FEATURE_RESERVED;
  const unknown = (footer.features & ~known) >>> 0;
  if (unknown === 0 && (footer.features & layout.FEATURE_RESERVED) !== 0) return;
  yield odd(fields, {
    severity: unknown === 0 ? 'note' : 'suspicious',
    code: 'footer-features',
    message: `${fields.source} has feature bits in its footer that no version of the format gives a meaning`,
    field: 'features',
    at: layout.FooterOffsets.features,
    expected: '0x2 or 0x3',
    found: `0x${footer.features.toString(16)}`,
  });
}

function* checkSizes(footer: Footer, fields: Fields): Generator<Finding> {
  const at = layout.FooterOffsets;
  const { currentSize, originalSize, creatorApplication } = footer;
  const { source } = fields;
  if (currentSize % SECTOR !== 0) {
    yield odd(fields, {
      severity: 'suspicious',
      code: 'size-partial-sector',
      message: `The disk in ${source} is not a whole number of sectors`,
      field: 'current size',
      at: at.currentSize,
      expected: `a multiple of ${SECTOR}`,
      found: currentSize,
    });
  }
  if (originalSize !== currentSize) {
    yield odd(fields, {
      code: 'resized',
      message: `The disk in ${source} was made with ${originalSize} bytes, and has ${currentSize} now`,
      field: 'original size',
      at: at.originalSize,
      expected: currentSize,
      found: originalSize,
    });
  }
  const shown = geometryBytes(footer);
  if (shown === currentSize || shown >= LARGEST_GEOMETRY || SIZED_BY_FOOTER.has(creatorApplication)) return;
  yield odd(fields, {
    code: 'geometry-differs',
    message: `The geometry of ${source} makes ${shown} bytes, its current size is ${currentSize}: the size is followed, as the specification has it; QEMU shows the geometry's for images of this creator`,
    field: 'disk geometry',
    at: at.diskGeometry,
    expected: currentSize,
    found: shown,
  });
}

export function* checkFixed(file: OpenFile, footers: Footers): Generator<Finding> {
  const { footer, dataEnd, used } = footers;
  if (footer.dataOffset !== layout.NO_OFFSET) {
    yield odd(used.fields, {
      code: 'data-offset-unused',
      message: `The footer of ${file.name}, a fixed disk, leads to a header, which fixed disks do not have`,
      field: 'data offset',
      at: layout.FooterOffsets.dataOffset,
      expected: '0xffffffffffffffff',
      found: `0x${footer.dataOffset.toString(16)}`,
    });
  }
  if (dataEnd === footer.currentSize) return;
  const short = dataEnd < footer.currentSize;
  yield odd(used.fields, {
    severity: short ? 'damaged' : 'suspicious',
    code: short ? 'fixed-too-short' : 'fixed-too-long',
    message: short
      ? `${file.name} is a fixed disk of ${footer.currentSize} bytes and holds ${dataEnd} of them`
      : `${file.name} holds ${dataEnd - footer.currentSize} bytes between the disk's last and its footer`,
    field: 'current size',
    at: layout.FooterOffsets.currentSize,
    expected: dataEnd,
    found: footer.currentSize,
    remedy: short
      ? 'What lies in the file can be read; take the file from another copy of the backup.'
      : 'The size in the footer is followed; what lies behind it is not shown.',
  });
}

export function* checkHeader(
  footers: Footers,
  { header, fields, blocks, batmap, batmapPosition }: Tables,
  parent: ParentRecord | undefined,
): Generator<Finding> {
  const at = layout.HeaderOffsets;
  const { source } = fields;
  const unsummed = checksumFault(fields);
  if (unsummed !== undefined) {
    const remedy =
      'It holds for all other fields, so the disk can be read; the identity of the parent decides whether it is the right one.';
    yield findingOf(unsummed, 'header-checksum', 'suspicious', remedy);
  }
  if (header.dataOffset !== layout.NO_OFFSET) {
    yield odd(fields, {
      code: 'header-followed',
      message: `The dynamic disk header of ${source} leads to a structure that no version of the format has`,
      field: 'data offset',
      at: at.dataOffset,
      expected: '0xffffffffffffffff',
      found: `0x${header.dataOffset.toString(16)}`,
    });
  }
  if (header.maxTableEntries > blocks) {
    const fits = header.tableOffset + header.maxTableEntries * 4 <= footers.dataEnd;
    yield odd(fields, {
      severity: fits ? 'note' : 'suspicious',
      code: fits ? 'table-larger' : 'table-out-of-file',
      message: fits
        ? `The table of ${source} has room for ${header.maxTableEntries} blocks, its disk has ${blocks}`
        : `The table of ${source} is said to be larger than the file; the entries of its disk's blocks are all there`,
      field: 'max table entries',
      at: at.maxTableEntries,
      expected: blocks,
      found: header.maxTableEntries,
    });
  }
  if (header.tableOffset % SECTOR !== 0) {
    yield odd(fields, {
      code: 'table-unaligned',
      message: `The block allocation table of ${source} does not begin with a sector`,
      field: 'table offset',
      at: at.tableOffset,
      expected: `a multiple of ${SECTOR}`,
      found: header.tableOffset,
    });
  }
  if (!isZero(fields.slice(at.reserved2, layout.HEADER_BYTES - at.reserved2).slice())) {
    yield odd(fields, {
      code: 'reserved-not-zero',
      message: `The reserved part of the dynamic disk header of ${source} is in use, by a program that is not known here`,
      field: 'reserved',
      at: at.reserved2,
      expected: 'zeros',
      found: 'other bytes',
    });
  }
  if (madeWithBatmap(footers.footer) && batmap === undefined) {
    // 1.1 may have been brought up from 0.1, which had none.
    const always = footers.footer.creatorVersion >= layout.TAP_VERSION_BATMAP_ALWAYS;
    yield {
      severity: always ? 'suspicious' : 'note',
      code: 'batmap-missing',
      message: `${source} has no batmap where XenServer keeps one; the bitmaps of its blocks are read instead`,
      source,
      structure: 'VHD batmap header',
      position: batmapPosition,
      expected: `"${layout.BATMAP_COOKIE}"`,
      found: 'none',
    };
  }
  yield* checkParent(footers.footer, header.parentUniqueId, fields, parent);
}

function* checkParent(
  footer: Footer,
  parentId: string,
  fields: Fields,
  parent: ParentRecord | undefined,
): Generator<Finding> {
  const at = layout.HeaderOffsets;
  const { source } = fields;
  if (parent === undefined) {
    if (parentId === layout.NO_UUID) return;
    yield odd(fields, {
      severity: 'suspicious',
      code: 'parent-of-dynamic',
      message: `${source} is called dynamic and records a parent: if it was differencing, what it shows as zeros may be its parent's data`,
      field: 'parent unique ID',
      at: at.parentUniqueId,
      expected: 'none',
      found: parentId,
      remedy: 'It is read as the dynamic disk that its footer calls it. Compare with another copy of the backup.',
    });
    return;
  }
  yield* parent.findings;
  if (parentId !== layout.NO_UUID && parentId === footer.uniqueId) {
    yield odd(fields, {
      severity: 'damaged',
      code: 'own-parent',
      message: `${source} records itself as its parent`,
      field: 'parent unique ID',
      at: at.parentUniqueId,
      expected: 'the identity of another disk',
      found: parentId,
    });
  }
  const names = [parent.claim.recorded, ...(parent.claim.alternatives ?? [])];
  if (parent.claim.nameless) {
    yield odd(fields, {
      severity: 'suspicious',
      code: 'parent-nameless',
      message: `${source} records no name of its parent; it is looked for by its identity`,
      field: 'parent unicode name',
      at: at.parentUnicodeName,
      expected: 'a name',
      found: 'none',
    });
    return;
  }
  const files = new Set(names.map((name) => name.split(/[\\/]/).at(-1)!.toLowerCase()));
  if (files.size > 1) {
    yield odd(fields, {
      code: 'parent-names-differ',
      message: `${source} records its parent under names of different files; the identity decides which is right`,
      field: 'parent locators',
      at: at.parentLocators,
      expected: 'one name',
      found: [...files].join(', '),
    });
  }
}
