/**
 * VMs of XenServer exports (XVA): the VM as it was exported and every snapshot that was exported with it. Each disk of each is whole
 * in the archive; where an export holds no more than metadata, its disks are the VHDs of the storage repository, called by the
 * VDI's UUID or location, if they lie in the opened folder too.
 *
 * Fields by the XenServer API (https://xapi-project.github.io/xen-api/classes/vm.html): `snapshot_info` says of a snapshot how its
 * disks were frozen and what the VM did then, `suspend_VDI` holds the memory of a checkpoint.
 */
import { basename, join } from 'node:path';
import { findingFromError } from '../../chain/verify.ts';
import { CancelledError, ChainliftError, NotFoundError } from '../../errors.ts';
import type { Finding } from '../../image/image.ts';
import {
  isXva,
  readOvaXml,
  type XenExport,
  type XenObject,
  type XenRecord,
  xenFlag,
  xenMap,
  xenNumber,
  xenRef,
  xenText,
  xenTime,
} from '../../image/xva/ova-xml.ts';
import type { Archive } from '../../storage/archive/archive.ts';
import { type AboutPoint, type Draft, draftOf, type Evidence, folderLabel } from '../drafts.ts';
import { inHistoryOrder, withLastIntact, withoutLoops } from '../history.ts';
import type { LayerIndex } from '../layers.ts';
import type { Consistency, NetworkAdapter, RestorePoint, VirtualMachine } from '../model.ts';
import { macOf } from '../ovf/envelope.ts';
import { describeChain, type ScannedDisk } from '../point-disks.ts';
import type { MachineReader, ScannedMachine } from '../reader.ts';
import { oneLine } from '../text.ts';
import type { Folder } from '../walk.ts';

/** Snapshots of one VM that are shown; XenServer itself supports 30. */
const MAX_SNAPSHOTS = 1_000;

export const xenServerReader: MachineReader = {
  origin: 'xenserver',
  async scan(place, index, folders) {
    const { archive } = place;
    if (archive === undefined || !isXva(archive)) return [];
    let exported: XenExport;
    try {
      exported = await readOvaXml(archive);
    } catch (error) {
      return [unreadable(place, ours(error), index)];
    }
    const machines: ScannedMachine[] = [];
    for (const vm of mainMachines(exported)) {
      machines.push(await new Reader(archive, exported, index, folders).machine(vm, place));
    }
    return machines;
  },
};

/** VMs that are no snapshot of another one of the export. */
function mainMachines(exported: XenExport): XenObject[] {
  return exported
    .ofClass('VM')
    .filter(
      ({ record }) =>
        !xenFlag(record, 'is_control_domain') &&
        (!xenFlag(record, 'is_a_snapshot') || exported.find(xenRef(record, 'snapshot_of')) === undefined),
    );
}

function unreadable(place: Folder, error: ChainliftError, index: LayerIndex): ScannedMachine {
  const config = join(place.path, 'ova.xml');
  const vm: VirtualMachine = {
    name: oneLine(basename(place.path).replace(/\.[^.]+$/, '')) || basename(place.path),
    origin: 'xenserver',
    folder: folderLabel(place.path, index.folder),
    config: index.folder.label(config),
    points: [],
    findings: [
      findingFromError(error, {
        code: 'config-unreadable',
        source: index.folder.label(config),
        remedy:
          'Without it nothing says what the disks in this export are. Take the export from another copy of the backup.',
      }),
    ],
  };
  return { vm, used: new Set([config]), opened: false };
}

class Reader {
  readonly #archive: Archive;
  readonly #exported: XenExport;
  readonly #index: LayerIndex;
  readonly #folders: readonly Folder[];

  constructor(archive: Archive, exported: XenExport, index: LayerIndex, folders: readonly Folder[]) {
    this.#archive = archive;
    this.#exported = exported;
    this.#index = index;
    this.#folders = folders;
  }

  async machine(vm: XenObject, place: Folder): Promise<ScannedMachine> {
    const { record } = vm;
    const config = join(place.path, 'ova.xml');
    const used = new Set([config]);
    const findings: Finding[] = [];
    const snapshots = this.#exported
      .ofClass('VM')
      .filter((other) => other !== vm && xenRef(other.record, 'snapshot_of') === vm.id);
    if (snapshots.length > MAX_SNAPSHOTS) {
      findings.push({
        severity: 'suspicious',
        code: 'too-many-snapshots',
        message: `The export lists ${snapshots.length} snapshots; the first ${MAX_SNAPSHOTS} are shown`,
        source: this.#index.folder.label(config),
      });
    }
    const shown = [vm, ...snapshots.slice(0, MAX_SNAPSHOTS)];
    const ids = this.#ids(vm, shown);
    const parents = withoutLoops(new Map(shown.map((one) => [ids.get(one)!, this.#parentId(one, ids)])), (id, parent) =>
      findings.push({
        severity: 'damaged',
        code: 'snapshot-loop',
        message: `The snapshots ${id} and ${parent} are said to descend from each other`,
        source: this.#index.folder.label(config),
        structure: 'VM parent',
      }),
    );
    const drafts: Draft[] = [];
    for (const one of shown) drafts.push(await this.#draft(one, one === vm, ids.get(one)!, parents, used));
    const points = drafts.map(
      ({ point, findings: own }): RestorePoint => ({
        ...point,
        currentParent: parents.get('current') === point.id,
        findings: own,
      }),
    );
    const memoryBytes = xenNumber(record, 'memory_static_max');
    const cpus = xenNumber(record, 'VCPUs_max');
    const guest = this.#guest(record);
    const firmware = xenText(xenMap(record, 'HVM_boot_params'), 'firmware');
    const networks = this.#networks(vm);
    return {
      vm: {
        name: oneLine(xenText(record, 'name_label') ?? '') || oneLine(basename(place.path)),
        origin: 'xenserver',
        folder: folderLabel(place.path, this.#index.folder),
        config: this.#index.folder.label(config),
        ...(guest === undefined ? {} : { guest }),
        ...(cpus === undefined || cpus <= 0 ? {} : { cpus }),
        ...(memoryBytes === undefined || memoryBytes <= 0 ? {} : { memoryBytes }),
        ...(firmware === undefined ? {} : { firmware: oneLine(firmware) }),
        ...(networks.length === 0 ? {} : { networks }),
        points: withLastIntact(inHistoryOrder(points)),
        findings,
      },
      used,
      opened: drafts.some(({ disks }) => disks.some(({ chain }) => chain.layers.length > 0)),
    };
  }

  /** `current` for the VM itself, UUIDs for its snapshots; the reference where a UUID is missing or used twice. */
  #ids(vm: XenObject, shown: readonly XenObject[]): Map<XenObject, string> {
    const ids = new Map<XenObject, string>([[vm, 'current']]);
    const taken = new Set(['current']);
    for (const one of shown) {
      if (ids.has(one)) continue;
      const uuid = xenText(one.record, 'uuid');
      let id = uuid === undefined || taken.has(uuid) ? one.id : uuid;
      while (taken.has(id)) id = `${id}'`;
      taken.add(id);
      ids.set(one, id);
    }
    return ids;
  }

  #parentId(one: XenObject, ids: ReadonlyMap<XenObject, string>): string | undefined {
    const parent = this.#exported.find(xenRef(one.record, 'parent'));
    return parent === undefined || parent === one ? undefined : ids.get(parent);
  }

  async #draft(
    one: XenObject,
    current: boolean,
    id: string,
    parents: ReadonlyMap<string, string | undefined>,
    used: Set<string>,
  ): Promise<Draft> {
    const { record } = one;
    const created = xenTime(record, 'snapshot_time');
    const parent = parents.get(id);
    const description = oneLine(xenText(record, 'name_description') ?? '');
    const about: AboutPoint = {
      id,
      name: current ? 'Exported state' : oneLine(xenText(record, 'name_label') ?? '') || id,
      ...(description === '' || current ? {} : { description }),
      ...(created === undefined || current ? {} : { created }),
      ...(parent === undefined ? {} : { parent }),
      current,
      currentParent: false,
    };
    const disks: ScannedDisk[] = [];
    for (const { vbd, vdi } of this.#disksOf(one)) disks.push(await this.#disk(vbd, vdi, disks.length));
    return draftOf(about, disks, this.#evidence(record), this.#index, used);
  }

  /** Disks in the order the guest counts them. */
  #disksOf(vm: XenObject): { vbd: XenRecord; vdi: XenObject | undefined }[] {
    return this.#exported
      .ofClass('VBD')
      .map(({ record }) => record)
      .filter(
        (record) => xenRef(record, 'VM') === vm.id && xenText(record, 'type') !== 'CD' && !xenFlag(record, 'empty'),
      )
      .sort((a, b) => (xenNumber(a, 'userdevice') ?? 1_000) - (xenNumber(b, 'userdevice') ?? 1_000))
      .map((vbd) => ({ vbd, vdi: this.#exported.find(xenRef(vbd, 'VDI')) }));
  }

  async #disk(vbd: XenRecord, vdi: XenObject | undefined, at: number): Promise<ScannedDisk> {
    const device = xenText(vbd, 'device') ?? xenText(vbd, 'userdevice');
    const place = { index: at, ...(device === undefined ? {} : { node: oneLine(device) }) };
    const path = vdi === undefined ? undefined : this.#pathOf(vdi);
    if (path !== undefined) return describeChain(place, path, this.#index);
    const name = oneLine(
      vdi === undefined ? (xenRef(vbd, 'VDI') ?? 'no disk') : (xenText(vdi.record, 'uuid') ?? vdi.id),
    );
    const error = new NotFoundError(`The disk ${name}`, { file: name });
    const title = oneLine((vdi === undefined ? undefined : xenText(vdi.record, 'name_label')) ?? '');
    return {
      disk: { ...place, file: name, chain: [], error: error.toWire() },
      chain: { layers: [], names: [], error },
      findings: [
        {
          severity: 'damaged',
          code: 'disk-missing',
          message: `${title === '' ? 'A disk' : `The disk "${title}"`} (${name}) is neither in the export nor in the opened folder`,
          source: this.#archive.name,
          structure: place.node ?? `disk ${at}`,
          remedy: `If the export holds metadata only, put the storage repository's ${name}.vhd and its parents into the folder.`,
        },
      ],
    };
  }

  /** Where the content of a VDI is: in the export, or in a VHD of the folder that is called after it. */
  #pathOf(vdi: XenObject): string | undefined {
    if (this.#archive.chunks(vdi.id) !== undefined) return join(this.#archive.path, vdi.id);
    const wanted = new Set(
      [xenText(vdi.record, 'location'), xenText(vdi.record, 'uuid')]
        .filter((name) => name !== undefined)
        .map((name) => `${name.toLowerCase()}.vhd`),
    );
    for (const { path, files, archive } of this.#folders) {
      if (archive !== undefined) continue;
      const file = files.find((name) => wanted.has(name.toLowerCase().replace(/^vhd-/, '')));
      if (file !== undefined) return join(path, file);
    }
    return undefined;
  }

  #evidence(record: XenRecord): Evidence {
    const info = xenMap(record, 'snapshot_info');
    const kind = xenText(info, 'disk-snapshot-type');
    const power = xenText(info, 'power-state-at-snapshot') ?? xenText(record, 'power_state');
    const evidence: string[] = [];
    const findings: Finding[] = [];
    let level: Consistency['level'] = 'unknown';
    if (power !== undefined) evidence.push(`ova.xml: the VM was ${oneLine(power).toLowerCase()}`);
    const suspended = xenRef(record, 'suspend_VDI');
    const memory = suspended !== undefined && this.#archive.chunks(suspended) !== undefined;
    const quiesced = kind === 'quiesced';
    if (quiesced) {
      level = 'application';
      evidence.push('ova.xml: its disks were quiesced by the guest (VSS)');
    } else if (kind === 'crash_consistent' && power !== 'Halted') {
      level = 'crash';
      evidence.push('ova.xml: its disks were frozen as they stood (crash_consistent)');
    }
    if (memory) {
      level = level === 'application' ? level : 'memory';
      evidence.push(`ova.xml: its memory is ${suspended} of the export`);
    } else if (suspended !== undefined) {
      evidence.push('ova.xml: it has a memory state, which was not exported');
      findings.push({
        severity: 'note',
        code: 'memory-not-exported',
        message: 'The memory that was saved with this point is not in the export',
        source: this.#archive.name,
        structure: 'suspend_VDI',
      });
    }
    if (evidence.length === 0) evidence.push('ova.xml does not say how it was taken');
    return { memory, quiesced, consistency: { level, evidence }, used: [], findings };
  }

  #guest(record: XenRecord): string | undefined {
    const metrics = this.#exported.find(xenRef(record, 'guest_metrics'));
    const name = metrics === undefined ? undefined : xenText(xenMap(metrics.record, 'os_version'), 'name');
    return name === undefined ? undefined : oneLine(name.replace(/\|.*$/, ''));
  }

  #networks(vm: XenObject): NetworkAdapter[] {
    return this.#exported
      .ofClass('VIF')
      .filter(({ record }) => xenRef(record, 'VM') === vm.id)
      .map(({ record }): NetworkAdapter => {
        const network = this.#exported.find(xenRef(record, 'network'));
        const name =
          network === undefined
            ? undefined
            : (xenText(network.record, 'name_label') ?? xenText(network.record, 'bridge'));
        const mac = macOf(xenText(record, 'MAC'));
        return {
          device: oneLine(xenText(record, 'device') ?? ''),
          ...(mac === undefined ? {} : { mac }),
          ...(name === undefined ? {} : { network: oneLine(name) }),
        };
      })
      .sort((a, b) => a.device.localeCompare(b.device, 'en', { numeric: true }));
  }
}

function ours(error: unknown): ChainliftError {
  if (error instanceof ChainliftError && !(error instanceof CancelledError)) return error;
  throw error;
}
