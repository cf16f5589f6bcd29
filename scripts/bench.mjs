/**
 * `npm run bench [-- --only <part>]`: ratios against the peers that are installed, side by side in one run. Absolute times are not
 * printed: they say more about the machine than about the programs. Results are never a test.
 */
import { prepare } from './prepare.mjs';

prepare();

const parts = {
  convert: async () => (await import('./bench/convert.mjs')).convert(),
  depth: async () => (await import('./bench/depth.mjs')).depth(),
  open: async () => (await import('./bench/open.mjs')).open(),
  listing: async () => (await import('./bench/listing.mjs')).listing(),
  nbd: async () => (await import('./bench/nbd.mjs')).nbd(),
};
const only = process.argv.includes('--only') ? process.argv[process.argv.indexOf('--only') + 1] : undefined;

process.stdout.write('| what | against | ratio | bar | |\n|---|---|---|---|---|\n');
for (const [name, part] of Object.entries(parts)) {
  if (only !== undefined && only !== name) continue;
  for (const row of await part()) {
    if (row.skipped !== undefined) {
      process.stdout.write(`| ${row.what} | | skipped: ${row.skipped} | | |\n`);
      continue;
    }
    const holds = row.better === 'lower' ? row.ratio <= row.bar : row.ratio >= row.bar;
    const bar = `${row.better === 'lower' ? 'at most' : 'at least'} ${row.bar}x`;
    process.stdout.write(
      `| ${row.what} | ${row.against} | ${row.ratio.toFixed(2)}x | ${bar} | ${holds ? 'holds' : 'does not hold'} |\n`,
    );
  }
}
