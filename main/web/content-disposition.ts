/**
 * `Content-Disposition: attachment` for a guest file's name, which is hostile: RFC 6266 with the UTF-8 form of RFC 8187 and
 * an ASCII form for what does not know it. The name is made safe for every system a browser may run on, so that no browser's
 * own containment has to be relied on.
 */

const maxNameBytes = 200;
/** Device names of Windows, which are no file names with any ending. */
const deviceName = /^(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(?=\.|$)/i;

/** The file name to save a guest file under: one component, printable, valid on every system, at most 200 bytes of UTF-8. */
export function downloadName(guestName: string): string {
  let name = guestName
    .toWellFormed()
    .normalize('NFC')
    // Separators, wildcards and quotes of any system; control characters; invisible and direction-changing characters, which make
    // `gpj.exe` look like `exe.jpg`.
    .replace(/[/\\:*?"<>|]|\p{Cc}|\p{Bidi_Control}|[\u2028\u2029\ufeff\u{e0000}-\u{e007f}]/gu, '_')
    .trim();
  name = name.replace(/[. ]+$/u, '').replace(/^\.+$/u, '');
  if (name === '') return 'download';
  if (deviceName.test(name)) name = `_${name}`;
  if (Buffer.byteLength(name, 'utf8') <= maxNameBytes) return name;
  // The ending says what the file is: shorten before it, unless it is no ending.
  const dot = name.lastIndexOf('.');
  const ending = dot > 0 && name.length - dot <= 16 ? name.slice(dot) : '';
  return cut(name.slice(0, name.length - ending.length), maxNameBytes - Buffer.byteLength(ending, 'utf8')) + ending;
}

/** The longest beginning of whole characters within `bytes` bytes of UTF-8. */
function cut(text: string, bytes: number): string {
  let used = 0;
  let result = '';
  for (const character of text) {
    used += Buffer.byteLength(character, 'utf8');
    if (used > bytes) break;
    result += character;
  }
  return result;
}

/** The header's value for a guest file's name. */
export function contentDisposition(guestName: string): string {
  const name = downloadName(guestName);
  // RFC 6266 appendix D: `%` is left out of the ASCII form too, since some browsers decode it there.
  const ascii = name.replace(/[^\x20-\x7e]|[%"\\]/gu, '_');
  // RFC 8187 attr-char; encodeURIComponent leaves ' ( ) * as they are, which are not in it.
  const encoded = encodeURIComponent(name).replace(
    /['()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  return `attachment; filename="${ascii}"; filename*=UTF-8''${encoded}`;
}
