/**
 * Guest names as Unicode, reversibly. A name that is valid UTF-8 is shown as it is. A byte that is not part of valid UTF-8
 * becomes `\xHH` (always 80..ff, for ASCII is never invalid); so that nothing else can look like one, a backslash that stands
 * before `x5c` or `x80`..`xff` is itself written `\x5c`. Names such as systemd's `a\x2db` are thus left alone.
 * UTF-16 names (FAT) have the same rule for lone surrogates: `\ud83d`, with `\u005c` for a backslash that could be mistaken.
 */

let decoder: InstanceType<typeof TextDecoder> | undefined;
/** Decodes UTF-8 or throws. Made when the first name needs it: most names are ASCII. */
function strict(bytes: Uint8Array): string {
  decoder ??= new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  return decoder.decode(bytes);
}
const hex = (n: number, width: number): string => n.toString(16).padStart(width, '0');

/** A name stored as bytes (ext, XFS, Btrfs), as Unicode. */
export function nameFromBytes(bytes: Uint8Array): string {
  let ascii = true;
  let backslash = false;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i]!;
    if (byte >= 0x80) {
      ascii = false;
      break;
    }
    if (byte === 0x5c) backslash = true;
  }
  if (ascii) {
    const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
    return backslash ? protect(text) : text;
  }
  try {
    return protect(strict(bytes));
  } catch {
    // Not valid as a whole: take the valid stretches and escape the bytes between them.
  }
  let text = '';
  let start = 0;
  while (start < bytes.length) {
    const length = validSequence(bytes, start);
    if (length === 0) {
      text += `\\x${hex(bytes[start]!, 2)}`;
      start++;
    } else {
      let end = start + length;
      for (let next = validSequence(bytes, end); next > 0; next = validSequence(bytes, end)) end += next;
      text += protect(strict(bytes.subarray(start, end)));
      start = end;
    }
  }
  return text;
}

/** The bytes that `nameFromBytes` shows as `name`. */
export function nameToBytes(name: string): Uint8Array {
  const parts: Uint8Array[] = [];
  let last = 0;
  for (const match of name.matchAll(/\\x(5c|[89a-f][0-9a-f])/g)) {
    parts.push(Buffer.from(name.slice(last, match.index), 'utf8'), Uint8Array.of(Number.parseInt(match[1]!, 16)));
    last = match.index + match[0].length;
  }
  parts.push(Buffer.from(name.slice(last), 'utf8'));
  return new Uint8Array(Buffer.concat(parts));
}

/** A name stored as UTF-16 code units (FAT, NTFS), as Unicode. */
export function nameFromUtf16(text: string): string {
  const guarded = text.replace(/\\(?=u(005c|d[89a-f][0-9a-f]{2}))/g, '\\u005c');
  return guarded.isWellFormed()
    ? guarded
    : guarded.replace(
        /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g,
        (unit) => `\\u${hex(unit.charCodeAt(0), 4)}`,
      );
}

function protect(text: string): string {
  return text.includes('\\') ? text.replace(/\\(?=x(5c|[89a-f][0-9a-f]))/g, '\\x5c') : text;
}

/** Length of the valid UTF-8 sequence at `at` (Unicode 15, table 3-7), 0 when there is none. */
function validSequence(bytes: Uint8Array, at: number): number {
  const b0 = bytes[at];
  if (b0 === undefined) return 0;
  if (b0 < 0x80) return 1;
  const tail = (i: number, low = 0x80, high = 0xbf): boolean => {
    const byte = bytes[at + i];
    return byte !== undefined && byte >= low && byte <= high;
  };
  if (b0 >= 0xc2 && b0 <= 0xdf) return tail(1) ? 2 : 0;
  if (b0 >= 0xe0 && b0 <= 0xef) {
    const low = b0 === 0xe0 ? 0xa0 : 0x80;
    const high = b0 === 0xed ? 0x9f : 0xbf;
    return tail(1, low, high) && tail(2) ? 3 : 0;
  }
  if (b0 >= 0xf0 && b0 <= 0xf4) {
    const low = b0 === 0xf0 ? 0x90 : 0x80;
    const high = b0 === 0xf4 ? 0x8f : 0xbf;
    return tail(1, low, high) && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}
