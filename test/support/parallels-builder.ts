/**
 * Writes Parallels images and .hdd folders in code, after QEMU's docs/interop/parallels.rst and prl-xml.rst and nothing of the
 * engine's. QEMU reads the images in test/peers/parallels.test.ts; snapshots and split disks no program of Debian reads.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export const SECTOR = 512;
export const TOP = '5fbaabe3-6958-40ff-92a7-860e329aab41';
const NONE = '00000000-0000-0000-0000-000000000000';

export interface ExpandingOptions {
  /** Sectors of the disk. */
  sectors: number;
  /** Sectors of a cluster. */
  tracks: number;
  /** Cluster number on the disk -> content; stored in this order. */
  clusters: ReadonlyMap<number, Buffer>;
  /** `WithouFreSpacExt`: positions are counted in clusters. */
  extended?: boolean;
  inUse?: number;
  flags?: number;
  /** `data_off` is written as 0, as old versions did. */
  noDataOffset?: boolean;
}

export interface ExpandingImage {
  bytes: Buffer;
  /** Byte positions of what tests like to break. */
  at: { bat: number; data: number };
}

export function buildExpanding(options: ExpandingOptions): ExpandingImage {
  const { sectors, tracks, clusters, extended } = options;
  const entries = Math.ceil(sectors / tracks);
  const tableSectors = Math.ceil((64 + entries * 4) / SECTOR);
  const first = extended ? Math.ceil(tableSectors / tracks) * tracks : tableSectors;
  const front = Buffer.alloc(first * SECTOR);
  front.write(extended ? 'WithouFreSpacExt' : 'WithoutFreeSpace', 0, 'latin1');
  front.writeUInt32LE(2, 16);
  front.writeUInt32LE(16, 20);
  front.writeUInt32LE(Math.ceil(sectors / 512), 24);
  front.writeUInt32LE(tracks, 28);
  front.writeUInt32LE(entries, 32);
  front.writeBigUInt64LE(BigInt(sectors), 36);
  front.writeUInt32LE(options.inUse ?? 0x312e3276, 44);
  front.writeUInt32LE(options.noDataOffset ? 0 : first, 48);
  front.writeUInt32LE(options.flags ?? 0, 52);
  const stored: Buffer[] = [];
  for (const [cluster, content] of clusters) {
    if (content.length !== tracks * SECTOR) throw new Error(`cluster ${cluster} is not a whole cluster`);
    const position = first + stored.length * tracks;
    front.writeUInt32LE(extended ? position / tracks : position, 64 + cluster * 4);
    stored.push(content);
  }
  return { bytes: Buffer.concat([front, ...stored]), at: { bat: 64, data: first * SECTOR } };
}

/** The disk with this image laid over what is below it. Changes and returns `disk`. */
export function overlay(disk: Buffer, { tracks, clusters }: Pick<ExpandingOptions, 'tracks' | 'clusters'>): Buffer {
  const size = tracks * SECTOR;
  for (const [cluster, content] of clusters) {
    const start = cluster * size;
    content.copy(disk, start, 0, Math.min(size, disk.length - start));
  }
  return disk;
}

export const expandingModel = (options: ExpandingOptions): Buffer =>
  overlay(Buffer.alloc(options.sectors * SECTOR), options);

export interface StorageParts {
  start: number;
  end: number;
  images: readonly { guid: string; type: 'Plain' | 'Compressed'; file: string }[];
}

export interface DescriptorParts {
  name?: string;
  sectors: number;
  blockSectors?: number;
  storages: readonly StorageParts[];
  /** [GUID, parent], parents first. */
  shots?: readonly (readonly [string, string | undefined])[];
  top?: string;
  padding?: number;
  engine?: string;
  logicSector?: number;
}

export function diskDescriptor(parts: DescriptorParts): string {
  const storages = parts.storages.map(({ start, end, images }) =>
    [
      '        <Storage>',
      `            <Start>${start}</Start>`,
      `            <End>${end}</End>`,
      `            <Blocksize>${parts.blockSectors ?? 2048}</Blocksize>`,
      ...images.flatMap(({ guid, type, file }) => [
        '            <Image>',
        `                <GUID>{${guid}}</GUID>`,
        `                <Type>${type}</Type>`,
        `                <File>${file}</File>`,
        '            </Image>',
      ]),
      '        </Storage>',
    ].join('\n'),
  );
  const shots = (parts.shots ?? [[TOP, undefined] as const]).map(
    ([guid, parent]) => `        <Shot><GUID>{${guid}}</GUID><ParentGUID>{${parent ?? NONE}}</ParentGUID></Shot>`,
  );
  return `<?xml version='1.0' encoding='UTF-8'?>
<Parallels_disk_image Version="1.0">
    <Disk_Parameters>
        <Disk_size>${parts.sectors}</Disk_size>
        <Cylinders>${Math.ceil(parts.sectors / 512)}</Cylinders>
        <PhysicalSectorSize>4096</PhysicalSectorSize>
        <LogicSectorSize>${parts.logicSector ?? 512}</LogicSectorSize>
        <Heads>16</Heads>
        <Sectors>32</Sectors>
        <Padding>${parts.padding ?? 0}</Padding>
        <Encryption>
            <Engine>{${parts.engine ?? NONE}}</Engine>
            <Data></Data>
        </Encryption>
        <Name>${parts.name ?? 'disk'}</Name>
    </Disk_Parameters>
    <StorageData>
${storages.join('\n')}
    </StorageData>
    <Snapshots>
${parts.top === undefined ? '' : `        <TopGUID>{${parts.top}}</TopGUID>\n`}${shots.join('\n')}
    </Snapshots>
</Parallels_disk_image>
`;
}

/** As Parallels Desktop calls them. */
export const imageName = (disk: string, storage: number, guid: string): string =>
  `${disk}.hdd.${storage}.{${guid}}.hds`;

/** Writes `NAME.hdd` with its descriptor and files; gives the descriptor's path. */
export function writeHdd(
  root: string,
  name: string,
  descriptor: string,
  files: Readonly<Record<string, Buffer>>,
): string {
  const folder = join(root, `${name}.hdd`);
  mkdirSync(folder, { recursive: true });
  for (const [file, bytes] of Object.entries(files)) writeFileSync(join(folder, file), bytes);
  const path = join(folder, 'DiskDescriptor.xml');
  writeFileSync(path, descriptor);
  return path;
}
