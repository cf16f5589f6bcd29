/** VHD as the registry sees it. */
import { basename } from 'node:path';
import type { ImageFormat } from '../image.ts';
import { isRawByName } from '../raw/raw-layer.ts';
import { FOOTER_BYTES, FOOTER_COOKIE, HEADER_COOKIE, POISON_COOKIE } from './layout.ts';
import { openVhd } from './vhd-layer.ts';

/**
 * True for the footer copy of a dynamic or differencing disk, for the header behind a ruined one, and for everything called `.vhd`
 * or `.avhd`: a fixed disk has its mark in the last sector only, so there the name must do.
 */
function detectVhd(prefix: Uint8Array, fileName: string): boolean {
  const name = basename(fileName);
  if (isRawByName(name)) return false;
  if (/\.a?vhd$/i.test(name)) return true;
  const cookie = Buffer.from(prefix.subarray(0, 8)).toString('latin1');
  if (cookie === FOOTER_COOKIE || cookie === POISON_COOKIE) return true;
  return Buffer.from(prefix.subarray(FOOTER_BYTES, FOOTER_BYTES + 8)).toString('latin1') === HEADER_COOKIE;
}

export const vhdFormat: ImageFormat = { name: 'vhd', detect: detectVhd, open: openVhd };
