/**
 * The character sets that `encoding=` of a VMDK descriptor names. VMware writes the code page of the host that made the disk,
 * under the names of ICU and Windows; the platform's TextDecoder knows the WHATWG names (https://encoding.spec.whatwg.org).
 *
 * Only sets whose line feeds, quotes and digits are ASCII's are read, because the descriptor is cut into lines before it is
 * decoded, so that an error can name the byte where it is.
 */
import { isAscii } from 'node:buffer';
import { TextDecoder } from 'node:util';
import { UnsupportedError } from '../../errors.ts';

/** Names that hosts write and the standard does not list. */
const ALIASES: Readonly<Record<string, string>> = {
  cp65001: 'utf-8',
  'windows-65001': 'utf-8',
  'windows-932': 'shift_jis',
  cp932: 'shift_jis',
  ms932: 'shift_jis',
  'ibm-943': 'shift_jis',
  'windows-936': 'gbk',
  cp936: 'gbk',
  ms936: 'gbk',
  'windows-54936': 'gb18030',
  'windows-949': 'euc-kr',
  cp949: 'euc-kr',
  'windows-950': 'big5',
  cp950: 'big5',
  'windows-51932': 'euc-jp',
  'windows-28591': 'iso-8859-1',
};

/** Sets in which a byte of ASCII's value may mean something else. */
const NOT_ASCII: ReadonlySet<string> = new Set([
  'utf-16le',
  'utf-16be',
  'iso-2022-jp',
  'replacement',
  'x-user-defined',
]);

/** Turns one line's bytes into text. @throws TypeError on bytes that are not text in its set. */
export type LineDecoder = (bytes: Uint8Array) => string;

/** The decoder for a recorded name. @throws UnsupportedError for a set that is not read. */
export function descriptorDecoder(encoding: string, source: string): LineDecoder {
  const wanted = encoding.trim().toLowerCase();
  // Nearly every descriptor says UTF-8 and is ASCII: then no decoder is made.
  let decoder = wanted === 'utf-8' ? undefined : openDecoder(encoding, wanted, source);
  return (bytes) => {
    if (isAscii(bytes)) return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
    decoder ??= openDecoder(encoding, wanted, source);
    // In two calls because Node 20 takes windows-1252 for Latin-1 when it is given everything in one, and so loses the euro
    // sign, quotes and dashes.
    return decoder.decode(bytes, { stream: true }) + decoder.decode();
  };
}

function openDecoder(encoding: string, wanted: string, source: string): TextDecoder {
  let decoder: TextDecoder | undefined;
  try {
    decoder = new TextDecoder(ALIASES[wanted] ?? wanted, { fatal: true });
  } catch (error) {
    // The constructor's answer to a name it does not know; anything else is not expected here.
    if (!(error instanceof RangeError)) throw error;
  }
  if (decoder === undefined || NOT_ASCII.has(decoder.encoding)) {
    throw new UnsupportedError(`VMDK descriptor encoding "${encoding.slice(0, 64)}"`, { source });
  }
  return decoder;
}
