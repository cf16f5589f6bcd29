/**
 * Opening a disk of 64 TiB of which one hundredth is allocated, and reading a thousand of its blocks, against the same with a disk
 * of 64 GiB: time to the first block, and peak memory. Files are sparse: their tables are whole, what they point at is holes.
 */
import { closeSync, ftruncateSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { bundleProgram, fixture, hasPeer, median, run } from './tools.mjs';

const GiB = 2 ** 30;
const TiB = 2 ** 40;
const SIZES = { large: 64 * TiB, small: 64 * GiB };
/** Every hundredth stretch of the disk is allocated whole. */
const EVERY = 100;
const BAR_BYTES = 256 * 2 ** 20;

/** QEMU's docs/interop/qcow2.txt: version 3, clusters of 64 KiB; one L2 table covers 512 MiB. */
function writeQcow2(path, size) {
  const cluster = 65_536;
  const covered = (cluster / 8) * cluster;
  const tables = Math.ceil(size / covered);
  const l1Bytes = Math.ceil((tables * 8) / cluster) * cluster;
  const used = Array.from({ length: tables }, (_, i) => i).filter((i) => i % EVERY === 0);
  const l1At = cluster;
  const l2At = l1At + l1Bytes;
  const dataAt = l2At + used.length * cluster;
  const fd = openSync(path, 'w');
  const header = Buffer.alloc(104);
  header.writeUInt32BE(0x514649fb, 0);
  header.writeUInt32BE(3, 4);
  header.writeUInt32BE(16, 20);
  header.writeBigUInt64BE(BigInt(size), 24);
  header.writeUInt32BE(tables, 36);
  header.writeBigUInt64BE(BigInt(l1At), 40);
  // Refcounts are not needed to read; lazy and dirty, as an image is whose writer died.
  header.writeBigUInt64BE(1n, 72);
  header.writeBigUInt64BE(1n, 80);
  header.writeBigUInt64BE(BigInt(dataAt + used.length * covered), 48);
  header.writeUInt32BE(1, 56);
  header.writeUInt32BE(4, 96);
  header.writeUInt32BE(104, 100);
  writeSync(fd, header, 0, header.length, 0);
  const l1 = Buffer.alloc(l1Bytes);
  const flag = 1n << 63n;
  for (const [n, index] of used.entries()) {
    l1.writeBigUInt64BE(flag | BigInt(l2At + n * cluster), index * 8);
    const l2 = Buffer.alloc(cluster);
    for (let i = 0; i < cluster / 8; i++) l2.writeBigUInt64BE(flag | BigInt(dataAt + n * covered + i * cluster), i * 8);
    writeSync(fd, l2, 0, cluster, l2At + n * cluster);
  }
  writeSync(fd, l1, 0, l1.length, l1At);
  ftruncateSync(fd, dataAt + used.length * covered + cluster);
  closeSync(fd);
  return { stretch: covered };
}

/** [MS-VHDX] 2.5: an empty image by qemu-img, whose block allocation table is then filled in. */
function writeVhdx(path, size) {
  const block = 32 * 2 ** 20;
  run('qemu-img', ['create', '-q', '-f', 'vhdx', '-o', `block_size=${block}`, path, String(size)]);
  const fd = openSync(path, 'r+');
  const region = readFileSync(path, { flag: 'r' }).subarray(192 * 1024, 256 * 1024);
  const guid = Buffer.from('6677c22d23f600429d64115e9bfd4a08', 'hex');
  const entry = region.indexOf(guid);
  const batAt = Number(region.readBigUInt64LE(entry + 16));
  const batBytes = region.readUInt32LE(entry + 24);
  const ratio = (2 ** 23 * 512) / block;
  const bat = Buffer.alloc(batBytes);
  let next = 1024;
  for (let index = 0; index < size / block; index += EVERY) {
    const at = (index + Math.floor(index / ratio)) * 8;
    bat.writeBigUInt64LE(6n | (BigInt(next) << 20n), at);
    next += block / 2 ** 20;
  }
  writeSync(fd, bat, 0, bat.length, batAt);
  ftruncateSync(fd, next * 2 ** 20);
  closeSync(fd);
  return { stretch: block };
}

/** VMware Virtual Disk Format 5.0: split into sparse extents of at most 2 TiB; a grain table covers 32 MiB. */
function writeVmdk(folder, size) {
  const sector = 512;
  const covered = 512 * 65_536;
  // As many files for the small disk as for the large one: what is compared is the size.
  const extent = size / 32;
  const names = [];
  for (let n = 0; n * extent < size; n++) {
    const name = `disk-s${String(n + 1).padStart(3, '0')}.vmdk`;
    names.push(`RW ${extent / sector} SPARSE "${name}"`);
    const tables = extent / covered;
    const gdAt = 65_536;
    const gtAt = gdAt + Math.ceil((tables * 4) / 65_536) * 65_536;
    const used = Array.from({ length: tables }, (_, i) => i).filter((i) => i % EVERY === 0);
    const dataAt = gtAt + Math.ceil((used.length * 2_048) / 65_536) * 65_536;
    const fd = openSync(join(folder, name), 'w');
    const header = Buffer.alloc(512);
    header.write('KDMV', 0, 'latin1');
    header.writeUInt32LE(1, 4);
    header.writeUInt32LE(1, 8);
    header.writeBigUInt64LE(BigInt(extent / sector), 12);
    header.writeBigUInt64LE(128n, 20);
    header.writeUInt32LE(512, 44);
    header.writeBigUInt64LE(BigInt(gdAt / sector), 56);
    header.writeBigUInt64LE(BigInt(dataAt / sector), 64);
    header.write('\n \r\n', 73, 'latin1');
    writeSync(fd, header, 0, 512, 0);
    const gd = Buffer.alloc(tables * 4);
    for (const [i, index] of used.entries()) {
      gd.writeUInt32LE((gtAt + i * 2_048) / sector, index * 4);
      const gt = Buffer.alloc(2_048);
      for (let grain = 0; grain < 512; grain++)
        gt.writeUInt32LE((dataAt + i * covered) / sector + grain * 128, grain * 4);
      writeSync(fd, gt, 0, gt.length, gtAt + i * 2_048);
    }
    writeSync(fd, gd, 0, gd.length, gdAt);
    ftruncateSync(fd, dataAt + used.length * covered);
    closeSync(fd);
  }
  writeFileSync(
    join(folder, 'disk.vmdk'),
    `# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="twoGbMaxExtentSparse"\n${names.join('\n')}\nddb.adapterType = "lsilogic"\n`,
  );
  return { stretch: covered };
}

const FORMATS = {
  QCOW2: [writeQcow2, 'disk.qcow2'],
  VHDX: [writeVhdx, 'disk.vhdx'],
  'VMDK in 32 extents': [writeVmdk, undefined],
};

export async function open() {
  if (!hasPeer('qemu-img')) return [{ what: 'opening 64 TiB', skipped: 'qemu-img is not installed' }];
  const program = await bundleProgram('scripts/bench/open-program.mjs');
  const rows = [];
  for (const [title, [write, name]] of Object.entries(FORMATS)) {
    const results = {};
    for (const [which, size] of Object.entries(SIZES)) {
      let stretch;
      const folder = fixture(`open-${title.slice(0, 4).toLowerCase()}-${which}`, (making) => {
        mkdirSync(making);
        ({ stretch } = write(name === undefined ? making : join(making, name), size));
        writeFileSync(join(making, 'stretch'), String(stretch));
      });
      const path = join(folder, name ?? 'disk.vmdk');
      stretch = readFileSync(join(folder, 'stretch'), 'utf8');
      results[which] = { path, size, stretch, first: [], peak: [] };
    }
    for (let round = 0; round < 7; round++) {
      for (const result of Object.values(results)) {
        const args = [program, result.path, String(result.size), result.stretch, String(EVERY)];
        const { first, peak } = JSON.parse(run(process.execPath, args));
        result.first.push(first);
        result.peak.push(peak);
      }
    }
    rows.push(
      {
        what: `first block of 64 TiB, ${title}`,
        against: '64 GiB',
        ratio: median(results.large.first) / median(results.small.first),
        bar: 2,
        better: 'lower',
      },
      {
        what: `peak memory, 1,000 blocks of 64 TiB, ${title}`,
        against: '256 MB',
        ratio: median(results.large.peak) / BAR_BYTES,
        bar: 1,
        better: 'lower',
      },
    );
  }
  return rows;
}
