/** What `verify` says of a descriptor that could be opened: nothing here stops the disk from being read. */
import type { Finding } from '../image.ts';
import type { Descriptor } from './descriptor.ts';
import type { Extent } from './extent.ts';

/** Variant -> kinds of extents it is made of. ZERO and NOACCESS extents may stand in any. */
const KINDS: Readonly<Record<string, readonly Extent['kind'][]>> = {
  monolithicSparse: ['sparse'],
  twoGbMaxExtentSparse: ['sparse'],
  streamOptimized: ['sparse'],
  vmfsSparse: ['cowd'],
  seSparse: ['sesparse'],
  // Whatever its maker put together.
  custom: ['flat', 'sparse', 'cowd', 'sesparse'],
};

export function* checkDescriptor(
  descriptor: Descriptor,
  variant: string,
  extents: readonly Extent[],
): Generator<Finding> {
  const { source, cid, values } = descriptor;
  if (cid === undefined) {
    yield {
      severity: 'suspicious',
      code: 'content-id-missing',
      message: `${source} has no CID: whether a child was made from it can't be told`,
      source,
      structure: 'VMDK descriptor CID',
      expected: 'eight hexadecimal digits',
      found: 'none',
    };
  }
  // The long id ends with the short one. A person who repairs a chain by hand changes the short one only.
  const long = values.get('ddb.longcontentid')?.toLowerCase();
  if (cid !== undefined && long !== undefined && /^[0-9a-f]{32}$/.test(long) && !long.endsWith(cid)) {
    yield {
      severity: 'suspicious',
      code: 'content-id-edited',
      message: `${source} has a CID that is not the end of its long content id: it was changed by hand`,
      source,
      structure: 'VMDK descriptor CID',
      expected: long.slice(-8),
      found: cid,
    };
  }
  const expected = KINDS[variant] ?? ['flat'];
  const odd = extents.find((extent) => extent.file !== undefined && !expected.includes(extent.kind));
  if (odd !== undefined) {
    yield {
      severity: 'note',
      code: 'extent-kind-unusual',
      message: `${source} is called ${descriptor.createType} and has a ${odd.kind} extent`,
      source,
      structure: 'VMDK descriptor createType',
      expected: expected.join(' or '),
      found: odd.kind,
    };
  }
}
