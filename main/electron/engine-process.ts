/** Entry of Electron's utility process: all of the engine runs here, so that nothing it does can stop the window. */
import { createEngine } from '../engine/service/engine.ts';
import { serveEngine } from './serve-engine.ts';

const parent = Number(process.argv.find((argument) => argument.startsWith('--parent='))?.slice('--parent='.length));
if (!Number.isSafeInteger(parent) || parent <= 0 || process.parentPort === undefined) {
  throw new Error('The engine process is started by the window’s process');
}

serveEngine({ parentPort: process.parentPort, engine: createEngine({}), parent, exit: (code) => process.exit(code) });
