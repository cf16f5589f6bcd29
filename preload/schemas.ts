/**
 * Schemas of what a window may ask of the engine. The serving side checks every request with them before anything is done
 * (`rpc/server.ts`). Strings, lists and numbers are bounded; keys that are not in the contract are refused.
 */
import { type ZodType, z } from 'zod';
import type { ChainliftApi } from './api.ts';

/** Longest path: Linux's PATH_MAX is 4,096, Windows' extended paths have 32,767 characters. */
const MAX_PATH = 32_767;
/** Rows that one request may name; more than that is copied by its folder. */
const MAX_PATHS = 250_000;
/** Rows on screen are some tens. */
const MAX_LAYER_PATHS = 1_000;
export const MAX_PREVIEW_BYTES = 4 * 1024 * 1024;

const noNul = (text: string) => !text.includes('\0');
const text = (max: number) => z.string().min(1, 'must not be empty').max(max).refine(noNul, 'must not contain NUL');

/** Absolute on Linux and macOS (`/srv`), or on Windows (`C:\`, `\\server\share`). */
const ABSOLUTE = /^(?:\/|[A-Za-z]:[\\/]|\\\\)/;
const hostPath = text(MAX_PATH).regex(ABSOLUTE, 'must be an absolute path');
const guestPath = text(MAX_PATH).startsWith('/', 'must be an absolute path inside the VM');
const id = text(256);

export const targetSchema = z.strictObject({
  source: hostPath,
  vm: text(1_024).optional(),
  point: text(1_024).optional(),
  disk: z.int().min(0).max(4_095).optional(),
});

const none = z.strictObject({});
const ofTarget = z.strictObject({ target: targetSchema });
const ofEntry = z.strictObject({ target: targetSchema, path: guestPath });

/** `127.0.0.1:10809`, `localhost:0`, `[::1]:10809`: an export is never offered beyond this computer. */
const LOOPBACK = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\]):\d{1,5}$/;

export const REQUEST_SCHEMAS = {
  about: none,
  recent: none,
  forget: z.strictObject({ path: hostPath }),
  browse: z.strictObject({ path: hostPath.optional() }),
  scan: z.strictObject({ source: hostPath }),
  report: z.strictObject({ source: hostPath }),
  info: ofTarget,
  map: ofTarget,
  volumes: ofTarget,
  list: z.strictObject({
    target: targetSchema,
    path: guestPath,
    long: z.boolean().optional(),
    recursive: z.boolean().optional(),
  }),
  stat: ofEntry,
  read: ofEntry,
  preview: z.strictObject({ target: targetSchema, path: guestPath, limit: z.int().min(0).max(MAX_PREVIEW_BYTES) }),
  changes: ofEntry,
  layers: z.strictObject({ target: targetSchema, paths: z.array(guestPath).max(MAX_LAYER_PATHS) }),
  copy: z.strictObject({
    target: targetSchema,
    paths: z.array(guestPath).min(1, 'must name something to copy').max(MAX_PATHS),
    destination: hostPath,
    name: z.string().min(1).max(255).optional(),
    recursive: z.boolean(),
    verify: z.boolean(),
    overwrite: z.enum(['refuse', 'replace', 'rename', 'skip']),
  }),
  hash: ofTarget,
  verify: ofTarget,
  convert: z.strictObject({
    target: targetSchema,
    destination: hostPath,
    format: z.enum(['raw', 'qcow2', 'vmdk', 'vhdx']),
    variant: z.enum(['monolithicSparse', 'streamOptimized', 'monolithicFlat']).optional(),
    verify: z.boolean(),
    overwrite: z.enum(['refuse', 'replace']),
    resume: z.boolean(),
  }),
  locateParent: z.strictObject({ source: hostPath, child: text(MAX_PATH), parent: hostPath }),
  forgetParent: z.strictObject({ source: hostPath, child: text(MAX_PATH) }),
  watchTasks: none,
  watchTask: z.strictObject({ id }),
  cancelTask: z.strictObject({ id }),
  dismissTask: z.strictObject({ id }),
  startExport: z.strictObject({
    target: targetSchema,
    socket: hostPath.optional(),
    listen: z.string().max(64).regex(LOOPBACK, 'must be host:port of this computer').optional(),
    workers: z.int().min(1).max(64).optional(),
  }),
  stopExport: z.strictObject({ id }),
  watchExports: none,
} satisfies Record<keyof ChainliftApi, ZodType>;
