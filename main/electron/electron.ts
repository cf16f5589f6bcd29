/** Entry of Electron's main process. Built to out/main/electron.js. */
import { join } from 'node:path';
import { runDesktop } from './desktop.ts';

runDesktop(join(import.meta.dirname, '..'));
