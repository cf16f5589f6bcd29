/** `npm run soak [-- <minutes> [<seed>]]`: breaks copies of the demo at random and looks at all of each. Ten minutes by default. */
import { importTypeScript } from './bench/tools.mjs';
import { prepare } from './prepare.mjs';

prepare();
const minutes = Number(process.argv[2] ?? 10);
const seed = Number(process.argv[3] ?? Math.floor(Math.random() * 1e9));
process.stdout.write(`${minutes} minutes from seed ${seed}\n`);
const { soak } = await importTypeScript('test/soak/fuzz.ts', { minify: false });
const rounds = await soak(minutes * 60, seed, (text) => process.stdout.write(`${text}\n`));
process.stdout.write(`${rounds} rounds, every one answered\n`);
