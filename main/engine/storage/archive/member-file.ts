/** A member of an archive as a file: a window over the archive's stream, with a path and a time. */
import { type ByteSource, Window } from '../byte-source.ts';
import type { OpenFile } from './archive.ts';

export class MemberFile extends Window implements OpenFile {
  readonly path: string;
  readonly modified: number;

  /** @param at where the content lies in `stream`; the range must be inside it. */
  constructor(
    stream: ByteSource,
    at: { readonly position: number; readonly size: number; readonly modified: number },
    path: string,
    label: string,
  ) {
    super(stream, at.position, at.size, label);
    this.path = path;
    this.modified = at.modified;
  }
}
