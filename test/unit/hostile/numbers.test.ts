/**
 * Sizes, counts, offsets and block sizes that no image has: every field of every header with every number that tends to find a missing
 * check, and the worst of them by name, with what each must come to.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openChain } from '../../../main/engine/chain/open.ts';
import { verifyChain } from '../../../main/engine/chain/verify.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { buildTar } from '../../support/tar-builder.ts';
import { sumFooter, sumHeader } from '../../support/vhd-builder.ts';
import { seal } from '../../support/vhdx-builder.ts';
import { descriptorText } from '../../support/vmdk-builder.ts';
import { ovaXml, vdiRecord } from '../../support/xva-builder.ts';
import { attack, refusal, scan, withinBounds } from './attack.ts';
import {
  type Fixture,
  fresh,
  parallelsAlone,
  parallelsFolder,
  qcow,
  qcow2v2,
  qcow2v3,
  qcow2Zstd,
  vdiDynamic,
  vhdDifferencing,
  vhdDynamic,
  vhdFixed,
  vhdxDifferencing,
  vhdxDynamic,
  vmdkCowd,
  vmdkSeSparse,
  vmdkSparse,
  vmdkStream,
} from './fixtures.ts';

/** Name, position, bytes. */
type Field = readonly [string, number, 1 | 2 | 4 | 8];

interface Numbered {
  readonly fixture: Fixture;
  readonly big: boolean;
  /** Positions are counted from here; the end of the file where it is negative. */
  readonly fields: readonly Field[];
  /** Makes the checksums right again. */
  readonly seal?: (bytes: Buffer) => void;
}

const vmdkFields: readonly Field[] = [
  ['version', 4, 4],
  ['flags', 8, 4],
  ['capacity', 12, 8],
  ['grainSize', 20, 8],
  ['descriptorOffset', 28, 8],
  ['descriptorSize', 36, 8],
  ['numGTEsPerGT', 44, 4],
  ['rgdOffset', 48, 8],
  ['gdOffset', 56, 8],
  ['overHead', 64, 8],
  ['compressAlgorithm', 77, 2],
];
const qcow2Fields: readonly Field[] = [
  ['version', 4, 4],
  ['backing_file_offset', 8, 8],
  ['backing_file_size', 16, 4],
  ['cluster_bits', 20, 4],
  ['size', 24, 8],
  ['crypt_method', 32, 4],
  ['l1_size', 36, 4],
  ['l1_table_offset', 40, 8],
  ['refcount_table_offset', 48, 8],
  ['refcount_table_clusters', 56, 4],
  ['nb_snapshots', 60, 4],
  ['snapshots_offset', 64, 8],
  ['incompatible_features', 72, 8],
  ['compatible_features', 80, 8],
  ['autoclear_features', 88, 8],
  ['refcount_order', 96, 4],
  ['header_length', 100, 4],
  ['first extension', 112, 4],
  ['its length', 116, 4],
];
const KIB = 1024;
const vhdxHeader: readonly Field[] = [64 * KIB, 128 * KIB].flatMap((at): Field[] => [
  ['SequenceNumber', at + 8, 8],
  ['LogVersion', at + 64, 2],
  ['Version', at + 66, 2],
  ['LogLength', at + 68, 4],
  ['LogOffset', at + 72, 8],
]);
const METADATA = 2 << 20;
const vhdxFields: readonly Field[] = [
  ...vhdxHeader,
  ['EntryCount of regions', 192 * KIB + 8, 4],
  ['FileOffset of the BAT', 192 * KIB + 32, 8],
  ['Length of the BAT', 192 * KIB + 40, 4],
  ['FileOffset of the metadata', 192 * KIB + 64, 8],
  ['Length of the metadata', 192 * KIB + 72, 4],
  ['EntryCount of metadata', METADATA + 10, 2],
  ...Array.from({ length: 6 }, (_, i): Field[] => [
    [`Offset of item ${i}`, METADATA + 32 + i * 32 + 16, 4],
    [`Length of item ${i}`, METADATA + 32 + i * 32 + 20, 4],
    [`flags of item ${i}`, METADATA + 32 + i * 32 + 24, 4],
  ]).flat(),
  ['BlockSize', METADATA + 64 * KIB, 4],
  ['flags', METADATA + 64 * KIB + 4, 4],
  ['VirtualDiskSize', METADATA + 64 * KIB + 8, 8],
  ['LogicalSectorSize', METADATA + 64 * KIB + 16, 4],
  ['PhysicalSectorSize', METADATA + 64 * KIB + 20, 4],
  ['first BAT entry', 3 << 20, 8],
];
const locatorFields: readonly Field[] = [
  ['KeyValueCount', METADATA + 64 * KIB + 40 + 18, 2],
  ['KeyOffset', METADATA + 64 * KIB + 40 + 20, 4],
  ['ValueOffset', METADATA + 64 * KIB + 40 + 24, 4],
  ['KeyLength', METADATA + 64 * KIB + 40 + 28, 2],
  ['ValueLength', METADATA + 64 * KIB + 40 + 30, 2],
];
const footerFields: readonly Field[] = [
  ['features', 8, 4],
  ['file format version', 12, 4],
  ['data offset', 16, 8],
  ['time stamp', 24, 4],
  ['original size', 40, 8],
  ['current size', 48, 8],
  ['geometry', 56, 4],
  ['disk type', 60, 4],
];
const dynamicFields: readonly Field[] = [
  ['data offset', 512 + 8, 8],
  ['table offset', 512 + 16, 8],
  ['header version', 512 + 24, 4],
  ['max table entries', 512 + 28, 4],
  ['block size', 512 + 32, 4],
  ['first table entry', 1536, 4],
];
const vhdLocators: readonly Field[] = [
  ['parent time stamp', 512 + 56, 4],
  ['locator space', 512 + 576 + 4, 4],
  ['locator length', 512 + 576 + 8, 4],
  ['locator offset', 512 + 576 + 16, 8],
];
function sealVhd(bytes: Buffer): void {
  if (bytes.toString('latin1', 512, 520) === 'cxsparse') {
    sumHeader(bytes, 512);
    sumFooter(bytes, 0);
    // Both footers say the same.
    bytes.copy(bytes, bytes.length - 512, 0, 512);
  } else {
    sumFooter(bytes, bytes.length - 512);
  }
}
function sealVhdx(bytes: Buffer): void {
  for (const at of [64, 128]) seal(bytes, at * KIB, 4096);
  seal(bytes, 192 * KIB, 65_536);
  bytes.copy(bytes, 256 * KIB, 192 * KIB, 256 * KIB);
}

const all: readonly Numbered[] = [
  { fixture: vmdkSparse, big: false, fields: vmdkFields },
  {
    fixture: vmdkStream,
    big: false,
    fields: [...vmdkFields, ...vmdkFields.map(([name, at, bytes]): Field => [`footer ${name}`, at - 1024, bytes])],
  },
  {
    fixture: vmdkCowd,
    big: false,
    fields: [
      ['version', 4, 4],
      ['flags', 8, 4],
      ['numSectors', 12, 4],
      ['grainSize', 16, 4],
      ['gdOffset', 20, 4],
      ['numGDEntries', 24, 4],
      ['freeSector', 28, 4],
      ['first directory entry', 2048, 4],
    ],
  },
  {
    fixture: vmdkSeSparse,
    big: false,
    fields: Array.from({ length: 26 }, (_, i): Field => [`word ${i}`, i * 8, 8]),
  },
  {
    fixture: vhdFixed,
    big: true,
    fields: footerFields.map(([name, at, bytes]): Field => [name, at - 512, bytes]),
    seal: sealVhd,
  },
  { fixture: vhdDynamic, big: true, fields: [...footerFields, ...dynamicFields], seal: sealVhd },
  { fixture: vhdDifferencing, big: true, fields: [...dynamicFields, ...vhdLocators], seal: sealVhd },
  { fixture: vhdxDynamic, big: false, fields: vhdxFields, seal: sealVhdx },
  { fixture: vhdxDifferencing, big: false, fields: [...locatorFields, ...vhdxFields.slice(10)], seal: sealVhdx },
  {
    fixture: vdiDynamic,
    big: false,
    fields: [
      ['u32Version', 68, 4],
      ['cbHeader', 72, 4],
      ['u32Type', 76, 4],
      ['fFlags', 80, 4],
      ['offBlocks', 340, 4],
      ['offData', 344, 4],
      ['cbDisk', 368, 8],
      ['cbBlock', 376, 4],
      ['cbBlockExtra', 380, 4],
      ['cBlocks', 384, 4],
      ['cBlocksAllocated', 388, 4],
      ['first entry', 512, 4],
    ],
  },
  { fixture: qcow2v3, big: true, fields: qcow2Fields },
  { fixture: qcow2v2, big: true, fields: qcow2Fields.slice(0, 12) },
  { fixture: qcow2Zstd, big: true, fields: qcow2Fields.slice(3, 8) },
  {
    fixture: qcow,
    big: true,
    fields: [
      ['version', 4, 4],
      ['backing_file_offset', 8, 8],
      ['backing_file_size', 16, 4],
      ['mtime', 20, 4],
      ['size', 24, 8],
      ['cluster_bits', 32, 1],
      ['l2_bits', 33, 1],
      ['crypt_method', 36, 4],
      ['l1_table_offset', 40, 8],
      ['first L1 entry', 48, 8],
    ],
  },
  {
    fixture: parallelsAlone,
    big: false,
    fields: [
      ['version', 16, 4],
      ['heads', 20, 4],
      ['cylinders', 24, 4],
      ['tracks', 28, 4],
      ['nb_bat_entries', 32, 4],
      ['nb_sectors', 36, 8],
      ['in_use', 44, 4],
      ['data_off', 48, 4],
      ['flags', 52, 4],
      ['ext_off', 56, 8],
      ['first BAT entry', 64, 4],
    ],
  },
];

const WILD = [
  0n,
  1n,
  2n,
  3n,
  63n,
  511n,
  513n,
  0x7fffn,
  0xffffn,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
  0x1_0000_0000n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 63n - 1n,
  2n ** 63n,
  2n ** 64n - 512n,
  2n ** 64n - 1n,
];

function putNumber(bytes: Buffer, [, at, width]: Field, value: bigint, big: boolean): void {
  const from = at < 0 ? bytes.length + at : at;
  const fit = BigInt.asUintN(width * 8, value);
  for (let i = 0; i < width; i++) {
    const shift = BigInt((big ? width - 1 - i : i) * 8);
    bytes[from + i] = Number((fit >> shift) & 0xffn);
  }
}

describe.each(all.map((numbered) => [numbered.fixture.name, numbered] as const))('%s', (_name, numbered) => {
  const scratch = scratchFolder('numbers');
  const { fixture, fields, big } = numbered;

  it.each(fields.map((field) => [field[0], field] as const))('any number in %s', async (_field, field) => {
    const folder = fresh(scratch.path);
    const { leaf, file } = fixture.write(folder);
    const original = readFileSync(join(folder, file));
    const values = [...new Set(WILD.map((value) => BigInt.asUintN(field[2] * 8, value)))];
    await withinBounds(folder, async () => {
      for (const [index, value] of values.entries()) {
        const bytes = Buffer.from(original);
        putNumber(bytes, field, value, big);
        numbered.seal?.(bytes);
        writeFileSync(join(folder, file), bytes);
        const clock = process.cpuUsage();
        await look(folder, leaf, index % 2 === 0);
        const { user, system } = process.cpuUsage(clock);
        expect((user + system) / 1e6, `seconds for ${value}`).toBeLessThan(2);
      }
    });
    await scan(folder);
  });
});

/** Opens, reads and verifies: data or an error of our families, and no finding without a code. */
async function look(folder: string, leaf: string, synchronous: boolean): Promise<void> {
  const confinement = new Confinement(folder, { synchronous });
  await refusal(async () => {
    const disk = await openChain(leaf, confinement, { synchronous });
    try {
      for (const at of [0, Math.floor(disk.size / 2), Math.max(0, disk.size - 4096)]) {
        await disk.read(at, Math.min(65_536, disk.size - at)).catch((error) => {
          if (error?.kind === undefined) throw error;
        });
      }
      await disk.runs(0, Math.min(disk.size, 64 << 20));
    } finally {
      await disk.close();
    }
  });
  let count = 0;
  for await (const finding of verifyChain(leaf, confinement)) {
    expect(finding.code).toMatch(/^[a-z0-9-]+$/);
    expect(finding.message).not.toMatch(/NaN|undefined|\[object|Infinity/);
    if (++count > 2_000) break;
  }
  await confinement.close();
}

/** [format, attack, field, value, kind of the error, its structure]. */
const NAMED: readonly (readonly [Fixture, string, string, bigint, 'corrupt' | 'unsupported', RegExp])[] = [
  [vmdkSparse, 'a grain of 0 sectors', 'grainSize', 0n, 'corrupt', /grainSize/],
  [vmdkSparse, 'a grain of 3 sectors', 'grainSize', 3n, 'corrupt', /grainSize/],
  [vmdkSparse, 'a grain of 2^31 sectors', 'grainSize', 2n ** 31n, 'corrupt', /grainSize/],
  [vmdkSparse, 'a grain of 2^63 sectors', 'grainSize', 2n ** 63n, 'corrupt', /grainSize/],
  [vmdkSparse, 'a disk of 2^63 sectors', 'capacity', 2n ** 63n, 'corrupt', /capacity/],
  [vmdkSparse, 'a disk of 2^64-1 sectors', 'capacity', 2n ** 64n - 1n, 'corrupt', /capacity/],
  [vmdkSparse, 'a disk of 0 sectors', 'capacity', 0n, 'corrupt', /capacity/],
  [vmdkSparse, 'tables of 0 entries', 'numGTEsPerGT', 0n, 'corrupt', /numGTEsPerGT/],
  [vmdkSparse, 'tables of 2^32-1 entries', 'numGTEsPerGT', 2n ** 32n - 1n, 'corrupt', /numGTEsPerGT/],
  [vmdkSparse, 'a descriptor of 2^53 sectors', 'descriptorSize', 2n ** 53n - 1n, 'corrupt', /embedded descriptor/],
  [vmdkSparse, 'a descriptor at 2^63', 'descriptorOffset', 2n ** 63n, 'corrupt', /descriptorOffset/],
  [vmdkSparse, 'tables of 2^63 sectors in front', 'overHead', 2n ** 63n, 'corrupt', /overHead/],
  [vmdkStream, 'a footer with a directory at 2^63', 'footer gdOffset', 2n ** 63n, 'corrupt', /footer gdOffset/],
  [vmdkStream, 'a footer that leads to a footer', 'footer gdOffset', 2n ** 64n - 1n, 'corrupt', /footer gdOffset/],
  [vmdkCowd, 'a grain of 0 sectors', 'grainSize', 0n, 'corrupt', /grainSize/],
  [vmdkCowd, 'a directory at 2^32-1', 'gdOffset', 2n ** 32n - 1n, 'corrupt', /gdOffset/],
  [vmdkCowd, 'a directory of 0 entries', 'numGDEntries', 0n, 'corrupt', /numGDEntries/],
  [vhdDynamic, 'blocks of 0 bytes', 'block size', 0n, 'corrupt', /block size/],
  [vhdDynamic, 'blocks of 3 bytes', 'block size', 3n, 'corrupt', /block size/],
  [vhdDynamic, 'blocks of 1 byte', 'block size', 1n, 'corrupt', /block size/],
  [vhdDynamic, 'a table of 0 entries', 'max table entries', 0n, 'corrupt', /max table entries/],
  [vhdDynamic, 'a table at 2^63', 'table offset', 2n ** 63n, 'corrupt', /table offset/],
  [vhdDynamic, 'a header at 2^63', 'data offset', 2n ** 63n, 'corrupt', /data offset/],
  [vhdDynamic, 'a disk of 2^63 bytes', 'current size', 2n ** 63n, 'corrupt', /current size/],
  [vhdDynamic, 'a disk of 2^53-1 bytes', 'current size', 2n ** 53n - 1n, 'corrupt', /max table entries/],
  [vhdDynamic, 'a disk of 0 bytes', 'current size', 0n, 'corrupt', /current size/],
  [vhdxDynamic, 'blocks of 0 bytes', 'BlockSize', 0n, 'corrupt', /BlockSize/],
  [vhdxDynamic, 'blocks of 1 byte', 'BlockSize', 1n, 'corrupt', /BlockSize/],
  [vhdxDynamic, 'blocks of 2 GiB', 'BlockSize', 2n ** 31n, 'corrupt', /BlockSize/],
  [vhdxDynamic, 'sectors of 0 bytes', 'LogicalSectorSize', 0n, 'corrupt', /logical sector size/],
  [vhdxDynamic, 'sectors of 2^31 bytes', 'LogicalSectorSize', 2n ** 31n, 'corrupt', /logical sector size/],
  [vhdxDynamic, 'a disk of 0 bytes', 'VirtualDiskSize', 0n, 'corrupt', /virtual disk size/],
  [vhdxDynamic, 'a disk of 511 bytes', 'VirtualDiskSize', 511n, 'corrupt', /virtual disk size/],
  [vhdxDynamic, 'a disk of 2^63 bytes', 'VirtualDiskSize', 2n ** 63n, 'corrupt', /virtual disk size/],
  [vhdxDynamic, '2^32-1 regions', 'EntryCount of regions', 2n ** 32n - 1n, 'corrupt', /region table EntryCount/],
  [vhdxDynamic, '65,535 metadata items', 'EntryCount of metadata', 65_535n, 'corrupt', /metadata table EntryCount/],
  [
    vhdxDynamic,
    'a metadata item of 2^32-1 bytes',
    'Length of item 0',
    2n ** 32n - 1n,
    'corrupt',
    /metadata table entry/,
  ],
  [vhdxDynamic, 'a metadata item at 2^32-1', 'Offset of item 1', 2n ** 32n - 1n, 'corrupt', /metadata table entry/],
  [vhdxDynamic, 'a BAT of 2^32-1 bytes', 'Length of the BAT', 2n ** 32n - 1n, 'corrupt', /region table entry/],
  [vhdxDifferencing, 'a parent locator of 65,535 entries', 'KeyValueCount', 65_535n, 'corrupt', /parent locator/],
  [
    vhdxDifferencing,
    'a parent locator whose key is at 2^32-1',
    'KeyOffset',
    2n ** 32n - 1n,
    'corrupt',
    /parent locator/,
  ],
  [vhdxDifferencing, 'a key of 65,535 bytes', 'KeyLength', 65_535n, 'corrupt', /parent locator/],
  [vdiDynamic, 'blocks of 0 bytes', 'cbBlock', 0n, 'corrupt', /cbBlock/],
  [vdiDynamic, 'blocks of 3 bytes', 'cbBlock', 3n, 'corrupt', /cbBlock/],
  [vdiDynamic, '2^32-1 blocks', 'cBlocks', 2n ** 32n - 1n, 'corrupt', /offBlocks/],
  [vdiDynamic, 'a disk of 2^63 bytes', 'cbDisk', 2n ** 63n, 'corrupt', /cbDisk/],
  [vdiDynamic, 'a disk of 0 bytes', 'cbDisk', 0n, 'corrupt', /cbDisk/],
  [vdiDynamic, 'a header of 0 bytes', 'cbHeader', 0n, 'corrupt', /cbHeader/],
  [qcow2v3, 'clusters of 2^0 bytes', 'cluster_bits', 0n, 'corrupt', /cluster_bits/],
  [qcow2v3, 'clusters of 2^63 bytes', 'cluster_bits', 63n, 'corrupt', /cluster_bits/],
  [qcow2v3, 'clusters of 2^(2^32-1) bytes', 'cluster_bits', 2n ** 32n - 1n, 'corrupt', /cluster_bits/],
  [
    qcow2v3,
    'an L1 table of 2^32-1 entries',
    'l1_size',
    2n ** 32n - 1n,
    'unsupported',
    /L1 table of 4294967295 entries/,
  ],
  [qcow2v3, 'an L1 table of 0 entries', 'l1_size', 0n, 'corrupt', /l1_size/],
  [qcow2v3, 'an L1 table at 2^63', 'l1_table_offset', 2n ** 63n, 'corrupt', /l1_table_offset/],
  [qcow2v3, 'a disk of 2^64-1 bytes', 'size', 2n ** 64n - 1n, 'corrupt', /size/],
  [qcow2v3, 'a header of 0 bytes', 'header_length', 0n, 'corrupt', /header_length/],
  [qcow2v3, 'a header of 2^32-8 bytes', 'header_length', 2n ** 32n - 8n, 'corrupt', /header_length/],
  [qcow2v3, 'refcounts of 2^(2^32-1) bits', 'refcount_order', 2n ** 32n - 1n, 'corrupt', /refcount_order/],
  [qcow2v3, 'a backing file name at 2^63', 'backing_file_offset', 2n ** 63n, 'corrupt', /backing_file_offset/],
  [
    qcow2v3,
    'every unknown feature',
    'incompatible_features',
    2n ** 64n - 1n - 31n,
    'unsupported',
    /incompatible feature/,
  ],
  [qcow, 'clusters of 2^0 bytes', 'cluster_bits', 0n, 'corrupt', /cluster_bits/],
  [qcow, 'clusters of 2^255 bytes', 'cluster_bits', 255n, 'corrupt', /cluster_bits/],
  [qcow, 'tables of 2^255 entries', 'l2_bits', 255n, 'corrupt', /l2_bits/],
  [qcow, 'a disk of 2^63 bytes', 'size', 2n ** 63n, 'corrupt', /size/],
  [qcow, 'a disk of 2^53-1 bytes', 'size', 2n ** 53n - 1n, 'unsupported', /L1 table/],
  [qcow, 'an L1 table at 2^64-1', 'l1_table_offset', 2n ** 64n - 1n, 'corrupt', /l1_table_offset/],
  [parallelsAlone, 'clusters of 0 sectors', 'tracks', 0n, 'corrupt', /tracks/],
  [parallelsAlone, 'clusters of 2^32-1 sectors', 'tracks', 2n ** 32n - 1n, 'corrupt', /tracks/],
  [parallelsAlone, 'a BAT of 2^32-1 entries', 'nb_bat_entries', 2n ** 32n - 1n, 'corrupt', /nb_bat_entries/],
  [parallelsAlone, 'a BAT of 0 entries', 'nb_bat_entries', 0n, 'corrupt', /nb_bat_entries/],
  [parallelsAlone, 'a disk of 0 sectors', 'nb_sectors', 0n, 'corrupt', /nb_sectors/],
];

describe('by name', () => {
  const scratch = scratchFolder('numbers-named');
  it.each(NAMED.map((named) => [named[0].name, named[1], named] as const))('%s, %s', async (_format, _what, named) => {
    const [fixture, , fieldName, value, kind, structure] = named;
    const numbered = all.find((candidate) => candidate.fixture === fixture)!;
    const folder = fresh(scratch.path);
    const { leaf, file } = fixture.write(folder);
    const bytes = readFileSync(join(folder, file));
    const fields = numbered.fields.filter(([name]) => name === fieldName);
    expect(fields.length).toBeGreaterThan(0);
    for (const field of fields) putNumber(bytes, field, value, numbered.big);
    numbered.seal?.(bytes);
    writeFileSync(join(folder, file), bytes);
    const { error, findings } = await attack(folder, leaf);
    expect(error?.kind).toBe(kind);
    expect(String(error!.details.structure ?? error!.details.feature)).toMatch(structure);
    expect(error!.message.length).toBeLessThan(2_000);
    if (kind === 'corrupt') expect(error!.details.position).toBeGreaterThanOrEqual(0);
    expect(findings.length).toBeGreaterThan(0);
  });

  it.each([
    [qcow2v3, 'nb_snapshots', 2n ** 32n - 1n],
    [qcow2v3, 'snapshots_offset', 2n ** 63n - 1n],
    [qcow2v3, 'refcount_table_clusters', 2n ** 32n - 1n],
    [qcow2v3, 'refcount_table_offset', 2n ** 52n],
    [vhdDifferencing, 'locator length', 2n ** 32n - 1n],
    [vhdDifferencing, 'locator offset', 2n ** 63n],
    [vmdkCowd, 'freeSector', 0n],
    [vdiDynamic, 'cBlocksAllocated', 2n ** 32n - 1n],
  ] as const)('%o: a wrong %s (%s) costs only what it says', async (fixture, fieldName, value) => {
    const numbered = all.find((candidate) => candidate.fixture === fixture)!;
    const folder = fresh(scratch.path);
    const { leaf, file, model } = fixture.write(folder);
    const bytes = readFileSync(join(folder, file));
    putNumber(bytes, numbered.fields.find(([name]) => name === fieldName)!, value, numbered.big);
    numbered.seal?.(bytes);
    writeFileSync(join(folder, file), bytes);
    const outcome = await attack(folder, leaf);
    if (outcome.error === undefined) expect(outcome.bytes.equals(model.subarray(0, outcome.bytes.length))).toBe(true);
    else expect(outcome.error.kind).toMatch(/^(corrupt|missing-parent)$/);
    expect(outcome.findings.filter(({ severity }) => severity !== 'note')).not.toEqual([]);
  });
});

describe('descriptions', () => {
  const scratch = scratchFolder('numbers-text');
  const OUTRAGEOUS = [
    '0',
    '-1',
    '9223372036854775808',
    '18446744073709551615',
    '9007199254740991',
    '9007199254740993',
    '1e308',
    '0x10',
    'NaN',
    'Infinity',
    '',
    '1'.repeat(100_000),
    '\u0661\u0662',
  ];

  it.each(OUTRAGEOUS.map((value) => [value.slice(0, 24), value]))(
    'VMDK, an extent of "%s" sectors',
    async (_shown, value) => {
      for (const line of [
        `RW ${value} FLAT "disk-flat.vmdk" 0`,
        `RW 1 FLAT "disk-flat.vmdk" ${value}`,
        `RW ${value} ZERO`,
      ]) {
        const folder = fresh(scratch.path);
        writeFileSync(join(folder, 'disk-flat.vmdk'), Buffer.alloc(512, 1));
        writeFileSync(join(folder, 'disk.vmdk'), descriptorText({ createType: 'monolithicFlat', extents: [line] }));
        const { error, size } = await attack(folder, 'disk.vmdk');
        if (error === undefined) expect(size).toBeLessThanOrEqual(Number.MAX_SAFE_INTEGER);
        else expect(error.kind).toMatch(/^(corrupt|unsupported)$/);
      }
    },
  );

  it.each([
    ['5,000 extents', { extents: new Array<string>(5_000).fill('RW 1 ZERO') }],
    [
      'extents of 2^53 bytes together, and one more',
      { extents: [...new Array<string>(4).fill(`RW ${2 ** 42} ZERO`), 'RW 1 ZERO'] },
    ],
    ['4,000 extents of one file', { extents: new Array<string>(4_000).fill('RW 1 FLAT "disk-flat.vmdk" 0') }],
    ['version 2^32-1', { version: 2 ** 32 - 1, extents: ['RW 1 ZERO'] }],
    ['an encoding of 10,000 letters', { encoding: 'x'.repeat(10_000), extents: ['RW 1 ZERO'] }],
    ['a content id of 10,000 digits', { cid: 'f'.repeat(10_000), extents: ['RW 1 ZERO'] }],
    ['100,000 empty lines', { extents: ['RW 1 ZERO'], more: new Array<string>(100_000).fill('') }],
    ['50,000 keys', { extents: ['RW 1 ZERO'], more: Array.from({ length: 50_000 }, (_, n) => `k${n}="1"`) }],
    ['keys of JavaScript', { extents: ['RW 1 ZERO'], more: ['__proto__="1"', 'constructor="1"', 'toString="1"'] }],
    ['blanks in a row', { extents: [`RW${' '.repeat(200_000)}x`] }],
    ['quotes in a row', { extents: [`RW 1 FLAT ${'"'.repeat(200_000)}`] }],
  ])('VMDK, %s', async (_what, parts) => {
    const folder = fresh(scratch.path);
    writeFileSync(join(folder, 'disk-flat.vmdk'), Buffer.alloc(512, 1));
    writeFileSync(join(folder, 'disk.vmdk'), descriptorText({ createType: 'monolithicFlat', ...parts }));
    const { error } = await attack(folder, 'disk.vmdk');
    if (error !== undefined) expect(error.kind).toMatch(/^(corrupt|unsupported)$/);
  });

  it('text that only looks like a descriptor, and takes long to look at', async () => {
    const folder = fresh(scratch.path);
    for (let n = 0; n < 20; n++) {
      writeFileSync(join(folder, `a${n}.img`), `version=1\n${'\n'.repeat(65_536)}`);
      writeFileSync(join(folder, `b${n}.img`), `${' \n'.repeat(32_768)}# Disk`);
      writeFileSync(join(folder, `c${n}.xml`), `${'<!--'.repeat(16_384)}`);
      writeFileSync(join(folder, `d${n}.xml`), `${'<?a '.repeat(16_384)}`);
    }
    await scan(folder);
  });

  it.each([
    '/etc/passwd',
    '../../etc/passwd',
    '\\\\.\\PhysicalDrive0',
    '/dev/zero',
    'disk.vmdk',
    '.',
    'a'.repeat(5_000),
  ])('VMDK, a change tracking file called "%s"', async (name) => {
    const folder = fresh(scratch.path);
    const more = [`changeTrackPath="${name}"`];
    writeFileSync(
      join(folder, 'disk.vmdk'),
      descriptorText({ createType: 'monolithicFlat', extents: ['RW 1 ZERO'], more }),
    );
    const { error, files } = await attack(folder, 'disk.vmdk');
    expect(error).toBeUndefined();
    expect(files).toEqual(['disk.vmdk']);
  });

  it.each(OUTRAGEOUS.map((value) => [value.slice(0, 24), value]))(
    'Parallels, a disk of "%s" sectors',
    async (_shown, value) => {
      for (const field of ['Disk_size', 'Start', 'End', 'Blocksize']) {
        const folder = fresh(scratch.path);
        const { leaf } = parallelsFolder.write(folder);
        const text = readFileSync(join(folder, leaf), 'utf8');
        writeFileSync(
          join(folder, leaf),
          text.replace(new RegExp(`<${field}>\\d+</${field}>`), `<${field}>${value}</${field}>`),
        );
        const { error } = await attack(folder, leaf);
        // The images know their clusters themselves.
        if (error === undefined) expect(field === 'Blocksize' || (field === 'Start' && value === '0')).toBe(true);
        else expect(error).toMatchObject({ kind: 'corrupt' });
      }
    },
  );

  it.each(OUTRAGEOUS.map((value) => [value.slice(0, 24), value]))(
    'XVA, a disk of "%s" bytes',
    async (_shown, value) => {
      const folder = fresh(scratch.path);
      const described = ovaXml([vdiRecord('Ref:1', 0, { virtual_size: value })]);
      const members = [
        { name: 'ova.xml', content: Buffer.from(described) },
        { name: 'Ref:1/00000000', content: Buffer.alloc(1 << 20, 1) },
      ];
      writeFileSync(join(folder, 'web.xva'), buildTar(members));
      const { error } = await attack(folder, 'web.xva/Ref:1');
      expect(error).toMatchObject({ kind: 'corrupt' });
    },
  );

  it.each([
    ['of number 2^32-1', ['00000000', '4294967295']],
    ['of number 2^32', ['00000000', '4294967296']],
    ['that do not begin with 0', ['00000001']],
    ['out of order', ['00000000', '00000002', '00000001']],
    ['twice', ['00000000', '00000001', '00000001']],
    ['with other digits', ['00000000', '000000001']],
  ])('XVA, chunks %s', async (_what, numbers) => {
    const folder = fresh(scratch.path);
    const described = ovaXml([vdiRecord('Ref:1', 3 << 20)]);
    const chunks = numbers.map((number) => ({ name: `Ref:1/${number}`, content: Buffer.alloc(1 << 20, 1) }));
    writeFileSync(join(folder, 'web.xva'), buildTar([{ name: 'ova.xml', content: Buffer.from(described) }, ...chunks]));
    expect((await attack(folder, 'web.xva/Ref:1')).error).toMatchObject({ kind: 'corrupt' });
  });
});
