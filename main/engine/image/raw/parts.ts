/**
 * Names of the parts of a split raw image: `disk.001` `disk.002`..., `disk.raw.000` `disk.raw.001`..., `disk.img.aa`
 * `disk.img.ab`... The scheme is that of dd, split, FTK Imager and EnCase's raw export; no header tells a part, only its name.
 */

export interface PartName {
  /** What all parts of the image begin with: `disk.raw`. */
  readonly stem: string;
  readonly kind: 'digits' | 'letters';
  /** Characters of the number. */
  readonly width: number;
  readonly number: number;
}

/**
 * The part that a file's name may mean; undefined for other names. Whether it is one, its neighbours say: a single `disk.aa` is a
 * part as little as `disk.gz`.
 */
export function partName(fileName: string): PartName | undefined {
  const digits = /^(.+)\.(\d{2,6})$/.exec(fileName);
  if (digits !== null) {
    return { stem: digits[1]!, kind: 'digits', width: digits[2]!.length, number: Number(digits[2]) };
  }
  const letters = /^(.+)\.([a-z]{2,4})$/.exec(fileName);
  if (letters === null) return undefined;
  const text = letters[2]!;
  return { stem: letters[1]!, kind: 'letters', width: text.length, number: lettersToNumber(text) };
}

function lettersToNumber(text: string): number {
  let value = 0;
  for (const letter of text) value = value * 26 + (letter.charCodeAt(0) - 97);
  return value;
}

/** File name of part `number` of the same image. */
export function partAt(part: PartName, number: number): string {
  if (part.kind === 'digits') return `${part.stem}.${String(number).padStart(part.width, '0')}`;
  let text = '';
  for (let rest = number, at = 0; at < part.width; at++, rest = Math.floor(rest / 26)) {
    text = String.fromCharCode(97 + (rest % 26)) + text;
  }
  return `${part.stem}.${text}`;
}

/** Endings before a number that mean something else: volumes of archives, logs that are rotated, releases. */
const NO_DISK = /\.(7z|zip|rar|tar|t?gz|bz2|xz|zst|cab|log|txt|journal|so|deb|rpm|\d{1,3})$/i;

/** True for a name that by itself means the first part of a split raw image: `disk.001`, `disk.raw.000`, `disk.img.aa`. */
export function isFirstPartName(fileName: string): boolean {
  const part = partName(fileName);
  if (part === undefined || NO_DISK.test(part.stem)) return false;
  if (part.kind === 'letters') return part.number === 0;
  return part.width >= 3 && part.number <= 1;
}

/** True for a name that by itself means a further part: `disk.002`. (Letters don't: most are the ending of something else.) */
export function isLaterPartName(fileName: string): boolean {
  const part = partName(fileName);
  return part?.kind === 'digits' && part.width >= 3 && part.number > 1 && !NO_DISK.test(part.stem);
}

/** True for a part whose stem says raw: `disk.raw.000`. */
export function isPartOfRaw(fileName: string): boolean {
  if (!isFirstPartName(fileName) && !isLaterPartName(fileName)) return false;
  return /\.(raw|dd|iso|splitraw)$/i.test(partName(fileName)!.stem);
}
