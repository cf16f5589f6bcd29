/**
 * The engine as shells see it: the contract of preload/api.ts, put together from the layers below. What is here decides nothing
 * about formats; it opens, keeps and lets go. What only some operations need is loaded when they are asked for: the command line
 * starts an engine for every listing.
 */
import { basename } from 'node:path';
import type {
  ChainliftApi,
  DiskInfo,
  EntryDetails,
  LayerInfo,
  MapRun,
  RepositoryReport,
  Target,
  TaskResult,
  TaskSnapshot,
  VolumesReport,
  WireError,
} from '../../../preload/api.ts';
import type { Catalog } from '../catalog/model.ts';
import { sourceOf } from '../catalog/source.ts';
import { ChainliftError, throwIfCancelled, toWireError, UsageError } from '../errors.ts';
import { fileSystemTypes } from '../filesystem/file-systems.ts';
import { imageFormats } from '../image/formats.ts';
import type { Finding, ParentClaim } from '../image/image.ts';
import { splitVmPath } from '../restore/source.ts';
import { Breather } from '../task/breather.ts';
import { TaskManager } from '../task/task.ts';
import { version } from '../version.ts';
import { browseFolder } from './browse.ts';
import { directoryChanges } from './changes.ts';
import { copyTitle, findSources, isOfBackup } from './copy-sources.ts';
import { homeFolder } from './home.ts';
import { entryRow, listRows } from './listing.ts';
import { LocatedParents } from './located.ts';
import { NbdExports } from './nbd-exports.ts';
import type { OpenPoint, PointLocation } from './open-point.ts';
import { PointPool } from './point-pool.ts';
import { layerShares } from './provenance.ts';
import { defaultCacheFolder, defaultConfigFolder, RecentRepositories } from './recent.ts';
import { diskIndex, Targets } from './targets.ts';

export interface EngineOptions {
  /** Read on the calling thread: right for the command line, wrong where a window waits. */
  readonly synchronous?: boolean;
  /** Where recent repositories and located parents are remembered; null: nowhere. */
  readonly configFolder?: string | null;
  /**
   * A private folder in which indexes of compressed archives are kept. Without it, each is made anew for as long as the engine lives,
   * which means reading the whole archive.
   */
  readonly cacheFolder?: string;
  /** Put what is scanned on the list of recent repositories; true when absent. */
  readonly remember?: boolean;
}

export interface Engine {
  readonly api: ChainliftApi;
  /** Cancels tasks, ends exports, closes files. */
  close(): Promise<void>;
}

/** Bytes read at a time where a whole file or disk is streamed. */
const CHUNK = 1 << 20;
const MAX_PREVIEW = 4 << 20;

export function createEngine(options: EngineOptions = {}): Engine {
  const synchronous = options.synchronous ?? false;
  const configFolder = options.configFolder === undefined ? defaultConfigFolder() : options.configFolder;
  const located = new LocatedParents(configFolder ?? undefined);
  const cacheFolder = options.cacheFolder ?? (configFolder === null ? undefined : defaultCacheFolder());
  const targets = new Targets(synchronous, located, cacheFolder);
  const pool = new PointPool(synchronous, targets.folders);
  const tasks = new TaskManager<TaskSnapshot['kind'], TaskResult>();
  const exports = new NbdExports();
  const recent = configFolder === null || options.remember === false ? undefined : new RecentRepositories(configFolder);

  async function use<T>(target: Target, body: (point: OpenPoint, location: PointLocation) => Promise<T>): Promise<T> {
    const location = await targets.locate(target);
    const lease = pool.lease(location);
    try {
      return await body(lease.point, location);
    } finally {
      lease.release();
    }
  }

  /** As `use`, for streams: the point is held until the consumer stops, which aborts `signal`. */
  async function* stream<T>(
    target: Target,
    body: (point: OpenPoint, location: PointLocation, signal: AbortSignal) => AsyncIterable<T>,
  ): AsyncGenerator<T> {
    const location = await targets.locate(target);
    const lease = pool.lease(location);
    const controller = new AbortController();
    try {
      yield* body(lease.point, location, controller.signal);
    } finally {
      controller.abort();
      lease.release();
    }
  }

  /** What scans had to say besides their catalogs, by source. */
  const notes = new Map<string, Finding[]>();

  /** Puts a source on the list of recent ones. That this may fail is worth a note, not the scan. */
  async function remember(source: string): Promise<Finding[]> {
    try {
      await recent?.add(source);
      return [];
    } catch (error) {
      if (!(error instanceof ChainliftError)) throw error;
      return [{ severity: 'note', code: 'recent-not-written', message: error.message }];
    }
  }

  const api: ChainliftApi = {
    async about() {
      return {
        version,
        formats: imageFormats.map((format) => format.name),
        fileSystems: fileSystemTypes.map((type) => type.name),
        home: homeFolder(),
      };
    },
    async recent() {
      return (await recent?.list()) ?? [];
    },
    async forget({ path }) {
      await recent?.remove(path);
    },
    browse: ({ path }) => browseFolder(path),

    async scan({ source }) {
      return tasks.start('scan', `Read ${basename(source) || source}`, async (task) => {
        const onImage = (path: string): void => {
          task.progress.itemsDone++;
          task.progress.current = path;
          task.report();
        };
        const catalog = await targets.scan(source, { signal: task.signal, onImage });
        const onPoint = (vm: string, point: string): void => {
          task.progress.current = `${vm} at ${point}`;
          task.report();
        };
        await targets.assessed(catalog, { signal: task.signal, onPoint });
        await pool.forget(catalog.source);
        notes.set(catalog.source, await remember(catalog.source));
        return {
          kind: 'scan',
          vms: catalog.vms.length,
          points: catalog.vms.reduce((n, vm) => n + vm.points.length, 0),
        };
      });
    },
    async report({ source }) {
      const catalog = await targets.assessed(await targets.catalog(source));
      return report(catalog, notes.get(catalog.source) ?? []);
    },

    info: ({ target }) =>
      use(target, async (point, location): Promise<DiskInfo> => {
        const index = diskIndex(location, target);
        const disk = await point.disk(index);
        const layers = disk.layers.map(async (layer, at) => ({
          index: at,
          name: layer.name,
          format: layer.format,
          variant: layer.variant,
          virtualSize: layer.virtualSize,
          granularity: layer.granularity,
          allocatedBytes: await layer.allocatedBytes(),
          ...(layer.id === undefined ? {} : { id: layer.id }),
          ...(layer.parent === undefined ? {} : { parent: parentOf(layer.parent) }),
          files: layer.files.map(({ role, name, size }) => ({ role, name, size })),
          properties: layer.properties,
        }));
        return {
          vm: location.vm,
          point: location.pointName,
          disk: index,
          size: disk.size,
          layers: await Promise.all(layers),
        };
      }),

    map: ({ target }) =>
      stream(target, async function* (point, location, signal): AsyncGenerator<MapRun[]> {
        const disk = await point.disk(diskIndex(location, target));
        let pending: MapRun | undefined;
        const breather = new Breather();
        for await (const runs of disk.walk()) {
          throwIfCancelled(signal, 'The map');
          const batch: MapRun[] = [];
          for (const { source, ...run } of runs) {
            const next: MapRun = source === undefined ? run : { ...run, file: source.name };
            // Runs that go on across two regions of the map are one run to whoever reads it.
            if (pending !== undefined && continuesRun(pending, next)) {
              pending = { ...pending, length: pending.length + next.length };
              continue;
            }
            if (pending !== undefined) batch.push(pending);
            pending = next;
          }
          // A large disk with little in it is one run over many regions, most of them looked up without leaving the thread. A breath
          // lets others in; an empty batch is where a consumer that has stopped gets to end this.
          const due = breather.due;
          if (due) await breather.breathe();
          if (batch.length > 0 || due) yield batch;
        }
        if (pending !== undefined) yield [pending];
      }),

    volumes: ({ target }) =>
      use(target, async (point): Promise<VolumesReport> => {
        const found = await point.volumes();
        const findings: Finding[] = found.warnings.map((warning) => ({
          severity: 'suspicious',
          code: 'partition-table',
          ...warning,
          source: `disk ${warning.disk}`,
        }));
        for (const { disk, error } of found.errors) {
          findings.push({
            severity: 'damaged',
            code: 'disk-unreadable',
            message: error.message,
            source: `disk ${disk}`,
          });
        }
        const volumes = found.volumes.filter((volume) => target.disk === undefined || volume.disk === target.disk);
        return {
          findings,
          volumes: await Promise.all(
            volumes.map(async ({ name, disk, scheme, type, typeCode, label, uuid, start, size, bootable }) => ({
              name,
              disk,
              scheme,
              type,
              typeCode,
              ...(label === undefined ? {} : { label }),
              ...(uuid === undefined ? {} : { uuid }),
              start,
              size,
              bootable,
              ...(await fileSystemInfo(point, name)),
            })),
          ),
        };
      }),

    list: ({ target, path, long, recursive }) =>
      stream(target, (point, _location, signal) =>
        listRows(point, path, { long: long ?? false, recursive: recursive ?? false, disk: target.disk, signal }),
      ),

    stat: ({ target, path }) =>
      use(target, async (point): Promise<EntryDetails> => {
        const { volume, inside } = splitVmPath(path);
        const fs = await point.fileSystem(volume);
        const entry = await fs.entry(inside);
        const row = await entryRow(fs, entry, path, true);
        if (row.error !== undefined) return { ...row, attributes: [], layers: [], problems: [] };
        const problems: WireError[] = [];
        // A damaged attribute, or content that is encrypted, takes nothing away from the rest.
        const partly = <T>(part: Promise<T[]>): Promise<T[]> =>
          part.catch((error: unknown) => {
            if (!(error instanceof ChainliftError)) throw error;
            problems.push(toWireError(error));
            return [];
          });
        const attributes = await partly(fs.extendedAttributes(entry));
        const layers =
          entry.kind === 'file' ? await partly(layerShares(point, await point.volume(volume), fs, entry)) : [];
        return {
          ...row,
          attributes: attributes.map(({ name, value }) => ({ name, value: Buffer.from(value).toString('base64') })),
          layers,
          problems,
        };
      }),

    read: ({ target, path }) =>
      stream(target, async function* (point, _location, signal): AsyncGenerator<Uint8Array> {
        const { volume, inside } = splitVmPath(path);
        const fs = await point.fileSystem(volume);
        const content = await fs.open(await fs.entry(inside, { follow: true }));
        try {
          for (let at = 0; at < content.size; at += CHUNK) {
            throwIfCancelled(signal, 'The read');
            yield await content.read(at, Math.min(CHUNK, content.size - at));
          }
        } finally {
          await content.close();
        }
      }),

    preview: ({ target, path, limit }) =>
      use(target, async (point) => {
        const { volume, inside } = splitVmPath(path);
        const fs = await point.fileSystem(volume);
        const content = await fs.open(await fs.entry(inside, { follow: true }));
        try {
          const length = Math.min(content.size, limit, MAX_PREVIEW);
          const bytes = Buffer.from(await content.read(0, length)).toString('base64');
          return { bytes, size: content.size, truncated: length < content.size };
        } finally {
          await content.close();
        }
      }),

    changes: ({ target, path }) =>
      use(target, async (_point, location) =>
        directoryChanges(
          await targets.history(location),
          location.point,
          path,
          (id, body) => use({ ...target, vm: location.vm, point: id }, body),
          new AbortController().signal,
        ),
      ),

    layers: ({ target, paths }) =>
      use(target, (point) =>
        Promise.all(
          paths.map(async (path) => {
            try {
              const { volume, inside } = splitVmPath(path);
              const fs = await point.fileSystem(volume);
              const entry = await fs.entry(inside);
              return entry.kind === 'file' ? await layerShares(point, await point.volume(volume), fs, entry) : null;
            } catch (error) {
              // The row itself says what is wrong with its file; here it only has no layers to show.
              if (error instanceof ChainliftError) return null;
              throw error;
            }
          }),
        ),
      ),

    async copy(request) {
      const location = await targets.locate(request.target);
      if (request.paths.length === 0) throw new UsageError('There is nothing to copy');
      if (request.name !== undefined && request.paths.length > 1)
        throw new UsageError('One name cannot be given to several copies');
      const lease = pool.lease(location);
      return tasks.start('copy', copyTitle(request), async (task) => {
        try {
          const { sources, problems } = await findSources(lease.point, request, task);
          const { copyOut } = await import('../restore/copy.ts');
          const result = await copyOut(sources, { ...request, spare: isOfBackup(location) }, task);
          return { kind: 'copy', ...result, problems: [...problems, ...result.problems] };
        } finally {
          lease.release();
        }
      });
    },

    async hash({ target }) {
      const location = await targets.locate(target);
      const index = diskIndex(location, target);
      const lease = pool.lease(location);
      return tasks.start('hash', `Hash disk ${index} of ${location.vm} at ${location.pointName}`, async (task) => {
        try {
          const { hashDisk } = await import('./hash.ts');
          const { diskSource } = await import('./convert.ts');
          const disk = await lease.point.disk(index);
          return { kind: 'hash', ...(await hashDisk(disk, diskSource(location, index), task)) };
        } finally {
          lease.release();
        }
      });
    },

    async verify({ target }) {
      const { verifyLeaves, verifyScope } = await import('./verify.ts');
      const scope = await verifyScope(targets, target);
      const release = targets.folders.hold(scope.folder);
      return tasks.start('verify', scope.title, async (task) => {
        try {
          return { kind: 'verify', ...(await verifyLeaves(scope, task)) };
        } finally {
          release();
        }
      });
    },

    async convert(request) {
      const location = await targets.locate(request.target);
      const index = diskIndex(location, request.target);
      const { convertPoint } = await import('./convert.ts');
      return convertPoint(request, location, index, tasks);
    },

    async locateParent(request) {
      const found = await located.locate(request);
      targets.forget(request.source);
      await pool.forget(sourceOf(request.source).source);
      return found;
    },
    async forgetParent(request) {
      await located.forget(request);
      targets.forget(request.source);
      await pool.forget(sourceOf(request.source).source);
    },

    watchTasks: () => tasks.watchAll(),
    watchTask: ({ id }) => tasks.watch(id),
    async cancelTask({ id }) {
      tasks.cancel(id);
    },
    async dismissTask({ id }) {
      tasks.dismiss(id);
    },

    async startExport(request) {
      const location = await targets.locate(request.target);
      return exports.start(request, location, diskIndex(location, request.target));
    },
    stopExport: ({ id }) => exports.stop(id),
    watchExports: () => exports.watch(),
  };

  return {
    api,
    async close() {
      await tasks.cancelAll();
      await exports.close();
      await pool.close();
      await targets.close();
    },
  };
}

async function fileSystemInfo(point: OpenPoint, volume: string) {
  try {
    const fs = await point.fileSystem(volume);
    const { type, label, uuid, size, blockSize, free, features } = fs;
    return {
      fileSystem: {
        type,
        ...(label === undefined ? {} : { label }),
        ...(uuid === undefined ? {} : { uuid }),
        size,
        blockSize,
        ...(free === undefined ? {} : { free }),
        condition: fs.state.condition,
        evidence: fs.state.evidence,
        features,
      },
    };
  } catch (error) {
    if (!(error instanceof ChainliftError)) throw error;
    return { error: toWireError(error) };
  }
}

function parentOf({ recorded, alternatives, id, format }: ParentClaim): NonNullable<LayerInfo['parent']> {
  return {
    recorded,
    ...(alternatives === undefined ? {} : { alternatives }),
    ...(id === undefined ? {} : { id }),
    ...(format === undefined ? {} : { format }),
  };
}

function continuesRun(a: MapRun, b: MapRun): boolean {
  if (a.kind !== b.kind || a.layer !== b.layer || a.file !== b.file) return false;
  if (a.kind === 'compressed') return a.position === b.position;
  return a.kind === 'zero' || a.position! + a.length === b.position;
}

/** Everything of the catalog that a shell needs; real paths stay in the engine. */
function report(catalog: Catalog, notes: readonly Finding[]): RepositoryReport {
  const { source, kind, name, orphans } = catalog;
  return {
    source,
    kind,
    name,
    orphans,
    findings: [...catalog.findings, ...notes],
    vms: catalog.vms.map(({ config: _config, ...vm }) => ({
      ...vm,
      points: vm.points.map((point) => ({ ...point, disks: point.disks.map(({ path: _path, ...disk }) => disk) })),
    })),
  };
}
