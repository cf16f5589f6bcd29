/** `npm run dev`: electron-vite's development mode, with reloading; needs Electron's binary. */
import { join } from 'node:path';
import { must, prepare, root } from './prepare.mjs';

prepare();
must(process.execPath, [
  join(root, 'node_modules', 'electron-vite', 'bin', 'electron-vite.js'),
  'dev',
  ...process.argv.slice(2),
]);
