/**
 * What a file's first bytes are, for the preview: text, an image that a browser decodes itself, or bytes. HTML and SVG are text:
 * nothing that comes out of a backup is ever rendered as markup.
 */

export type Content =
  | { readonly kind: 'empty' }
  | { readonly kind: 'text'; readonly lines: readonly string[]; readonly encoding: string; readonly cut: boolean }
  | { readonly kind: 'image'; readonly type: 'image/png' | 'image/jpeg' | 'image/gif' | 'image/webp' }
  | { readonly kind: 'binary' };

const MAX_LINES = 5_000;
const MAX_LINE = 2_000;

const startsWith = (bytes: Uint8Array, signature: readonly number[], at = 0) =>
  signature.every((byte, index) => bytes[at + index] === byte);

export function contentOf(bytes: Uint8Array, truncated: boolean): Content {
  if (bytes.length === 0) return { kind: 'empty' };
  const type = imageType(bytes);
  if (type !== undefined) return { kind: 'image', type };
  const text = decodeText(bytes, truncated);
  if (text === undefined) return { kind: 'binary' };
  const lines = text.value.split(/\r\n|\n|\r/);
  if (lines.length > 1 && lines.at(-1) === '') lines.pop();
  const cut = lines.length > MAX_LINES || lines.some((line) => line.length > MAX_LINE);
  const shown = lines
    .slice(0, MAX_LINES)
    .map((line) => (line.length > MAX_LINE ? `${line.slice(0, MAX_LINE)}…` : line));
  return { kind: 'text', lines: shown, encoding: text.encoding, cut };
}

function imageType(bytes: Uint8Array) {
  if (startsWith(bytes, [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a])) return 'image/png';
  if (startsWith(bytes, [0xff, 0xd8, 0xff])) return 'image/jpeg';
  if (startsWith(bytes, [0x47, 0x49, 0x46, 0x38])) return 'image/gif';
  if (startsWith(bytes, [0x52, 0x49, 0x46, 0x46]) && startsWith(bytes, [0x57, 0x45, 0x42, 0x50], 8))
    return 'image/webp';
  return undefined;
}

function decodeText(bytes: Uint8Array, truncated: boolean): { value: string; encoding: string } | undefined {
  if (startsWith(bytes, [0xff, 0xfe])) return strict(bytes, 'utf-16le', 'UTF-16 LE', truncated);
  if (startsWith(bytes, [0xfe, 0xff])) return strict(bytes, 'utf-16be', 'UTF-16 BE', truncated);
  // A NUL, or many control characters, is what text never has.
  let control = 0;
  for (const byte of bytes) {
    if (byte === 0) return undefined;
    if (byte < 0x20 && byte !== 0x09 && byte !== 0x0a && byte !== 0x0d && byte !== 0x0c && byte !== 0x1b) control += 1;
  }
  if (control * 50 > bytes.length) return undefined;
  const utf8 = strict(bytes, 'utf-8', 'UTF-8', truncated);
  if (utf8 !== undefined) return utf8;
  let high = 0;
  for (const byte of bytes) if (byte >= 0x80) high += 1;
  if (high * 4 > bytes.length) return undefined;
  return { value: new TextDecoder('windows-1252').decode(bytes), encoding: 'Windows-1252' };
}

function strict(bytes: Uint8Array, label: string, encoding: string, truncated: boolean) {
  try {
    // `stream` lets a character be cut off at the end of what was asked for.
    return { value: new TextDecoder(label, { fatal: true }).decode(bytes, { stream: truncated }), encoding };
  } catch {
    return undefined; // Not this encoding, which is the question that was asked.
  }
}

/** Bytes in a line: what the inspector is wide enough for. */
const HEX_WIDTH = 8;

/** `00000008  48 65 6c 6c 6f ...  Hello` in three parts. */
export function hexLines(bytes: Uint8Array, limit: number): { offset: string; hex: string; text: string }[] {
  const lines = [];
  for (let at = 0; at < Math.min(bytes.length, limit); at += HEX_WIDTH) {
    const row = [...bytes.subarray(at, at + HEX_WIDTH)];
    const cells = row.map((byte) => byte.toString(16).padStart(2, '0'));
    lines.push({
      offset: at.toString(16).padStart(8, '0'),
      hex: cells.join(' ').padEnd(HEX_WIDTH * 3 - 1),
      text: row.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.')).join(''),
    });
  }
  return lines;
}
