/** Where the window was, kept in a small file of the profile. A file that is missing or makes no sense means the default place. */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { z } from 'zod';
import { warn } from './log.ts';

const pixels = z.int().min(-100_000).max(100_000);
const extent = z.int().min(1).max(100_000);
const boundsSchema = z.strictObject({ x: pixels, y: pixels, width: extent, height: extent, maximized: z.boolean() });

export type WindowBounds = z.infer<typeof boundsSchema>;
export interface Rectangle {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

export const minimumSize = { width: 860, height: 560 } as const;
export const defaultSize = { width: 1280, height: 820 } as const;
/** So much of the window must lie on a screen for a person to be able to take hold of it. */
const graspable = 96;

/** Reads the bounds. @returns undefined when there are none that could be used. */
export function loadBounds(file: string): WindowBounds | undefined {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') warn(`${file} cannot be read: ${String(error)}`);
    return undefined;
  }
  try {
    return boundsSchema.parse(JSON.parse(text));
  } catch {
    warn(`${file} holds no window bounds; the window opens in its default place`);
    return undefined;
  }
}

/** Writes the bounds, whole or not at all. Failing to is reported and harms nothing. */
export function saveBounds(file: string, bounds: WindowBounds): void {
  try {
    writeFileSync(`${file}.new`, JSON.stringify(bounds), { mode: 0o600 });
    renameSync(`${file}.new`, file);
  } catch (error) {
    warn(`${file} cannot be written: ${String(error)}`);
  }
}

/**
 * Where the window opens: where it was, if enough of it still lies on a screen (screens are unplugged and change their
 * resolution), else in the system's default place with its last size, at most a screen's.
 */
export function placeWindow(bounds: WindowBounds | undefined, workAreas: readonly Rectangle[]): Partial<Rectangle> {
  if (bounds === undefined) return { ...defaultSize };
  const { x, y } = bounds;
  const width = Math.max(bounds.width, minimumSize.width);
  const height = Math.max(bounds.height, minimumSize.height);
  const overlap = (from: number, length: number, areaFrom: number, areaLength: number): number =>
    Math.min(from + length, areaFrom + areaLength) - Math.max(from, areaFrom);
  const visible = workAreas.some(
    (area) =>
      overlap(x, width, area.x, area.width) >= graspable &&
      // The title bar is what a window is held by.
      y >= area.y - 8 &&
      y + graspable <= area.y + area.height,
  );
  if (visible) return { x, y, width, height };
  const widest = Math.max(...workAreas.map((area) => area.width), minimumSize.width);
  const highest = Math.max(...workAreas.map((area) => area.height), minimumSize.height);
  return { width: Math.min(width, widest), height: Math.min(height, highest) };
}
