/** VMDK as the registry sees it. */
import { basename } from 'node:path';
import type { ImageFormat } from '../image.ts';
import { isFlatExtentName, isPossiblyRawName, isRawByName, PREFIX_BYTES } from '../raw/raw-layer.ts';
import { looksLikeDescriptor } from './descriptor.ts';
import { vmdkMagic } from './layout.ts';
import { openVmdk } from './vmdk-layer.ts';

/**
 * True for the magic numbers of extents, for a text descriptor, and for anything called `.vmdk` that is neither a flat extent nor
 * a change tracking file, so that a VMDK whose first bytes are ruined is reported as such and not passed over.
 */
function detectVmdk(prefix: Uint8Array, fileName: string): boolean {
  const name = basename(fileName);
  // The guest writes the first bytes of a raw disk. A flat extent's name with a descriptor of less than 64 KiB behind it can only
  // be the descriptor of a machine whose own name ends like that: no disk is so small.
  if (isFlatExtentName(name)) return prefix.length < PREFIX_BYTES && looksLikeDescriptor(prefix);
  if (isRawByName(name)) return false;
  if (/-ctk\.vmdk$/i.test(name)) return false;
  const magic = vmdkMagic(prefix);
  if (magic === 'sparse' || magic === 'cowd') return true;
  if (/\.vmdk$/i.test(name)) return true;
  // A redo log keeps `.vmdk` inside its name. seSparse's number is also that of Java classes and universal binaries.
  return !isPossiblyRawName(name) && looksLikeDescriptor(prefix);
}

export const vmdkFormat: ImageFormat = { name: 'vmdk', detect: detectVmdk, open: openVmdk };
