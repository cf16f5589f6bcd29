/** Text as images and their configurations hold it. */

/** A UUID or GUID, in lower case without its braces; undefined for what is none. */
export function uuidIn(text: string | undefined): string | undefined {
  const match = /^\{?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\}?$/i.exec(text?.trim() ?? '');
  return match?.[1]?.toLowerCase();
}

/** UTF-16 up to the first NUL; what is no text (half a surrogate pair) becomes U+FFFD. */
export function utf16(bytes: Uint8Array, order: 'utf-16le' | 'utf-16be' = 'utf-16le'): string {
  return untilNul(new TextDecoder(order).decode(bytes.subarray(0, bytes.length - (bytes.length % 2))));
}

/** What stands before the first NUL. */
export function untilNul(text: string): string {
  const end = text.indexOf('\0');
  return end < 0 ? text : text.slice(0, end);
}
