/** A 4 KiB read at chain depths 64 and 256 against one at depth 1, in one process, in turns. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fixture, hasPeer, importTypeScript, median, run } from './tools.mjs';

const MiB = 1 << 20;
const SIZE = 512 * MiB;
const DEPTHS = [64, 256];
const READS = 40_000;

const nameOf = (index) => `disk-${String(index).padStart(2, '0')}.vmdk`;

function makeFixture(folder, depth) {
  mkdirSync(folder);
  const at = nameOf;
  run('qemu-img', ['create', '-q', '-f', 'vmdk', at(1), String(SIZE)], { cwd: folder });
  run(
    'qemu-io',
    ['-f', 'vmdk', '-c', `write -q -P 1 0 ${SIZE / 2}`, '-c', `write -q -P 1 ${SIZE / 2} ${SIZE / 2}`, at(1)],
    { cwd: folder },
  );
  // Every link holds its share of the grains, spread over the whole disk: a read meets any of the files.
  for (let index = 2; index <= depth; index++) {
    run('qemu-img', ['create', '-q', '-f', 'vmdk', '-F', 'vmdk', '-b', at(index - 1), at(index)], { cwd: folder });
    const writes = [];
    for (let offset = index * 65536; offset + 65536 <= SIZE; offset += depth * 65536)
      writes.push('-c', `write -q -P ${index} ${offset} 65536`);
    run('qemu-io', ['-f', 'vmdk', ...writes, at(index)], { cwd: folder });
  }
}

export async function depth() {
  for (const peer of ['qemu-img', 'qemu-io'])
    if (!hasPeer(peer)) return [{ what: 'read at depth 64', skipped: `${peer} is not installed` }];
  const { openChain } = await importTypeScript('main/engine/chain/open.ts');
  const { Confinement } = await importTypeScript('main/engine/storage/confinement.ts');
  const rows = [];
  for (const depth of DEPTHS) {
    const folder = fixture(depth === 64 ? 'depth' : `depth-${depth}`, (making) => makeFixture(making, depth));
    const root = new Confinement(folder, { synchronous: true });
    const options = { synchronous: true };
    const disks = {
      shallow: await openChain(join(folder, nameOf(1)), root, options),
      deep: await openChain(join(folder, nameOf(depth)), root, options),
    };
    const target = new Uint8Array(4096);
    const pass = (disk) => {
      let x = 12345;
      const started = process.hrtime.bigint();
      for (let i = 0; i < READS; i++) {
        x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
        disk.readIntoSync(target, (x % (SIZE / 4096)) * 4096);
      }
      return Number(process.hrtime.bigint() - started) / READS;
    };
    const times = { shallow: [], deep: [] };
    for (let round = 0; round < 15; round++)
      for (const name of ['shallow', 'deep']) times[name].push(pass(disks[name]));
    await Promise.all(Object.values(disks).map((disk) => disk.close()));
    // The first rounds build the map and warm the page cache.
    const warm = (values) => median(values.slice(3));
    rows.push({
      what: `4 KiB random read at chain depth ${depth}`,
      against: 'depth 1',
      ratio: warm(times.deep) / warm(times.shallow),
      bar: 1.1,
      better: 'lower',
    });
  }
  return rows;
}
