import { resolve } from 'node:path';
import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

const project = resolve(import.meta.dirname, '../../../..');
export default defineConfig({
  root: import.meta.dirname,
  plugins: [react()],
  cacheDir: '/tmp/chainlift-preview-vite',
  server: { port: 5199, strictPort: true, fs: { allow: [project] }, watch: { ignored: ['**/node_modules/**'] } },
});
