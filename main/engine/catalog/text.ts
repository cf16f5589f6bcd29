/** Names as backups record them, made fit to be shown. */

/**
 * A name on one line, of at most 1,024 characters. Control characters and marks of writing direction, which a terminal or a list
 * would act upon, become spaces.
 */
export function oneLine(text: string): string {
  return text
    .replace(/[\p{Cc}\u2028-\u202e\u2066-\u2069]+/gu, ' ')
    .trim()
    .slice(0, 1_024);
}
