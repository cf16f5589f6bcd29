/**
 * Formats that are recognised so that they can be refused by name. A disk image in one of them must never be taken for a raw
 * disk, whose first sectors would then be its header.
 */
import { UnsupportedError } from '../errors.ts';
import type { Confinement } from '../storage/confinement.ts';
import type { ImageFormat, ImageLayer } from './image.ts';
import { isRawByName } from './raw/raw-layer.ts';

interface Recognised {
  readonly name: string;
  readonly title: string;
  /** The bytes it begins with, or has at `at`, in hexadecimal digits. */
  readonly magic: readonly { readonly at: number; readonly hex: string }[];
  readonly extensions?: RegExp;
}

const FORMATS: readonly Recognised[] = [
  { name: 'qed', title: 'QED', magic: [{ at: 0, hex: '51454400' }], extensions: /\.qed$/i },
  { name: 'ewf', title: 'EWF (EnCase, .E01)', magic: [{ at: 0, hex: '455646090d0aff00' }], extensions: /\.[es]x?01$/i },
  { name: 'vma', title: 'Proxmox VMA archive', magic: [{ at: 0, hex: '564d4100' }] },
  { name: 'asif', title: 'Apple sparse image (ASIF)', magic: [{ at: 0, hex: '73686477' }], extensions: /\.asif$/i },
  // These two have their marks at the end, or none that is public.
  { name: 'dmg', title: 'Apple disk image (.dmg)', magic: [], extensions: /\.dmg$/i },
  { name: 'vbk', title: 'Veeam backup (.vbk, .vib, .vrb)', magic: [], extensions: /\.(vbk|vib|vrb)$/i },
];

function asFormat(format: Recognised): ImageFormat {
  return {
    name: format.name,
    detect: (prefix, fileName) =>
      !isRawByName(fileName) &&
      (format.magic.some(
        ({ at, hex }) => Buffer.from(prefix.subarray(at, at + hex.length / 2)).toString('hex') === hex,
      ) ||
        (format.extensions?.test(fileName) ?? false)),
    open: async (path: string, folder: Confinement): Promise<ImageLayer> => {
      throw new UnsupportedError(format.title, { source: folder.label(folder.realPath(path)) });
    },
  };
}

/** In probe order. `open` of each throws UnsupportedError. */
export const recognisedFormats: readonly ImageFormat[] = FORMATS.map(asFormat);
