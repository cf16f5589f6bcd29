import { defineConfig } from '@playwright/test';

/** The window in a real browser (window.spec.ts), and in Electron where its binary is (electron.spec.ts). */
export default defineConfig({
  testDir: 'test/e2e',
  timeout: 60_000,
  expect: { timeout: 15_000 },
  // Two cores, and each test has a server and a browser: one after the other is faster than all at once.
  workers: 1,
  fullyParallel: false,
  forbidOnly: process.env.CI !== undefined,
  reporter: [['list']],
  use: { trace: 'retain-on-failure' },
});
