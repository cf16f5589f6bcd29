/** The exports of a server, by name. The first is also the default, which clients ask for by the empty name. */
import { UsageError } from '../errors.ts';
import { MAX_STRING } from './protocol.ts';

export interface ExportEntry {
  readonly name: string;
  /** One line for people: `web01, before update, disk 0`. */
  readonly description: string;
  readonly size: number;
}

export class ExportDirectory {
  readonly entries: readonly ExportEntry[];
  readonly #byName = new Map<string, number>();

  /** @throws UsageError as `checkExportNames`. */
  constructor(entries: readonly ExportEntry[]) {
    checkExportNames(entries);
    this.entries = entries;
    for (const [index, entry] of entries.entries()) this.#byName.set(entry.name, index);
    if (!this.#byName.has('')) this.#byName.set('', 0);
  }

  /** Index of the export that a client's name means, or undefined. */
  find(name: string): number | undefined {
    return this.#byName.get(name);
  }
}

/** Names and descriptions that the protocol can carry. @throws UsageError for none, two of one name, too long, or a NUL. */
export function checkExportNames(entries: readonly { readonly name: string; readonly description: string }[]): void {
  if (entries.length === 0) throw new UsageError('An NBD server needs an export');
  if (entries.length > 1024) throw new UsageError('An NBD server serves at most 1,024 exports');
  const seen = new Set<string>();
  for (const { name, description } of entries) {
    if (seen.has(name)) throw new UsageError(`Two exports are named "${name}"`);
    seen.add(name);
    for (const text of [name, description]) {
      if (text.includes('\0') || Buffer.byteLength(text) > MAX_STRING) {
        throw new UsageError(`Export name or description with a NUL or longer than ${MAX_STRING} bytes`);
      }
    }
  }
}
