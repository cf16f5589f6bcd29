/** A process of its own for each disk that is opened, so that its peak is this disk's alone. */
import { dirname } from 'node:path';
import { openChain } from '../../main/engine/chain/open.ts';
import { Confinement } from '../../main/engine/storage/confinement.ts';

const [path, size, stretch, every] = process.argv.slice(2);
const started = process.hrtime.bigint();
const folder = new Confinement(dirname(path), { synchronous: true });
const disk = await openChain(path, folder, { synchronous: true });
const target = new Uint8Array(4096);
const stretches = Math.floor(Number(size) / Number(stretch) / Number(every));
let x = 12345;
let first;
for (let i = 0; i < 1000; i++) {
  x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
  const at = (x % stretches) * Number(stretch) * Number(every) + ((x >>> 8) % (Number(stretch) / 4096)) * 4096;
  disk.readIntoSync(target, at);
  first ??= Number(process.hrtime.bigint() - started);
}
process.stdout.write(JSON.stringify({ first, peak: process.resourceUsage().maxRSS * 1024 }));
