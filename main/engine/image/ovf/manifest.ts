/**
 * The manifest of an OVF package (`web01.mf`): one line for each file with its digest, `SHA256(web01-disk1.vmdk)= 9f86d0...`.
 * Source: DMTF DSP0243, "Manifest file" (section 5.1 of version 1.1, 6.2 of version 2.1). Writers put blanks where the specification has
 * none (before the name in parentheses, around the equals sign); both are read.
 */

/** Larger ones are none: a package has some tens of files. */
export const MAX_MANIFEST_BYTES = 1 << 20;

export interface ManifestEntry {
  /** As Node's crypto calls it: `sha256`. Undefined for one that is not known. */
  readonly algorithm: string | undefined;
  /** As it is written. */
  readonly algorithmName: string;
  /** Relative to the manifest. */
  readonly name: string;
  /** Lower-case hexadecimal digits. */
  readonly digest: string;
  /** From 1. */
  readonly line: number;
}

export interface Manifest {
  readonly entries: readonly ManifestEntry[];
  /** Numbers of lines that are neither empty nor an entry. */
  readonly unreadable: readonly number[];
}

/** Hexadecimal digits of each digest. */
const DIGITS: Readonly<Record<string, number>> = { sha1: 40, sha224: 56, sha256: 64, sha384: 96, sha512: 128 };

export function parseManifest(text: string): Manifest {
  const entries: ManifestEntry[] = [];
  const unreadable: number[] = [];
  for (const [at, line] of text
    .replace(/^\ufeff/, '')
    .split(/\r\n|\n|\r/)
    .entries()) {
    if (line.trim() === '') continue;
    const match = /^\s*([A-Za-z0-9/-]{1,20})\s*\((.+)\)\s*=\s*([0-9A-Fa-f]+)\s*$/.exec(line);
    if (match === null) {
      unreadable.push(at + 1);
      continue;
    }
    const algorithmName = match[1]!;
    const algorithm = algorithmName.toLowerCase().replaceAll('-', '');
    const digest = match[3]!.toLowerCase();
    const known = DIGITS[algorithm];
    if (known !== undefined && digest.length !== known) {
      unreadable.push(at + 1);
      continue;
    }
    entries.push({
      algorithm: known === undefined ? undefined : algorithm,
      algorithmName,
      name: match[2]!,
      digest,
      line: at + 1,
    });
  }
  return { entries, unreadable };
}
