/** VHDX as the registry sees it. */
import type { ImageFormat } from '../image.ts';
import { isRawByName } from '../raw/raw-layer.ts';
import { FILE_TYPE_SIGNATURE } from './layout.ts';
import { openVhdx } from './vhdx-layer.ts';

/** True for the magic of the first bytes and for the names, so that a file whose first bytes are ruined is reported as damaged. */
function detectVhdx(prefix: Uint8Array, fileName: string): boolean {
  if (isRawByName(fileName)) return false;
  return Buffer.from(prefix.subarray(0, 8)).toString('latin1') === FILE_TYPE_SIGNATURE || /\.a?vhdx$/i.test(fileName);
}

export const vhdxFormat: ImageFormat = { name: 'vhdx', detect: detectVhdx, open: openVhdx };
