import { resolve } from 'node:path';
import react from '@vitejs/plugin-react';
import { defineConfig } from 'electron-vite';
import type { Plugin } from 'vite';

const at = (path: string): string => resolve(import.meta.dirname, path);

/**
 * Commander loads child_process, and with it the network stack, for sub-commands that are programs of their own. There are
 * none here, and each start of the command line would pay for it.
 */
const commanderWithoutPrograms: Plugin = {
  name: 'commander-without-programs',
  transform(code, id) {
    if (!/commander[\\/]lib[\\/]command\.js$/.test(id)) return undefined;
    const load = "const childProcess = require('node:child_process');";
    if (!code.includes(load)) this.error('commander no longer loads child_process as it did; look at it anew');
    return code.replace(
      load,
      "const childProcess = { spawn: (...args) => require('node:child_process').spawn(...args) };",
    );
  },
};

/**
 * Three builds: everything that runs in Node (each entry is a process or a worker of its own), the preload script, the
 * window. All dependencies but Electron itself are bundled, so that the command line starts fast and the package needs no
 * node_modules.
 */
export default defineConfig({
  main: {
    plugins: [commanderWithoutPrograms],
    build: {
      outDir: 'out/main',
      externalizeDeps: false,
      target: 'node20.19',
      minify: 'oxc',
      rolldownOptions: {
        input: {
          electron: at('main/electron/electron.ts'),
          'engine-process': at('main/electron/engine-process.ts'),
          'data-worker': at('main/engine/nbd/data-worker.ts'),
          cli: at('main/cli/cli.ts'),
        },
        external: ['electron', 'bufferutil', 'utf-8-validate'],
        output: {
          format: 'es',
          entryFileNames: '[name].js',
          chunkFileNames: 'chunks/[name]-[hash].js',
        },
      },
    },
  },
  preload: {
    build: {
      outDir: 'out/preload',
      externalizeDeps: false,
      rolldownOptions: {
        input: { bridge: at('preload/bridge/bridge.ts') },
        // A sandboxed preload script must be CommonJS.
        output: { format: 'cjs', entryFileNames: '[name].cjs' },
      },
    },
  },
  renderer: {
    root: at('renderer'),
    plugins: [react()],
    build: {
      outDir: at('out/renderer'),
      rolldownOptions: { input: { index: at('renderer/index.html') } },
    },
  },
});
