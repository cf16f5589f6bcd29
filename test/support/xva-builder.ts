/**
 * Writes XenServer exports (XVA) as XAPI does: `ova.xml`, then for each disk its chunks of 1 MiB, each followed by its checksum;
 * blocks of zeros left out, the first and the last always there. See "The XenServer VM import/format" in XAPI's documentation and
 * ocaml/xapi/{export,stream_vdi}.ml of https://github.com/xapi-project/xen-api.
 */
import { createHash } from 'node:crypto';
import { buildTar, type TarMember } from './tar-builder.ts';
import { xxh64Reference } from './xxh64-reference.ts';

export const CHUNK = 1 << 20;

/** An XML-RPC value as XAPI writes it: text has no type, numbers are text, booleans are typed. `Date` is `dateTime.iso8601`. */
export type RpcValue = string | number | boolean | Date | readonly RpcValue[] | { readonly [field: string]: RpcValue };

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}

export function rpcValue(value: RpcValue): string {
  if (typeof value === 'string') return value === '' ? '<value/>' : `<value>${escaped(value)}</value>`;
  if (typeof value === 'number') return `<value>${value}</value>`;
  if (typeof value === 'boolean') return `<value><boolean>${value ? 1 : 0}</boolean></value>`;
  if (value instanceof Date) {
    const text = value
      .toISOString()
      .replaceAll('-', '')
      .replace(/\.\d+Z$/, 'Z');
    return `<value><dateTime.iso8601>${text}</dateTime.iso8601></value>`;
  }
  if (Array.isArray(value)) {
    return `<value><array><data>${(value as readonly RpcValue[]).map(rpcValue).join('')}</data></array></value>`;
  }
  const members = Object.entries(value).map(
    ([name, field]) => `<member><name>${escaped(name)}</name>${rpcValue(field as RpcValue)}</member>`,
  );
  return `<value><struct>${members.join('')}</struct></value>`;
}

export interface XenRecordOf {
  readonly class: string;
  readonly id: string;
  readonly snapshot: { readonly [field: string]: RpcValue };
}

export interface XvaOptions {
  readonly exportVersion?: number;
  readonly productVersion?: string;
}

/** The text of an `ova.xml`. */
export function ovaXml(objects: readonly XenRecordOf[], options: XvaOptions = {}): string {
  return rpcValue({
    version: {
      hostname: 'xen-host-1',
      date: '2024-05-17',
      product_version: options.productVersion ?? '8.2.1',
      product_brand: 'XenServer',
      build_number: 'release/yangtze/master/58',
      xapi_major: 1,
      xapi_minor: 20,
      export_vsn: options.exportVersion ?? 2,
    },
    objects: objects.map((object) => ({ class: object.class, id: object.id, snapshot: object.snapshot })),
  });
}

/** The record of a disk. */
export function vdiRecord(id: string, size: number, fields: { readonly [field: string]: RpcValue } = {}): XenRecordOf {
  return {
    class: 'VDI',
    id,
    snapshot: {
      uuid: `00000000-0000-4000-8000-${id.replace(/\D/g, '').padStart(12, '0')}`,
      name_label: `disk ${id}`,
      name_description: '',
      allowed_operations: [],
      SR: 'Ref:90',
      VBDs: [],
      virtual_size: size,
      physical_utilisation: size,
      type: 'user',
      sharable: false,
      read_only: false,
      other_config: {},
      is_a_snapshot: false,
      snapshot_of: 'OpaqueRef:NULL',
      snapshot_time: new Date(0),
      sm_config: {},
      ...fields,
    },
  };
}

export interface XvaDisk {
  readonly id: string;
  /** The whole disk. */
  readonly content: Uint8Array;
  readonly checksum?: 'sha1' | 'xxhash' | 'none';
  /** Blocks before which the exporter sends an empty chunk to keep its connection open. */
  readonly idleBefore?: readonly number[];
  /** Blocks of zeros that are sent all the same, as exporters do that know only what is allocated. */
  readonly sendZeros?: readonly number[];
  readonly chunkBytes?: number;
}

/** The members of a disk. */
export function diskMembers(disk: XvaDisk): TarMember[] {
  const { id, content, checksum = 'xxhash', idleBefore = [], sendZeros = [], chunkBytes = CHUNK } = disk;
  const members: TarMember[] = [];
  let number = 0;
  const put = (bytes: Uint8Array): void => {
    const name = `${id}/${String(number++).padStart(8, '0')}`;
    members.push({ name, content: bytes });
    if (checksum === 'sha1') {
      const sum = createHash('sha1').update(bytes).digest('hex');
      members.push({ name: `${name}.checksum`, content: Buffer.from(sum) });
    } else if (checksum === 'xxhash') {
      members.push({ name: `${name}.xxhash`, content: Buffer.from(xxh64Reference(bytes).toUpperCase()) });
    }
  };
  const last = Math.ceil(content.length / chunkBytes) - 1;
  for (let block = 0; block <= last; block++) {
    if (idleBefore.includes(block)) put(new Uint8Array(0));
    const bytes = content.subarray(block * chunkBytes, (block + 1) * chunkBytes);
    if (block === 0 || block === last || sendZeros.includes(block) || bytes.some((byte) => byte !== 0)) put(bytes);
    else number++;
  }
  return members;
}

/** A whole export. @param objects all records but those of the disks, which are made where they are missing. */
export function buildXva(
  disks: readonly XvaDisk[],
  objects: readonly XenRecordOf[] = [],
  options: XvaOptions & { readonly end?: boolean } = {},
): Buffer {
  const described = new Set(objects.map(({ id }) => id));
  const all = [
    ...objects,
    ...disks.filter(({ id }) => !described.has(id)).map(({ id, content }) => vdiRecord(id, content.length)),
  ];
  return buildTar(
    [{ name: 'ova.xml', content: Buffer.from(ovaXml(all, options), 'utf8') }, ...disks.flatMap(diskMembers)],
    options,
  );
}
