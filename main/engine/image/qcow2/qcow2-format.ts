/** QCOW2 as the registry sees it. */
import { basename } from 'node:path';
import type { ImageFormat } from '../image.ts';
import { isRawByName } from '../raw/raw-layer.ts';
import { qcowVersion } from './layout.ts';
import { openQcow2 } from './qcow2-layer.ts';

/**
 * True for the magic number with any version but 1, and for anything called `.qcow2`, so that an image whose first bytes are ruined
 * is reported as such and not passed over.
 */
function detectQcow2(prefix: Uint8Array, fileName: string): boolean {
  const name = basename(fileName);
  if (isRawByName(name)) return false;
  const version = qcowVersion(prefix);
  return version === undefined ? /\.qcow2$/i.test(name) : version !== 1;
}

export const qcow2Format: ImageFormat = { name: 'qcow2', detect: detectQcow2, open: openQcow2 };
