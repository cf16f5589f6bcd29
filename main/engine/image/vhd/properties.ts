/** Facts of a VHD worth showing in `info`, in the format's own terms. */
import type { Tables } from './dynamic-header.ts';
import type { Footers } from './footer.ts';
import * as layout from './layout.ts';
import { type ParentRecord, printable } from './parent.ts';

/** Who signs so (specification, and what QEMU's block/vpc.c knows). */
const CREATORS: Readonly<Record<string, string>> = {
  vpc: 'Virtual PC',
  vs: 'Virtual Server',
  win: 'Windows',
  tap: 'XenServer',
  CTXS: 'XenConvert',
  d2v: 'Disk2vhd',
  qemu: 'QEMU',
  qem2: 'QEMU',
  vbox: 'VirtualBox',
  wa: 'Azure',
};
/** `Wi2k`, `Mac `; XenServer's tools leave it out. */
const HOSTS: ReadonlyMap<number, string> = new Map([
  [0x5769326b, 'Windows'],
  [0x4d616320, 'Macintosh'],
  [0, 'none'],
]);

/** Sizes are in bytes; `geometry` is cylinders/heads/sectors as the footer has them, which is not the size of the disk. */
export function vhdProperties(
  footers: Footers,
  tables: Tables | undefined,
  parent: ParentRecord | undefined,
): Readonly<Record<string, string | number | boolean>> {
  const { footer } = footers;
  const properties: Record<string, string | number | boolean> = {
    creatorApplication: creatorText(footer.creatorApplication),
    creatorVersion: layout.versionText(footer.creatorVersion),
    creatorHostOs: HOSTS.get(footer.creatorHostOs) ?? `0x${footer.creatorHostOs.toString(16).padStart(8, '0')}`,
    created: layout.timeText(footer.timeStamp),
    geometry: `${footer.cylinders}/${footer.heads}/${footer.sectorsPerTrack}`,
    originalSize: footer.originalSize,
    savedState: footer.savedState !== 0,
    temporary: (footer.features & layout.FEATURE_TEMPORARY) !== 0,
    hidden: hiddenOf(footers),
  };
  if (tables !== undefined) {
    properties.blockSize = tables.header.blockSize;
    properties.maxTableEntries = tables.header.maxTableEntries;
    properties.batmap = tables.batmap !== undefined;
  }
  if (parent !== undefined && parent.locators.length > 0) {
    properties.parentLocators = parent.locators.map(({ code }) => printable(code).trimEnd()).join(', ');
  }
  return properties;
}

/** XenServer's tools of versions 0.1 and 1.1 marked the copy of the footer only. */
function hiddenOf({ footer, copy }: Footers): number {
  const inCopy = layout.madeByTapdisk(footer) && footer.creatorVersion <= layout.TAP_VERSION_BATMAP;
  return (inCopy ? copy?.footer?.hidden : undefined) ?? footer.hidden;
}

function creatorText(code: string): string {
  const shown = code === '' ? 'none' : printable(code);
  const name = CREATORS[code];
  return name === undefined ? shown : `${name} (${shown})`;
}
