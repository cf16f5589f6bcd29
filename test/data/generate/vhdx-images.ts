/** The golden VHDXs; see `vhdx.sh`. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readWithLibvhdi } from '../../support/libvhdi.ts';
import { type Block, buildVhdx, diskOf, dirty, parentLocator, undoLastEntry, type VhdxImage, type VhdxOptions } from '../../support/vhdx-builder.ts';
import { type Entry, KIB, MIB, qemuTruth, run, scattered, text, withScratch, writeGolden } from './golden-writer.ts';

const out = process.argv[2]!;
const BUILT = 'test/support/vhdx-builder.ts after [MS-VHDX]';
const OWN = 'truth: what the builder put in';

const ids = [1, 2, 3].map((n) => `${String(n).repeat(8)}-0000-4000-8000-00000000000${n}`);

function byQemu(title: string, options: string, size: number): Entry {
  return withScratch((folder) => {
    const raw = join(folder, 'disk.raw');
    const image = join(folder, 'disk.vhdx');
    const disk = scattered(size % 97, size, 150);
    disk.fill(0, 2 * MIB, 3 * MIB);
    writeFileSync(raw, disk);
    run('qemu-img', 'convert', '-f', 'raw', '-O', 'vhdx', '-o', options, raw, image);
    const read = qemuTruth('vhdx', image, folder);
    if (!read.equals(disk)) throw new Error('qemu-img does not give back what it was given');
    const made = `qemu-img 7.2 convert -f raw -O vhdx -o ${options} disk.raw disk.vhdx; truth: qemu-img convert -O raw`;
    return { title, made, files: { 'web01.vhdx': readFileSync(image) }, leaf: 'web01.vhdx', disk: read };
  });
}

/** QEMU carries out its log at once; here its last entry is taken back, as if the host had stopped before that. */
function qemuLog(): Entry {
  return withScratch((folder) => {
    const image = join(folder, 'disk.vhdx');
    run('qemu-img', 'create', '-q', '-f', 'vhdx', '-o', 'subformat=dynamic,block_size=1M,log_size=1M', image, '8M');
    const writes = ['write -P 17 0 64k', 'write -P 34 3M 512', 'write -P 51 5M 1536k'];
    run('qemu-io', '-f', 'vhdx', ...writes.flatMap((write) => ['-c', write]), image);
    const bytes = readFileSync(image);
    undoLastEntry(bytes);
    writeFileSync(image, bytes);
    run('qemu-img', 'check', '-q', '-r', 'all', image);
    const title = 'dynamic, with a log to replay that QEMU wrote';
    const commands = writes.map((write) => `-c "${write}"`).join(' ');
    const made = `qemu-io 7.2 ${commands}, its last log entry taken back by test/support/vhdx-builder.ts; truth: qemu-img check -r all on a copy, then convert`;
    const disk = qemuTruth('vhdx', image, folder);
    return { title, made, files: { 'web01.vhdx': bytes }, leaf: 'web01.vhdx', disk };
  });
}

const page = (seed: number, at: number, size = MIB): Buffer => {
  const block = Buffer.alloc(size);
  for (let i = 0; i < size; i += 128 * KIB) text(seed, at + i, 1000 + (i % 7) * 100).copy(block, i);
  return block;
};
const whole = (seed: number, block: number): [number, Block] => [block, page(seed, block * MIB)];
/** Some sectors of a block: in clusters and alone, first and last among them. */
function part(seed: number, block: number, sectorSize: number): [number, Block] {
  const count = MIB / sectorSize;
  const sectors = new Set([0, 1, 7, 8, count - 1]);
  for (let i = 0; i < 24; i++) {
    const at = (Math.imul(i * 31 + seed * 7 + block, 2654435761) >>> 0) % count;
    for (let n = 0; n <= i % 5 && at + n < count; n++) sectors.add(at + n);
  }
  const content = (sector: number) => {
    const bytes = Buffer.alloc(sectorSize, 1 + (sector % 251));
    text(seed, block * MIB + sector * sectorSize, 200).copy(bytes, sector % 300);
    return bytes;
  };
  return [block, new Map([...sectors].sort((a, b) => a - b).map((sector) => [sector, content(sector)] as const))];
}

/** Throws unless libvhdi reads the chain (leaf first) as `disk`. */
function checkedByLibvhdi(chain: readonly VhdxImage[], disk: Buffer): string {
  return withScratch((folder) => {
    const paths = chain.map(({ bytes }, i) => {
      const path = join(folder, `${i}.vhdx`);
      writeFileSync(path, bytes);
      return path;
    });
    if (!readWithLibvhdi(paths, join(folder, 'raw')).equals(disk)) throw new Error('libvhdi reads something else');
    return `${OWN}, and libvhdi 20210425 reads the same`;
  });
}

/** Throws unless QEMU reads the image as `disk` once it has replayed its log. */
function checkedByQemu(image: VhdxImage, disk: Buffer): string {
  return withScratch((folder) => {
    const path = join(folder, 'x.vhdx');
    writeFileSync(path, image.bytes);
    run('qemu-img', 'check', '-q', '-r', 'all', path);
    if (!qemuTruth('vhdx', path, folder).equals(disk)) throw new Error('qemu-img reads something else');
    return `${OWN}, and qemu-img 7.2 reads the same (after check -r all where there is a log)`;
  });
}

function built(title: string, images: readonly VhdxImage[], truth: string, findings?: string[]): Entry {
  let disk: Buffer | undefined;
  for (const image of images) disk = diskOf(image, disk);
  const name = (i: number) => (i === 0 ? 'web01.vhdx' : `web01_${i}.avhdx`);
  return {
    title,
    made: `${BUILT}; ${truth}`,
    files: Object.fromEntries(images.map(({ bytes }, i) => [name(i), bytes])),
    leaf: name(images.length - 1),
    disk: disk!,
    ...(findings === undefined ? {} : { findings }),
  };
}

function base(sectorSize: number): VhdxImage {
  const blocks = new Map([whole(1, 0), whole(1, 2), whole(1, 1), whole(1, 3)]);
  return buildVhdx({ virtualSize: 6 * MIB + 4096, sectorSize, dataWriteGuid: ids[0]!, blocks });
}
function over(below: number, sectorSize: number, blocks: ReadonlyMap<number, Block>): VhdxImage {
  const parent = parentLocator(below === 0 ? 'web01.vhdx' : `web01_${below}.avhdx`, ids[below]!);
  return buildVhdx({ virtualSize: 6 * MIB + 4096, sectorSize, dataWriteGuid: ids[below + 1]!, parent, blocks });
}

function twoLinks(sectorSize: number): Entry {
  const below = base(sectorSize);
  // No ZERO block: libvhdi takes it for "ask the parent".
  const leaf = over(0, sectorSize, new Map<number, Block>([part(2, 1, sectorSize), whole(2, 2), part(2, 5, sectorSize)]));
  const truth = checkedByLibvhdi([leaf, below], diskOf(leaf, diskOf(below)));
  return built(`differencing, 2 links, blocks partly there, sectors of ${sectorSize} bytes`, [below, leaf], truth);
}

function threeLinks(): Entry {
  const middle = over(
    0,
    512,
    new Map<number, Block>([part(2, 0, 512), [1, 'zero'], whole(2, 2), [3, 'unmapped'], part(2, 4, 512), [6, 'undefined']]),
  );
  const leaf = over(1, 512, new Map<number, Block>([part(3, 0, 512), part(3, 1, 512), [2, 'zero'], part(3, 4, 512), part(3, 5, 512)]));
  const title = 'differencing, 3 links, blocks partly there in both, and every state';
  return built(title, [base(512), middle, leaf], OWN);
}

const states: VhdxOptions = {
  virtualSize: 6 * MIB + 3 * 512,
  blocks: new Map<number, Block>([whole(4, 6), whole(4, 0), [1, 'zero'], [2, 'unmapped'], [3, 'undefined'], whole(4, 4)]),
};
function large(): Entry {
  const options = { ...states, virtualSize: 6 * MIB + 4096, sectorSize: 4096 };
  const image = buildVhdx(options);
  return built('dynamic, sectors of 4 KiB, every state', [image], checkedByLibvhdi([image], diskOf(image)));
}

function dirtyBase(): Entry {
  const image = buildVhdx(states);
  const disk = diskOf(image);
  const { at } = image;
  dirty(image, [at.bat, at.metadata + 64 * KIB, at.blocks.get(0)!], Buffer.alloc(4096), 64 * KIB);
  return built('dynamic, with a log to replay over BAT, metadata and data', [image], checkedByQemu(image, disk));
}

function dirtyChild(): Entry {
  const blocks = new Map<number, Block>([part(5, 0, 512), [1, 'zero'], part(5, 3, 512)]);
  const leaf = over(0, 512, blocks);
  dirty(leaf, [leaf.at.bat, leaf.at.bitmaps.get(0)!, leaf.at.metadata]);
  return built('differencing, with a log to replay that goes round its end', [base(512), leaf], OWN);
}

function firstHeader(): Entry {
  const image = buildVhdx(states);
  image.bytes[image.at.headers[0] + 100]! ^= 1;
  const truth = checkedByQemu(image, diskOf(image));
  return built('dynamic, first header damaged', [image], truth, ['header-damaged']);
}

function firstRegionTable(): Entry {
  const image = buildVhdx(states);
  image.bytes.fill(0xff, image.at.regionTables[0] + 16, image.at.regionTables[0] + 48);
  return built('dynamic, first region table damaged', [image], OWN, ['region-table-damaged']);
}

writeGolden(
  'vhdx',
  [
    byQemu('dynamic, blocks of 1 MiB', 'subformat=dynamic,block_size=1M,log_size=1M', 6 * MIB + 512),
    byQemu('dynamic, blocks of 8 MiB, a log of 3 MiB', 'subformat=dynamic,block_size=8M,log_size=3M', 9 * MIB),
    byQemu('fixed', 'subformat=fixed,block_size=1M,log_size=1M', 4 * MIB),
    qemuLog(),
    large(),
    twoLinks(512),
    twoLinks(4096),
    threeLinks(),
    dirtyBase(),
    dirtyChild(),
    firstHeader(),
    firstRegionTable(),
  ],
  out,
);
