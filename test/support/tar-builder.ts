/**
 * Writes tars as the dialects do: V7, POSIX ustar, pax (POSIX.1-2001) and GNU. Fields as in the POSIX `pax` utility's "ustar
 * Interchange Format" and the GNU tar manual's "Basic Tar Format".
 */
export const BLOCK = 512;

export interface TarMember {
  readonly name: string;
  readonly content?: Uint8Array;
  readonly type?: string;
  /** Seconds since 1970. */
  readonly mtime?: number;
  /** What the header says, where it is not the content's length. */
  readonly size?: number;
  /** GNU: the size in base 256. */
  readonly base256?: boolean;
  /** POSIX prefix field. */
  readonly prefix?: string;
  readonly format?: 'ustar' | 'v7' | 'gnu';
  /** Records of a pax header before it. */
  readonly pax?: Readonly<Record<string, string>>;
  /** GNU: the name goes into an `L` member before it. */
  readonly longName?: boolean;
  readonly link?: string;
  /** Changes the header before its checksum is put in. */
  readonly patch?: (header: Buffer) => void;
  readonly breakChecksum?: boolean;
}

export function tarHeader(member: TarMember): Buffer {
  const header = Buffer.alloc(BLOCK);
  const { name, type = '0', mtime = 0, format = 'ustar' } = member;
  const size = member.size ?? member.content?.length ?? 0;
  Buffer.from(name, 'utf8').copy(header, 0, 0, 100);
  header.write('0000644\0', 100, 'latin1');
  header.write('0000000\0', 108, 'latin1');
  header.write('0000000\0', 116, 'latin1');
  if (member.base256) {
    header.writeBigUInt64BE(BigInt(size), 128);
    header[124] = 0x80;
  } else {
    header.write(`${size.toString(8).padStart(11, '0')}\0`, 124, 'latin1');
  }
  header.write(`${mtime.toString(8).padStart(11, '0')}\0`, 136, 'latin1');
  header.write(format === 'v7' && type === '0' ? '\0' : type, 156, 'latin1');
  if (member.link !== undefined) header.write(member.link, 157, 'utf8');
  if (format === 'ustar') header.write('ustar\x0000', 257, 'latin1');
  if (format === 'gnu') header.write('ustar  \0', 257, 'latin1');
  if (member.prefix !== undefined) header.write(member.prefix, 345, 'utf8');
  member.patch?.(header);
  header.fill(0x20, 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0) + (member.breakChecksum ? 1 : 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return header;
}

function padding(length: number): Buffer {
  return Buffer.alloc((BLOCK - (length % BLOCK)) % BLOCK);
}

/** `<length> <key>=<value>\n`, the length counting itself. */
export function paxRecord(key: string, value: string): Buffer {
  const rest = Buffer.from(` ${key}=${value}\n`, 'utf8');
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return Buffer.concat([Buffer.from(String(length), 'latin1'), rest]);
}

export function tarMember(member: TarMember): Buffer {
  const parts: Uint8Array[] = [];
  if (member.pax !== undefined) {
    const body = Buffer.concat(Object.entries(member.pax).map(([key, value]) => paxRecord(key, value)));
    parts.push(tarMember({ name: 'PaxHeaders/x', type: 'x', content: body }));
  }
  if (member.longName) {
    parts.push(
      tarMember({
        name: '././@LongLink',
        type: 'L',
        content: Buffer.from(`${member.name}\0`, 'utf8'),
        format: 'gnu',
      }),
    );
  }
  const content = member.content ?? new Uint8Array(0);
  parts.push(tarHeader(member), content, padding(content.length));
  return Buffer.concat(parts);
}

/** A whole tar, with the two blocks of zeros that end it and, as GNU tar does it, filled up to 10 KiB. */
export function buildTar(members: readonly TarMember[], options: { end?: boolean } = {}): Buffer {
  const body = Buffer.concat(members.map(tarMember));
  if (options.end === false) return body;
  const whole = Buffer.concat([body, Buffer.alloc(2 * BLOCK)]);
  return Buffer.concat([whole, Buffer.alloc((10_240 - (whole.length % 10_240)) % 10_240)]);
}
