/** From the UUIDs that a point attaches to its images: through the media registry, or by the images' own identity. */
import { dirname, join, relative, sep } from 'node:path';
import { findingFromError } from '../../chain/verify.ts';
import {
  CancelledError,
  ChainliftError,
  CorruptError,
  NeedsKeyError,
  NotFoundError,
  UnsupportedError,
} from '../../errors.ts';
import type { Finding } from '../../image/image.ts';
import { isImageName } from '../files.ts';
import type { LayerIndex } from '../layers.ts';
import { type ScannedDisk, scanDisks } from '../point-disks.ts';
import { oneLine } from '../text.ts';
import type { Folder } from '../walk.ts';
import type { VboxAttachment, VboxMachine, VboxMedium } from './settings.ts';

/** Images asked for their identity when the registry does not have it. */
const MAX_ASKED = 512;

export class DiskFinder {
  readonly #machine: VboxMachine;
  /** Real path of the .vbox. */
  readonly #config: string;
  readonly #places: readonly Folder[];
  readonly #index: LayerIndex;
  readonly #locate: (recorded: string) => string;
  #byIdentity: Promise<ReadonlyMap<string, string>> | undefined;

  /**
   * @param places folders of this VM: its own, and that of its snapshots. @param locate gives the name by which a recorded one is
   * found.
   */
  constructor(
    machine: VboxMachine,
    config: string,
    places: readonly Folder[],
    index: LayerIndex,
    locate: (recorded: string) => string,
  ) {
    this.#machine = machine;
    this.#config = config;
    this.#places = places;
    this.#index = index;
    this.#locate = locate;
  }

  /** The disks of a point. What can't be opened stays in the list, with its error. @throws CancelledError. */
  async disks(attached: readonly VboxAttachment[], used: Set<string>): Promise<ScannedDisk[]> {
    const scanned: ScannedDisk[] = [];
    for (const [index, attachment] of attached.entries()) scanned.push(await this.#disk(attachment, index, used));
    return scanned;
  }

  async #disk({ node, uuid }: VboxAttachment, index: number, used: Set<string>): Promise<ScannedDisk> {
    const medium = this.#machine.media.get(uuid);
    const place = { index, node };
    if (medium === undefined) return this.#unregistered(uuid, place);
    const file = oneLine(medium.location);
    if (medium.encrypted) {
      await this.#claim(medium, used);
      return refused(place, file, new NeedsKeyError(file), this.#source, {
        remedy:
          'Decrypt the disk where its key is, and back it up again; its image here holds nothing but cipher text.',
      });
    }
    if (isNoFile(medium)) {
      const error = new UnsupportedError(`VirtualBox ${medium.format} disk, which is no file`, {
        source: this.#source,
      });
      return refused(place, file, error, this.#source, { remedy: 'Back up what it is stored on.' });
    }
    const disk = await this.#opened(this.#locate(medium.location), place);
    return this.#against(medium, disk);
  }

  get #source(): string {
    return this.#index.folder.label(this.#config);
  }

  async #opened(fileName: string, place: { index: number; node: string }): Promise<ScannedDisk> {
    const [scanned] = await scanDisks([{ node: place.node, fileName }], this.#config, undefined, this.#index);
    return { ...scanned!, disk: { ...scanned!.disk, index: place.index } };
  }

  /** Compares an image with what the registry says of it. */
  #against(medium: VboxMedium, scanned: ScannedDisk): ScannedDisk {
    const [leaf, below] = scanned.chain.layers;
    if (leaf === undefined) return scanned;
    const findings: Finding[] = [];
    if (leaf.format === 'vdi' && leaf.id !== medium.uuid) {
      findings.push({
        severity: 'suspicious',
        code: 'medium-uuid-differs',
        message: `${leaf.name} is another image than the one that ${this.#source} records: VirtualBox would refuse it`,
        source: leaf.name,
        structure: 'VDI header uuidCreate',
        expected: medium.uuid,
        found: leaf.id ?? 'none',
        remedy: 'The point can be opened; that it is this disk is not proved.',
      });
    }
    const parent = medium.parent === undefined ? undefined : this.#machine.media.get(medium.parent);
    if (parent !== undefined && below === undefined && scanned.chain.error === undefined) {
      // It stands alone although it was made on another: what it does not hold would read as zeros.
      const error = new CorruptError('Parent link', {
        source: leaf.name,
        expected: `the parent ${oneLine(parent.location)}, as ${this.#source} says`,
        found: 'an image without a parent',
      });
      return {
        ...refused(scanned.disk, scanned.disk.file, error, this.#source, {}),
        chain: { ...scanned.chain, error },
      };
    }
    if (parent !== undefined && below !== undefined && below.format === 'vdi' && below.id !== parent.uuid) {
      findings.push({
        severity: 'suspicious',
        code: 'registry-parent-differs',
        message: `${leaf.name} stands on ${below.name}, and ${this.#source} says it was made on ${oneLine(parent.location)}`,
        source: leaf.name,
        structure: 'MediaRegistry HardDisk',
        expected: parent.uuid,
        found: below.id ?? 'none',
      });
    }
    return { ...scanned, findings: [...scanned.findings, ...findings] };
  }

  /** An image that the registry of this file lacks (VirtualBox before 4.0 kept one for all VMs): by its own identity. */
  async #unregistered(uuid: string, place: { index: number; node: string }): Promise<ScannedDisk> {
    this.#byIdentity ??= this.#identities();
    const path = (await this.#byIdentity).get(uuid);
    if (path === undefined) {
      const error = new NotFoundError(`The image {${uuid}}`, { recorded: uuid, source: this.#source });
      return refused(place, `{${uuid}}`, error, this.#source, {
        code: 'disk-missing',
        message: `The media registry of ${this.#source} does not say where the image {${uuid}} is, and no image of its folders has this identity`,
        remedy: 'Put the image into the folder of the VM and scan again.',
      });
    }
    const name = relative(dirname(this.#config), path).split(sep).join('/');
    const scanned = await this.#opened(name.startsWith('.') ? name : `./${name}`, place);
    const note: Finding = {
      severity: 'note',
      code: 'found-by-identity',
      message: `${this.#source} does not say where the image {${uuid}} is; ${scanned.disk.file} has this identity`,
      source: this.#source,
      structure: 'MediaRegistry',
    };
    return { ...scanned, findings: [...scanned.findings, note] };
  }

  async #identities(): Promise<ReadonlyMap<string, string>> {
    const byId = new Map<string, string>();
    let asked = 0;
    for (const { path, files } of this.#places) {
      for (const name of files) {
        if (!isImageName(name) || ++asked > MAX_ASKED) continue;
        const facts = await this.#index.facts(join(path, name));
        if (facts instanceof ChainliftError) continue;
        for (const id of [facts.id, ...(facts.otherIds ?? [])]) if (id !== undefined) byId.set(id, facts.path);
      }
    }
    return byId;
  }

  /** An image that is refused is none of nobody's all the same. */
  async #claim(medium: VboxMedium, used: Set<string>): Promise<void> {
    const seen = new Set<string>();
    for (let at: VboxMedium | undefined = medium; at !== undefined && !seen.has(at.uuid); ) {
      seen.add(at.uuid);
      try {
        used.add(this.#index.folder.resolveRecorded(this.#locate(at.location), this.#config));
      } catch (error) {
        // Not here: then there is nothing to claim.
        if (!(error instanceof ChainliftError) || error instanceof CancelledError) throw error;
      }
      at = at.parent === undefined ? undefined : this.#machine.media.get(at.parent);
    }
  }
}

/** iSCSI targets and the like: places, not files. */
function isNoFile({ format, location }: VboxMedium): boolean {
  return /^iscsi$/i.test(format) || /^[a-z][a-z0-9+.-]+:\/\//i.test(location);
}

/** A disk that is shown with why it is not opened. */
function refused(
  place: { readonly index: number; readonly node?: string },
  file: string,
  error: ChainliftError,
  source: string,
  extra: Partial<Finding>,
): ScannedDisk {
  const { index, node } = place;
  return {
    disk: { index, ...(node === undefined ? {} : { node }), file, chain: [], error: error.toWire() },
    chain: { layers: [], names: [], error },
    findings: [findingFromError(error, { source, ...(node === undefined ? {} : { structure: node }), ...extra })],
  };
}
