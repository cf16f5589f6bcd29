import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/unit/**/*.test.ts', 'test/unit/**/*.test.tsx'],
          testTimeout: 30_000,
        },
      },
      {
        test: {
          name: 'peers',
          include: ['test/peers/**/*.test.ts'],
          testTimeout: 300_000,
          hookTimeout: 300_000,
          // Peers are whole programs (QEMU, fio, loop devices): one file at a time leaves them the machine's two cores.
          fileParallelism: false,
        },
      },
    ],
  },
});
