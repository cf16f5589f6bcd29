/** Which descriptors this version reads, and by what name it refuses the others. */
import { CorruptError, UnsupportedError } from '../../errors.ts';
import { uuidIn } from '../../text.ts';
import type { ParentClaim } from '../image.ts';
import type { Descriptor } from './descriptor.ts';

/** `createType` in lower case -> the variant's name. What VMFS allocates thin or thick is flat for a reader. */
const READ: Readonly<Record<string, string>> = {
  monolithicsparse: 'monolithicSparse',
  monolithicflat: 'monolithicFlat',
  twogbmaxextentsparse: 'twoGbMaxExtentSparse',
  '2gbmaxextentsparse': 'twoGbMaxExtentSparse',
  twogbmaxextentflat: 'twoGbMaxExtentFlat',
  '2gbmaxextentflat': 'twoGbMaxExtentFlat',
  vmfs: 'vmfs',
  vmfspreallocated: 'vmfsPreallocated',
  vmfseagerzeroedthick: 'vmfsEagerZeroedThick',
  vmfsthin: 'vmfsThin',
  vmfssparse: 'vmfsSparse',
  sesparse: 'seSparse',
  streamoptimized: 'streamOptimized',
  custom: 'custom',
};

const REFUSED: Readonly<Record<string, string>> = {
  vsansparse: 'VMDK vsanSparse',
  fulldevice: 'VMDK fullDevice (physical disk)',
  partitioneddevice: 'VMDK partitionedDevice (physical disk)',
  vmfsraw: 'VMDK vmfsRaw (raw device)',
  vmfsrdm: 'VMDK vmfsRDM (raw device mapping)',
  vmfsrawdevicemap: 'VMDK vmfsRDM (raw device mapping)',
  vmfsrdmp: 'VMDK vmfsPassthroughRDM (raw device mapping)',
  vmfspassthroughrawdevicemap: 'VMDK vmfsPassthroughRDM (raw device mapping)',
};

function encrypted(source: string): UnsupportedError {
  return new UnsupportedError('VMDK encrypted by VMware', { source });
}

/** Descriptor versions that are known: 1 to 3 by the specification, 4 of ESXi 6.5 and later. */
const VERSION_MAX = 4;

/**
 * The variant that a descriptor's `createType` names.
 * @throws UnsupportedError for one that is not read and for features that change what the bytes mean, encryption among them.
 */
export function variantOf(descriptor: Descriptor): string {
  const { source, values } = descriptor;
  const createType = descriptor.createType.toLowerCase();
  for (const key of values.keys()) {
    if (/^(encryption\.|(ddb\.)?keysafe|(ddb\.)?encrypt|ddb\.crypto)/.test(key)) throw encrypted(source);
  }
  // I/O filters stand between the disk and its file; this one encrypts, and its key is not in the backup.
  if (/\bvmwarevmcrypt\b/i.test(values.get('ddb.iofilters') ?? '')) throw encrypted(source);
  const refused = REFUSED[createType];
  if (refused !== undefined) throw new UnsupportedError(refused, { source });
  const variant = READ[createType];
  if (variant === undefined)
    throw new UnsupportedError(`VMDK createType "${descriptor.createType.slice(0, 64)}"`, { source });
  if (descriptor.version > VERSION_MAX) {
    throw new UnsupportedError(`VMDK descriptor of version ${descriptor.version}`, { source });
  }
  if (/^(yes|true|1)$/i.test(values.get('isnativesnapshot') ?? '')) {
    throw new UnsupportedError('VMDK native snapshot (kept by the storage array)', { source });
  }
  return variant;
}

/**
 * What a descriptor says its parent is; undefined for a base.
 * @throws CorruptError when name and content id contradict each other: VMware and QEMU then disagree on whether there is a
 * parent at all, and taking a child for a base would show zeros in place of the parent's data.
 */
export function parentOf(descriptor: Descriptor): ParentClaim | undefined {
  const { parentCid, parentFileNameHint, source } = descriptor;
  const isBase = parentCid === undefined || parentCid === 'ffffffff';
  if (parentFileNameHint === undefined) {
    const claim = virtualBoxParent(descriptor);
    if (isBase || claim !== undefined) return claim;
    throw new CorruptError('VMDK descriptor parentFileNameHint', {
      source,
      expected: `a name, since parentCID is ${parentCid}`,
      found: 'none',
    });
  }
  if (parentCid === 'ffffffff') {
    throw new CorruptError('VMDK descriptor parentCID', {
      source,
      expected: `the content id of "${parentFileNameHint}", which is named as the parent`,
      found: 'ffffffff (no parent)',
    });
  }
  return parentCid === undefined ? { recorded: parentFileNameHint } : { recorded: parentFileNameHint, id: parentCid };
}

/**
 * VirtualBox leaves `parentCID` of its differencing VMDKs at "none" and names no file: it goes by UUIDs of its own in the disk
 * database (src/VBox/Storage/VMDK.cpp). Without them such an image would pass for a base, and show zeros in place of its parent's data.
 */
function virtualBoxParent({ values }: Descriptor): ParentClaim | undefined {
  const id = idIn(values.get('ddb.uuid.parent'));
  if (id === undefined) return undefined;
  const stateId = idIn(values.get('ddb.uuid.parentmodification'));
  return { recorded: id, nameless: true, id, ...(stateId === undefined ? {} : { stateId }) };
}

/** What VirtualBox calls this image, and its content: UUIDs, where it has written to the descriptor. */
export function virtualBoxIds({ values }: Descriptor): { readonly image?: string; readonly state?: string } {
  const image = idIn(values.get('ddb.uuid.image'));
  const state = idIn(values.get('ddb.uuid.modification'));
  return { ...(image === undefined ? {} : { image }), ...(state === undefined ? {} : { state }) };
}

/** Where there is none, VirtualBox writes zeros. */
function idIn(value: string | undefined): string | undefined {
  const uuid = uuidIn(value);
  return uuid === undefined || /^[0-]+$/.test(uuid) ? undefined : uuid;
}
