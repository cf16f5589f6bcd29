/**
 * Writes the demo repository: a VMware folder of VM `web01`, with a base and three points, one of them on a branch. The images are
 * golden files of the repository (resources/demo, made by its generator from kernel-made file systems with qemu-img);
 * no external tool is needed to write or open them.
 */
import { createReadStream, createWriteStream, existsSync, readFileSync } from 'node:fs';
import { mkdir, readdir, rename, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { createGunzip } from 'node:zlib';
import { DeniedError, IoError, NotFoundError } from '../errors.ts';

const images = ['web01.vmdk', 'web01-000001.vmdk', 'web01-000002.vmdk', 'web01-000003.vmdk'];

const vmx = `.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "19"
displayName = "web01"
guestOS = "debian12-64"
firmware = "bios"
numvcpus = "2"
memSize = "2048"
cleanShutdown = "TRUE"
uuid.bios = "56 4d 63 68 61 69 6e 6c-69 66 74 77 65 62 30 31"
pciBridge0.present = "TRUE"
scsi0.present = "TRUE"
scsi0.virtualDev = "lsilogic"
scsi0:0.present = "TRUE"
scsi0:0.deviceType = "scsi-hardDisk"
scsi0:0.fileName = "web01-000003.vmdk"
ide1:0.present = "TRUE"
ide1:0.deviceType = "cdrom-raw"
ide1:0.startConnected = "FALSE"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
ethernet0.networkName = "VM Network"
ethernet0.addressType = "generated"
ethernet0.generatedAddress = "00:0c:29:63:68:61"
`;

interface Snapshot {
  uid: number;
  parent?: number;
  name: string;
  description: string;
  created: string;
  disk: string;
}

const snapshots: Snapshot[] = [
  {
    uid: 1,
    name: 'base',
    description: 'The shop as it went live',
    created: '2026-11-02T10:00:00Z',
    disk: 'web01.vmdk',
  },
  {
    uid: 2,
    parent: 1,
    name: 'before-upgrade',
    description: 'Last good state before the PHP upgrade',
    created: '2026-11-14T02:00:00Z',
    disk: 'web01-000001.vmdk',
  },
  {
    uid: 3,
    parent: 2,
    name: 'try-php83',
    description: 'PHP 8.3 tried out, then left',
    created: '2026-11-14T11:30:00Z',
    disk: 'web01-000002.vmdk',
  },
];

/** The .vmsd of the demo. Times are microseconds since 1970, in two signed halves. */
function vmsd(): string {
  const lines = [
    '.encoding = "UTF-8"',
    'snapshot.lastUID = "3"',
    'snapshot.current = "2"',
    `snapshot.numSnapshots = "${snapshots.length}"`,
  ];
  for (const [index, snapshot] of snapshots.entries()) {
    const micros = BigInt(Date.parse(snapshot.created)) * 1000n;
    const key = `snapshot${index}`;
    lines.push(
      `${key}.uid = "${snapshot.uid}"`,
      `${key}.filename = "web01-Snapshot${snapshot.uid}.vmsn"`,
      ...(snapshot.parent === undefined ? [] : [`${key}.parent = "${snapshot.parent}"`]),
      `${key}.displayName = "${snapshot.name}"`,
      `${key}.description = "${snapshot.description}"`,
      `${key}.createTimeHigh = "${micros >> 32n}"`,
      `${key}.createTimeLow = "${BigInt.asIntN(32, micros)}"`,
      `${key}.numDisks = "1"`,
      `${key}.disk0.fileName = "${snapshot.disk}"`,
      `${key}.disk0.node = "scsi0:0"`,
    );
  }
  return `${lines.join('\n')}\n`;
}

/** Folder with the golden files, from wherever this module was bundled to. */
function goldenFolder(): string {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    const candidate = join(folder, 'resources', 'demo');
    if (existsSync(join(candidate, 'web01.vmdk.gz'))) return candidate;
    if (folder === dirname(folder)) throw new NotFoundError('The demo images (resources/demo)');
  }
}

/** True when the folder holds the demo as `writeDemo` leaves it. */
export function isDemo(folder: string): boolean {
  const marker = join(folder, 'web01.vmx');
  return (
    existsSync(marker) && readFileSync(marker, 'utf8') === vmx && images.every((name) => existsSync(join(folder, name)))
  );
}

/**
 * Writes the demo into `folder`, which is made when absent and must be empty (or hold the demo already, which is then left as
 * it is). @throws DeniedError when something else is in it, IoError.
 */
export async function writeDemo(folder: string): Promise<void> {
  if (isDemo(folder)) return;
  try {
    await mkdir(folder, { recursive: true });
    // The .vmx comes last: an interrupted attempt has none and is simply completed.
    const left = (await readdir(folder)).filter(
      (name) => !images.includes(name) && !/^web01.*(\.part|\.vmsd|\.vmsn)$/.test(name),
    );
    if (left.length > 0) throw new DeniedError(folder, 'it is not empty', { folder, holds: left.slice(0, 5) });
    const golden = goldenFolder();
    for (const name of images) {
      const partial = join(folder, `${name}.part`);
      await pipeline(createReadStream(join(golden, `${name}.gz`)), createGunzip(), createWriteStream(partial));
      await rename(partial, join(folder, name));
    }
    for (const snapshot of snapshots) await writeFile(join(folder, `web01-Snapshot${snapshot.uid}.vmsn`), emptyVmsn());
    await writeFile(join(folder, 'web01.vmsd'), vmsd());
    await writeFile(join(folder, 'web01.vmx'), vmx);
  } catch (error) {
    if (error instanceof DeniedError || error instanceof NotFoundError) throw error;
    throw new IoError(`The demo cannot be written to ${folder}`, { folder }, error);
  }
}

/** A snapshot state file without memory: the header of VMware's state format, with no groups in it. */
function emptyVmsn(): Uint8Array {
  const header = new Uint8Array(96);
  const view = new DataView(header.buffer);
  view.setUint32(0, 0xbed2bed2, true);
  view.setUint32(4, 8, true);
  view.setUint32(8, 0, true);
  return header;
}
