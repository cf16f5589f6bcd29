/**
 * The shape of Zstandard frames (RFC 8878, section 3): where one ends, which its decoder wants to know beforehand, and how much it
 * says it holds. Contents are not looked at.
 */

const FRAME_MAGIC = 0xfd2f_b528;
/** Skippable frames have any of sixteen magic numbers from this one on. */
const SKIPPABLE_MAGIC = 0x184d_2a50;
const BLOCK_RLE = 1;
const BLOCK_RESERVED = 3;

export interface FrameShape {
  /** Bytes of the frame with its header and checksum. */
  readonly length: number;
  /** Bytes it says it holds; undefined where it does not. */
  readonly content: number | undefined;
  /** Holds nothing, by its kind. */
  readonly skippable: boolean;
}

/** The frame at `start` of `bytes`; undefined when there is none, or it is not whole. */
export function frameShape(bytes: Uint8Array, start: number): FrameShape | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = bytes.length;
  if (start + 8 > end) return undefined;
  const magic = view.getUint32(start, true);
  if ((magic & 0xffff_fff0) >>> 0 === SKIPPABLE_MAGIC) {
    const length = 8 + view.getUint32(start + 4, true);
    return start + length <= end ? { length, content: 0, skippable: true } : undefined;
  }
  if (magic !== FRAME_MAGIC) return undefined;
  const descriptor = view.getUint8(start + 4);
  const single = (descriptor & 0x20) !== 0;
  const contentBytes = [single ? 1 : 0, 2, 4, 8][descriptor >>> 6]!;
  const contentAt = start + 5 + (single ? 0 : 1) + [0, 1, 2, 4][descriptor & 3]!;
  let at = contentAt + contentBytes;
  if (at > end) return undefined;
  const content = contentSize(view, contentAt, contentBytes);
  for (;;) {
    if (at + 3 > end) return undefined;
    const header = view.getUint16(at, true) | (view.getUint8(at + 2) << 16);
    const type = (header >>> 1) & 3;
    if (type === BLOCK_RESERVED) return undefined;
    at += 3 + (type === BLOCK_RLE ? 1 : header >>> 3);
    if (at > end) return undefined;
    if ((header & 1) !== 0) break;
  }
  if ((descriptor & 4) !== 0) at += 4;
  return at <= end ? { length: at - start, content, skippable: false } : undefined;
}

function contentSize(view: DataView, at: number, bytes: number): number | undefined {
  switch (bytes) {
    case 0:
      return undefined;
    case 1:
      return view.getUint8(at);
    case 2:
      // Two bytes begin where one byte ends.
      return view.getUint16(at, true) + 256;
    case 4:
      return view.getUint32(at, true);
    default:
      return view.getUint32(at, true) + view.getUint32(at + 4, true) * 0x1_0000_0000;
  }
}
