/** QCOW2 (every sub-format) and QCOW of version 1 under the suite that every image format has to pass. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openLayer } from '../../../main/engine/image/formats.ts';
import { snapshotPath } from '../../../main/engine/image/image.ts';
import { describeImageLayer, type ExpectedKind, type ImageSample } from '../../conformance/image-layer.ts';
import { buildQcow, type QcowOptions } from '../../support/qcow-builder.ts';
import {
  buildQcow2,
  type Cluster,
  modelOf,
  pattern,
  type Qcow2Options,
  type State,
} from '../../support/qcow2-builder.ts';

/** Every cluster of a state as the run kind it must be. */
function kindsOf(state: State, clusterBits: number): ExpectedKind[] {
  const size = 2 ** clusterBits;
  const kinds: ExpectedKind[] = [];
  const add = (offset: number, length: number, kind: ExpectedKind['kind']) => {
    const inDisk = Math.min(length, state.size - offset);
    if (inDisk > 0) kinds.push({ offset, length: inDisk, kind });
  };
  for (let cluster = 0; cluster * size < state.size; cluster++) {
    const content = state.clusters.get(cluster);
    const at = cluster * size;
    if (content === undefined) add(at, size, 'absent');
    else if (content === 'zero' || content === 'zero-allocated') add(at, size, 'zero');
    else if (Buffer.isBuffer(content)) add(at, size, 'data');
    else if ('packed' in content) add(at, size, 'compressed');
    else {
      content.forEach((sub, i) => {
        add(at + (i * size) / 32, size / 32, Buffer.isBuffer(sub) ? 'data' : sub);
      });
    }
  }
  return kinds;
}

function sample(title: string, options: Qcow2Options): ImageSample {
  const bits = options.clusterBits ?? 16;
  return {
    title,
    write(folder) {
      const { bytes, data } = buildQcow2(options);
      writeFileSync(join(folder, 'disk.qcow2'), bytes);
      if (data !== undefined) writeFileSync(join(folder, options.dataFile!.name!), data);
      return { path: join(folder, 'disk.qcow2'), model: modelOf(options, bits), kinds: kindsOf(options, bits) };
    },
  };
}

const bytes = (cluster: number, bits: number) => pattern(cluster, 2 ** bits);

/** Data in several tables, an end inside a cluster. */
function clusters(bits: number, kinds: Readonly<Record<number, 'data' | 'zero' | 'zero-allocated' | 'packed'>>) {
  return new Map<number, Cluster>(
    Object.entries(kinds).map(([key, kind]) => {
      const cluster = Number(key);
      if (kind === 'data') return [cluster, bytes(cluster, bits)];
      return [cluster, kind === 'packed' ? { packed: bytes(cluster, bits) } : kind];
    }),
  );
}

const sub = (n: number, bits: number) => pattern(n, 2 ** bits / 32);
const present: State = {
  size: 200 * 512 + 100,
  clusters: clusters(9, { 0: 'data', 1: 'data', 70: 'data', 71: 'zero', 130: 'packed', 200: 'data' }),
};

describeImageLayer({
  format: 'qcow2',
  open: openLayer,
  samples: [
    sample('v2, clusters of 4 KiB', {
      version: 2,
      clusterBits: 12,
      size: 700 * 4096 + 512,
      clusters: clusters(12, { 0: 'data', 1: 'data', 5: 'packed', 6: 'packed', 511: 'data', 512: 'data', 700: 'data' }),
    }),
    sample('v3, clusters of 512 bytes, zero clusters, data before tables', {
      ...present,
      clusterBits: 9,
      dataFirst: true,
    }),
    sample('v3, clusters of 64 KiB, a backing file', {
      size: 20 * 65_536,
      backing: { name: 'base.img', format: 'raw' },
      clusters: clusters(16, { 2: 'data', 3: 'zero', 4: 'zero-allocated', 7: 'packed', 8: 'packed', 19: 'packed' }),
    }),
    sample('v3, zstd', {
      clusterBits: 12,
      zstd: true,
      size: 40 * 4096,
      clusters: clusters(12, { 0: 'packed', 1: 'packed', 2: 'packed', 9: 'data', 39: 'packed' }),
    }),
    sample('v3, extended L2 entries', {
      clusterBits: 14,
      extendedL2: true,
      size: 12 * 16_384 - 4096 + 512,
      backing: { name: 'base.img', format: 'raw' },
      clusters: new Map<number, Cluster>([
        ...clusters(14, { 0: 'data', 1: 'zero', 2: 'packed', 11: 'data' }),
        [4, Array.from({ length: 32 }, (_, i) => (i % 3 === 0 ? sub(i, 14) : i % 3 === 1 ? 'zero' : 'absent'))],
        [5, Array.from({ length: 32 }, (_, i) => (i < 3 ? 'zero' : 'absent'))],
        [6, Array.from({ length: 32 }, (_, i) => (i > 20 ? sub(i, 14) : 'absent'))],
      ]),
    }),
    sample('v3, external data file', {
      clusterBits: 12,
      size: 30 * 4096,
      dataFile: { name: 'disk.data' },
      clusters: clusters(12, { 0: 'data', 1: 'data', 4: 'zero', 5: 'zero-allocated', 29: 'data' }),
    }),
    sample('v3, refcounts of one bit', {
      ...present,
      clusters: clusters(9, { 3: 'data' }),
      clusterBits: 9,
      refcountOrder: 0,
    }),
    sample('v3, refcounts of 64 bits', { ...present, clusterBits: 9, refcountOrder: 6 }),
    {
      title: 'v3, a snapshot inside',
      write(folder) {
        const shared = bytes(1, 9);
        const then: State = {
          size: 90 * 512,
          clusters: new Map<number, Cluster>([
            [1, shared],
            ...clusters(9, { 2: 'data', 3: 'packed', 4: 'zero', 80: 'data' }),
          ]),
        };
        const now: State = {
          size: 100 * 512,
          clusters: new Map<number, Cluster>([[1, shared], ...clusters(9, { 50: 'data' })]),
        };
        const built = buildQcow2({ ...now, clusterBits: 9, snapshots: [{ ...then, id: '7', name: 'before' }] });
        const image = join(folder, 'disk.qcow2');
        writeFileSync(image, built.bytes);
        return { path: snapshotPath(image, '7'), model: modelOf(then, 9), kinds: kindsOf(then, 9) };
      },
    },
  ],
});

function sampleV1(title: string, options: QcowOptions): ImageSample {
  const bits = options.clusterBits ?? 12;
  return {
    title,
    write(folder) {
      writeFileSync(join(folder, 'disk.qcow'), buildQcow(options).bytes);
      const state: State = options;
      return { path: join(folder, 'disk.qcow'), model: modelOf(state, bits), kinds: kindsOf(state, bits) };
    },
  };
}

describeImageLayer({
  format: 'qcow',
  open: openLayer,
  samples: [
    sampleV1('clusters of 4 KiB', {
      size: 1100 * 4096 + 512,
      clusters: clusters(12, { 0: 'data', 1: 'packed', 2: 'packed', 511: 'data', 512: 'data', 1100: 'data' }) as Map<
        number,
        Buffer
      >,
    }),
    sampleV1('clusters of 512 bytes and a backing file', {
      clusterBits: 9,
      l2Bits: 12,
      backing: 'base.img',
      size: 5000 * 512,
      clusters: clusters(9, { 0: 'data', 1: 'data', 4095: 'packed', 4096: 'data', 4999: 'packed' }) as Map<
        number,
        Buffer
      >,
    }),
  ],
});
