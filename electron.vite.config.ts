import { resolve } from 'node:path';
import react from '@vitejs/plugin-react';
import { defineConfig } from 'electron-vite';

const at = (path: string): string => resolve(import.meta.dirname, path);

/**
 * Three builds: everything that runs in Node (each entry is a process or a worker of its own), the preload script, the
 * window. The command line is built by scripts/build/build-cli.mjs. All dependencies but Electron itself are bundled, so that the
 * package needs no node_modules.
 */
export default defineConfig({
  main: {
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
          'disk-worker': at('main/engine/convert/disk-worker.ts'),
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
