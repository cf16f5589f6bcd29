/** The golden QCOW2 and QCOW images; see `qcow.sh`. Each entry's `made` is the commands that made it, run in its folder. */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildQcow } from '../../support/qcow-builder.ts';
import { buildQcow2, type Cluster, modelOf, pattern, type Qcow2Options } from '../../support/qcow2-builder.ts';
import { type Entry, KIB, MIB, scattered, text, withScratch, writeGolden } from './golden-writer.ts';

const out = process.argv[2]!;
const QEMU = 'qemu-utils 7.2:';
const BUILT = 'test/support/qcow2-builder.ts after QEMU docs/interop/qcow2.txt; truth: what the builder put in';

interface Recipe {
  readonly title: string;
  /** Files that are there before the commands. */
  readonly given?: Readonly<Record<string, Buffer>>;
  /** One command a line: `qemu-img ...`, `qemu-io ...`. */
  readonly commands: string;
  readonly leaf?: string;
  /** Points to open: undefined for the present state. */
  readonly points?: readonly (string | undefined)[];
  readonly findings?: readonly string[];
  readonly format?: string;
  /** Changes the finished image: what no program can be told to do. */
  readonly patch?: (folder: string) => string;
}

/** An argument may stand in single quotes. */
function split(command: string): string[] {
  return [...command.matchAll(/'([^']*)'|(\S+)/g)].map((match) => match[1] ?? match[2]!);
}

function byQemu(recipe: Recipe): Entry[] {
  return withScratch((folder) => {
    for (const [name, bytes] of Object.entries(recipe.given ?? {})) writeFileSync(join(folder, name), bytes);
    const lines = recipe.commands.split('\n').map((line) => line.trim()).filter((line) => line !== '');
    for (const line of lines) {
      const [program, ...args] = split(line);
      try {
        execFileSync(program!, args, { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
      } catch (error) {
        // A process that is told to kill itself does not end well.
        if (!line.includes('sigraise')) throw error;
      }
    }
    const leaf = recipe.leaf ?? 'web01.qcow2';
    const patched = recipe.patch?.(folder);
    const files = Object.fromEntries(
      readdirSync(folder)
        .filter((name) => !name.endsWith('.given') && statSync(join(folder, name)).isFile())
        .map((name) => [name, readFileSync(join(folder, name))]),
    );
    return (recipe.points ?? [undefined]).map((point): Entry => {
      const disk = truth(folder, leaf, point);
      const made = `${QEMU} ${lines.join('; ')}${patched === undefined ? '' : `; ${patched}`}; truth: qemu-img convert`;
      return {
        title: point === undefined ? recipe.title : `${recipe.title}, snapshot ${point}`,
        made,
        files,
        leaf,
        disk,
        ...(point === undefined ? {} : { snapshot: point }),
        ...(recipe.findings === undefined ? {} : { findings: [...recipe.findings] }),
      };
    });
  });
}

function truth(folder: string, leaf: string, point: string | undefined): Buffer {
  const which = point === undefined ? [] : ['-l', `snapshot.id=${point}`];
  execFileSync('qemu-img', ['convert', ...which, '-O', 'raw', leaf, 'truth.given'], { cwd: folder });
  return readFileSync(join(folder, 'truth.given'));
}

function built(title: string, options: Qcow2Options): Entry {
  const { bytes, data } = buildQcow2(options);
  const files = { 'web01.qcow2': bytes, ...(data === undefined ? {} : { [options.dataFile!.name!]: data }) };
  return { title, made: BUILT, files, leaf: 'web01.qcow2', disk: modelOf(options, options.clusterBits) };
}

const source = (seed: number, size: number, every: number) => ({ 'disk.given': scattered(seed, size, every) });
const writes = (image: string, format: string, ...commands: string[]) =>
  `qemu-io -f ${format} ${commands.map((command) => `-c '${command}'`).join(' ')} ${image}`;
const convert = (options: string, target = 'web01.qcow2', format = 'qcow2') =>
  `qemu-img convert -f raw -O ${format} ${options} disk.given ${target}`;

/** A raw disk whose guest has written the header of a QCOW2 image with a backing file over its first bytes. */
const trap = Buffer.concat([
  buildQcow2({ size: MIB, clusterBits: 9, clusters: new Map(), backing: { name: 'secret.img', format: 'raw' } }).bytes,
  text(5, 0, 20 * KIB),
]);

const qcow2: Entry[] = [
  ...byQemu({
    title: 'v2',
    given: source(1, 6 * MIB + 512, 150),
    commands: convert('-o compat=0.10'),
  }),
  ...byQemu({
    title: 'v2, clusters of 512 bytes, compressed, written over in part',
    given: source(2, 200 * KIB, 9),
    commands: `${convert('-c -o compat=0.10,cluster_size=512')}
      ${writes('web01.qcow2', 'qcow2', 'write -P 7 1000 3000', 'write -P 8 150k 20k')}`,
  }),
  ...byQemu({
    title: 'v3, clusters of 64 KiB',
    given: source(3, 5 * MIB, 150),
    commands: `${convert('-o compat=1.1')}
      ${writes('web01.qcow2', 'qcow2', 'write -P 9 3M 1000')}`,
  }),
  ...byQemu({
    title: 'v3, clusters of 512 bytes, refcounts of one bit',
    given: source(4, 150 * KIB, 8),
    commands: convert('-o cluster_size=512,refcount_bits=1'),
  }),
  ...byQemu({
    title: 'v3, clusters of 2 MiB, refcounts of 64 bits',
    given: source(5, 9 * MIB + 1024, 400),
    commands: convert('-o cluster_size=2M,refcount_bits=64'),
  }),
  ...byQemu({
    title: 'v3, zero clusters with and without a place, discarded ones',
    given: source(6, MIB + 512 * KIB, 20),
    commands: `${convert('-o cluster_size=4096')}
      ${writes('web01.qcow2', 'qcow2', 'write -z 0 40k', 'write -zu 100k 64k', 'discard 400k 64k', 'write -z 1M 8k', 'write -P 3 42k 100')}`,
  }),
  ...byQemu({
    title: 'v3, zeros over a parent that holds data',
    given: source(7, MIB, 12),
    commands: `${convert('-o cluster_size=16384', 'base.qcow2')}
      qemu-img create -f qcow2 -o cluster_size=4096 -b base.qcow2 -F qcow2 web01.qcow2
      ${writes('web01.qcow2', 'qcow2', 'write -z 8k 200k', 'write -P 4 12k 1k', 'write -zu 512k 32k', 'discard 600k 64k')}`,
  }),
  ...byQemu({ title: 'v3, compressed with deflate', given: source(8, 3 * MIB, 30), commands: convert('-c') }),
  ...byQemu({
    title: 'v3, compressed with zstd',
    given: source(9, 3 * MIB, 30),
    commands: `${convert('-c -o compression_type=zstd')}
      ${writes('web01.qcow2', 'qcow2', 'write -P 5 1M 70k')}`,
  }),
  ...byQemu({
    title: 'v3, compressed with zstd, clusters of 2 MiB',
    given: source(10, 5 * MIB, 60),
    commands: convert('-c -o compression_type=zstd,cluster_size=2M'),
  }),
  ...byQemu({
    title: 'v3, compressed with deflate, clusters of 4 KiB, an end inside a cluster',
    given: source(11, MIB - 1536, 9),
    commands: convert('-c -o cluster_size=4096'),
  }),
  ...byQemu({
    title: 'v3, extended L2 entries',
    given: source(12, 2 * MIB, 40),
    commands: `${convert('-o extended_l2=on')}
      ${writes('web01.qcow2', 'qcow2', 'write -z 3k 9k', 'write -P 6 130k 5k', 'write -zu 256k 64k', 'discard 640k 34k')}`,
  }),
  ...byQemu({
    title: 'v3, extended L2 entries over a raw parent, parts compressed',
    given: { ...source(13, 600 * KIB, 12), 'base.raw': scattered(14, 900 * KIB, 9) },
    commands: `${convert('-c -o extended_l2=on,cluster_size=16k')}
      qemu-img rebase -u -f qcow2 -b base.raw -F raw web01.qcow2
      qemu-img resize web01.qcow2 1M
      ${writes('web01.qcow2', 'qcow2', 'write -P 7 700k 700', 'write -z 750k 4k', 'write -P 8 760k 1k', 'write -zu 800k 16k')}`,
    findings: ['size-mismatch'],
  }),
  ...byQemu({
    title: 'v3, external data file',
    commands: `qemu-img create -f qcow2 -o data_file=web01.data,cluster_size=4096 web01.qcow2 1M
      ${writes('web01.qcow2', 'qcow2', 'write -P 9 0 10k', 'write -z 4k 4k', 'write -P 10 700k 5000', 'discard 704k 4k')}`,
  }),
  ...byQemu({
    title: 'v3, external data file that is a raw disk',
    commands: `qemu-img create -f qcow2 -o data_file=web01.data,data_file_raw=on web01.qcow2 1M
      ${writes('web01.qcow2', 'qcow2', 'write -P 9 100k 10k', 'write -z 104k 2k', 'write -P 11 1000k 5000')}`,
  }),
  ...byQemu({
    title: 'v3, lazy refcounts, not closed',
    commands: `qemu-img create -f qcow2 -o lazy_refcounts=on web01.qcow2 4M
      ${writes('web01.qcow2', 'qcow2', 'write -P 12 0 100k', 'write -P 13 2M 200k', 'flush', 'sigraise 9')}`,
  }),
  ...byQemu({
    title: 'v3, marked as corrupt',
    given: source(15, MIB, 20),
    commands: convert(''),
    findings: ['corrupt-bit'],
    patch: (folder) => {
      const image = join(folder, 'web01.qcow2');
      const bytes = readFileSync(image);
      bytes[79]! |= 2;
      writeFileSync(image, bytes);
      return 'bit 1 of incompatible_features set';
    },
  }),
  ...byQemu({
    title: 'v3, preallocated',
    commands: `qemu-img create -f qcow2 -o preallocation=metadata,cluster_size=4096 web01.qcow2 1M
      ${writes('web01.qcow2', 'qcow2', 'write -P 14 300k 33k')}`,
  }),
  ...byQemu({
    title: 'v3, persistent bitmaps',
    commands: `qemu-img create -f qcow2 -o cluster_size=4096 web01.qcow2 2M
      qemu-img bitmap --add -g 512 web01.qcow2 monday
      ${writes('web01.qcow2', 'qcow2', 'write -P 15 100k 33k')}
      qemu-img bitmap --add web01.qcow2 tuesday
      ${writes('web01.qcow2', 'qcow2', 'write -P 16 600k 3k')}`,
  }),
  ...byQemu({
    title: 'chain of three, of changing sizes',
    given: { 'base.raw': scattered(16, 900 * KIB, 6) },
    commands: `qemu-img create -f qcow2 -b base.raw -F raw middle.qcow2 500k
      ${writes('middle.qcow2', 'qcow2', 'write -P 17 100k 9k')}
      qemu-img create -f qcow2 -o cluster_size=4096 -b middle.qcow2 -F qcow2 web01.qcow2 1M
      ${writes('web01.qcow2', 'qcow2', 'write -P 18 200k 9k', 'write -P 19 900k 1k')}`,
    findings: ['size-mismatch'],
  }),
  ...byQemu({
    title: 'chain of ten',
    commands: `qemu-img create -f qcow2 -o cluster_size=4096 s0.qcow2 256k
      ${writes('s0.qcow2', 'qcow2', 'write -P 20 0 200k')}
      ${Array.from({ length: 9 }, (_, i) => {
        const name = i === 8 ? 'web01.qcow2' : `s${i + 1}.qcow2`;
        return `qemu-img create -f qcow2 -o cluster_size=${i % 2 === 0 ? 512 : 4096} -b s${i}.qcow2 -F qcow2 ${name}
          ${writes(name, 'qcow2', `write -P ${30 + i} ${i * 23}k 5k`, `write -z ${i * 17 + 9}k 3k`)}`;
      }).join('\n')}`,
  }),
  ...byQemu({
    title: 'v2 with snapshots inside',
    given: source(17, MIB, 20),
    commands: `${convert('-o compat=0.10,cluster_size=4096')}
      qemu-img snapshot -c first web01.qcow2
      ${writes('web01.qcow2', 'qcow2', 'write -P 21 10k 30k')}
      qemu-img snapshot -c second web01.qcow2
      ${writes('web01.qcow2', 'qcow2', 'write -P 22 20k 90k')}`,
    points: [undefined, '1', '2'],
  }),
  ...byQemu({
    title: 'v3 with snapshots inside, on a parent',
    given: source(18, MIB, 20),
    commands: `${convert('-o cluster_size=4096', 'base.qcow2')}
      qemu-img create -f qcow2 -o extended_l2=on,cluster_size=16k -b base.qcow2 -F qcow2 web01.qcow2
      ${writes('web01.qcow2', 'qcow2', 'write -P 23 100k 2k')}
      qemu-img snapshot -c 'before – vorher' web01.qcow2
      ${writes('web01.qcow2', 'qcow2', 'write -z 100k 1k', 'write -P 24 300k 33k')}`,
    points: [undefined, '1'],
  }),
  ...byQemu({
    title: 'a parent recorded as raw, on which the guest wrote another image',
    given: { 'base.img': trap },
    commands: `qemu-img create -f qcow2 -o cluster_size=4096 -b base.img -F raw web01.qcow2
      ${writes('web01.qcow2', 'qcow2', 'write -P 25 9k 700')}`,
  }),
  ...byQemu({
    title: 'a parent recorded as a block device description',
    given: source(19, 300 * KIB, 9),
    commands: `${convert('', 'base.qcow2')}
      qemu-img create -u -f qcow2 -b 'json:{"driver":"qcow2","file":{"driver":"file","filename":"base.qcow2"}}' -F qcow2 web01.qcow2 300k
      ${writes('web01.qcow2', 'qcow2', 'write -P 26 9k 700')}`,
  }),
  built('v3, of a size that is no multiple of a sector', {
    size: 77_777,
    clusterBits: 12,
    clusters: new Map<number, Cluster>([
      [0, text(20, 0, 4096)],
      [7, { packed: text(20, 28_672, 4096) }],
      [18, text(20, 73_728, 4096)],
    ]),
  }),
  built('v3, a snapshot of another size, extra data of version 2', {
    size: 40 * 512,
    clusterBits: 9,
    clusters: new Map<number, Cluster>([
      [0, pattern(1, 512)],
      [30, { packed: pattern(2, 512) }],
    ]),
    snapshots: [{ id: 'old', name: '', size: 40 * 512, clusters: new Map([[3, pattern(3, 512)]]), extra: 0 }],
  }),
];
writeGolden('qcow2', qcow2, out);

const qcow: Entry[] = [
  ...byQemu({
    title: 'version 1',
    given: source(21, 3 * MIB, 40),
    commands: `${convert('', 'web01.qcow', 'qcow')}
      ${writes('web01.qcow', 'qcow', 'write -P 1 100k 7k')}`,
    leaf: 'web01.qcow',
  }),
  ...byQemu({
    title: 'version 1, compressed, written over in part',
    given: Object.fromEntries([0, 1, 2].map((n) => [`part${n}.given`, text(22, n * 4096, 4096)])),
    // (qemu-img convert -c writes QCOW too, but fails at its end.)
    commands: `qemu-img create -f qcow web01.qcow 3M
      ${writes('web01.qcow', 'qcow', ...Array.from({ length: 40 }, (_, i) => `write -c -s part${i % 3}.given ${i * 52}k 4k`))}
      ${writes('web01.qcow', 'qcow', 'write -P 2 5k 700', 'write -P 3 1M 64k')}`,
    leaf: 'web01.qcow',
  }),
  ...byQemu({
    title: 'version 1, a chain of three on QCOW2',
    given: source(23, MIB, 9),
    commands: `${convert('-o cluster_size=4096', 'base.qcow2')}
      qemu-img create -f qcow -b base.qcow2 -F qcow2 middle.qcow
      ${writes('middle.qcow', 'qcow', 'write -P 3 10k 3k')}
      qemu-img create -f qcow -b middle.qcow -F qcow web01.qcow
      ${writes('web01.qcow', 'qcow', 'write -P 4 11k 1k', 'write -P 5 500k 20k')}`,
    leaf: 'web01.qcow',
  }),
  {
    title: 'version 1, clusters of 64 KiB, tables of 64 entries',
    made: 'test/support/qcow-builder.ts after QEMU block/qcow.c; truth: what the builder put in',
    files: {
      'web01.qcow': buildQcow({
        size: 9 * MIB,
        clusterBits: 16,
        l2Bits: 6,
        clusters: new Map<number, Buffer | { readonly packed: Buffer }>([
          [0, text(24, 0, 65_536)],
          [70, { packed: text(24, 70 * 65_536, 65_536) }],
          [143, { packed: text(24, 143 * 65_536, 65_536) }],
        ]),
      }).bytes,
    },
    leaf: 'web01.qcow',
    disk: modelOf({
      size: 9 * MIB,
      clusters: new Map<number, Cluster>([0, 70, 143].map((n) => [n, text(24, n * 65_536, 65_536)])),
    }),
  },
];
writeGolden('qcow', qcow, out);
