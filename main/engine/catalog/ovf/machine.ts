/**
 * VMs of OVF packages: an `.ovf` with its disks in a folder, or all of them in one `.ova`. A package is one moment of a VM: one
 * point, without a history.
 */
import { join } from 'node:path';
import { findingFromError } from '../../chain/verify.ts';
import { CancelledError, ChainliftError, UnsupportedError } from '../../errors.ts';
import type { Finding } from '../../image/image.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import { type Draft, draftOf, finishDrafts, folderLabel } from '../drafts.ts';
import { isCompanionName } from '../files.ts';
import type { LayerIndex } from '../layers.ts';
import type { VirtualMachine } from '../model.ts';
import { describeChain, type ScannedDisk, scanDisks } from '../point-disks.ts';
import type { MachineReader, ScannedMachine } from '../reader.ts';
import { oneLine } from '../text.ts';
import type { Folder } from '../walk.ts';
import { type Envelope, type OvfDisk, type OvfFile, type OvfMachine, readEnvelope } from './envelope.ts';

export const ovfReader: MachineReader = {
  origin: 'ovf',
  async scan(place, index) {
    const machines: ScannedMachine[] = [];
    for (const name of place.files) {
      if (/\.ovf$/i.test(name) && !isCompanionName(name)) machines.push(...(await scanPackage(place, name, index)));
    }
    return machines;
  },
};

async function scanPackage(place: Folder, name: string, index: LayerIndex): Promise<ScannedMachine[]> {
  const { folder } = index;
  const path = join(place.path, name);
  const used = new Set([path]);
  for (const beside of ['.mf', '.cert']) {
    const other = `${name.slice(0, -'.ovf'.length)}${beside}`;
    if (place.files.includes(other)) used.add(join(place.path, other));
  }
  let envelope: Envelope;
  let file: OpenFile | undefined;
  try {
    // Opening fails where the archive it lies in is cut off.
    file = folder.open(path);
    envelope = await readEnvelope(file);
  } catch (error) {
    const finding = findingFromError(ours(error), {
      code: 'config-unreadable',
      source: folder.label(path),
      remedy: 'Take this file from another copy of the package, or open one of its disk images by itself.',
    });
    const vm = machine({ name: oneLine(name.replace(/\.ovf$/i, '')) }, place, path, index, [], [finding]);
    return [{ vm, used, opened: false }];
  } finally {
    await file?.close();
  }
  const scanned: ScannedMachine[] = [];
  for (const described of envelope.machines) scanned.push(await scanSystem(described, place, path, index, used));
  return scanned;
}

async function scanSystem(
  described: OvfMachine,
  place: Folder,
  path: string,
  index: LayerIndex,
  packageFiles: ReadonlySet<string>,
): Promise<ScannedMachine> {
  const used = new Set(packageFiles);
  const findings = [...described.findings];
  const disks: ScannedDisk[] = [];
  for (const disk of described.disks) {
    if (disk.file === undefined) {
      findings.push({
        severity: 'note',
        code: 'disk-without-content',
        message: `${disk.node ?? 'A disk'} has no file in the package: it is empty${disk.capacity === undefined ? '' : `, of ${disk.capacity} bytes`}`,
        source: index.folder.label(path),
      });
      continue;
    }
    disks.push(await scanFile(disk, disk.file, disks.length, path, index));
  }
  const evidence = {
    memory: false,
    quiesced: false,
    consistency: { level: 'unknown' as const, evidence: ['an OVF package does not say how it was made'] },
    used: [],
    findings: [],
  };
  const about = { id: 'exported', name: 'Exported state', current: true, currentParent: false };
  const draft: Draft = await draftOf(about, disks, evidence, index, used);
  for (const [at, { capacity }] of described.disks.filter(({ file }) => file !== undefined).entries()) {
    const size = disks[at]?.disk.size;
    if (capacity === undefined || size === undefined || capacity === size) continue;
    draft.findings.push({
      severity: 'suspicious',
      code: 'capacity-mismatch',
      message: `The package says that ${disks[at]!.disk.file} is a disk of ${capacity} bytes, and it is one of ${size}`,
      source: disks[at]!.disk.file,
      structure: 'DiskSection capacity',
      expected: capacity,
      found: size,
    });
  }
  return {
    vm: machine(described, place, path, index, finishDrafts([draft], undefined), findings),
    used,
    opened: disks.some(({ chain }) => chain.layers.length > 0),
  };
}

type About = Pick<VirtualMachine, 'name'> &
  Partial<Pick<VirtualMachine, 'guest' | 'cpus' | 'memoryBytes' | 'firmware' | 'networks'>>;

function machine(
  { name, guest, cpus, memoryBytes, firmware, networks }: About,
  place: Folder,
  path: string,
  index: LayerIndex,
  points: VirtualMachine['points'],
  findings: readonly Finding[],
): VirtualMachine {
  return {
    name: name || oneLine(index.folder.label(path)),
    origin: 'ovf',
    folder: folderLabel(place.path, index.folder),
    config: index.folder.label(path),
    ...(guest === undefined ? {} : { guest }),
    ...(cpus === undefined ? {} : { cpus }),
    ...(memoryBytes === undefined ? {} : { memoryBytes }),
    ...(firmware === undefined ? {} : { firmware }),
    ...(networks === undefined || networks.length === 0 ? {} : { networks }),
    points,
    findings,
  };
}

async function scanFile(
  { node }: OvfDisk,
  file: OvfFile,
  at: number,
  from: string,
  index: LayerIndex,
): Promise<ScannedDisk> {
  const place = { index: at, ...(node === undefined ? {} : { node }) };
  try {
    const fileName = decodedHref(file);
    if (file.chunkSize !== undefined)
      throw new UnsupportedError('an OVF file in parts (chunkSize)', { source: fileName });
    if (file.compression !== undefined && file.compression !== 'gzip') {
      throw new UnsupportedError(`OVF compression "${oneLine(file.compression)}"`, { source: fileName });
    }
    if (file.compression === undefined) {
      const [disk] = await scanDisks([{ node, fileName }], from, undefined, index);
      return { ...disk!, disk: { ...disk!.disk, index: at } };
    }
    const packed = index.folder.resolveRecorded(fileName, from);
    const archive = await index.folder.mount(packed, { compressed: true });
    const [member] = archive?.members() ?? [];
    // The descriptor says gzip, and the file is not: it is taken for what it is.
    return await describeChain(place, member === undefined ? packed : join(packed, member.name), index);
  } catch (error) {
    const failure = ours(error);
    return {
      disk: { ...place, file: oneLine(file.href), chain: [], error: failure.toWire() },
      chain: { layers: [], names: [], error: failure },
      findings: [findingFromError(failure, { source: index.folder.label(from), structure: node ?? `disk ${at}` })],
    };
  }
}

/** `href` is a relative reference (RFC 3986): percent signs encode. What only looks like an encoding is taken as it stands. */
function decodedHref({ href }: OvfFile): string {
  if (/^[a-z][a-z0-9+.-]+:\/\//i.test(href)) {
    throw new UnsupportedError('a disk that an OVF package fetches from elsewhere', { source: oneLine(href) });
  }
  try {
    return decodeURIComponent(href);
  } catch {
    return href;
  }
}

function ours(error: unknown): ChainliftError {
  if (error instanceof ChainliftError && !(error instanceof CancelledError)) return error;
  throw error;
}
