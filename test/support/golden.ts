/** The golden images under test/data/images, and how a test gets at them. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { snapshotPath } from '../../main/engine/image/image.ts';

/** The fuzzer's worker is a bundle that lies elsewhere, and is told. */
const IMAGES = process.env.CHAINLIFT_GOLDEN_IMAGES ?? join(import.meta.dirname, '../data/images');

/** One entry of `test/data/images/<format>/truth.json`. */
export interface Golden {
  /** Name of the folder. */
  readonly format: string;
  readonly title: string;
  /** The command or builder that made it, and the source of its truth. */
  readonly made: string;
  /** Name in the repository -> stored file beside truth.json, each compressed with gzip. */
  readonly files: Readonly<Record<string, string>>;
  /** The image to open, by its name in the repository; may lead through an archive. */
  readonly leaf: string;
  /** Id of a snapshot inside the leaf. */
  readonly snapshot?: string;
  /** Virtual size in bytes. */
  readonly size: number;
  /** Of the whole disk. */
  readonly sha256: string;
  /** Codes of findings that verification must have besides notes: an image that is damaged on purpose and readable. */
  readonly findings?: readonly string[];
}

export function goldenImages(): Golden[] {
  if (!existsSync(IMAGES)) return [];
  return readdirSync(IMAGES)
    .sort()
    .filter((format) => existsSync(join(IMAGES, format, 'truth.json')))
    .flatMap((format) =>
      (JSON.parse(readFileSync(join(IMAGES, format, 'truth.json'), 'utf8')) as Omit<Golden, 'format'>[]).map(
        (golden) => ({
          ...golden,
          format,
        }),
      ),
    );
}

/** Writes the image's files into a new folder below `scratch`. */
export function unpackGolden(golden: Golden, scratch: string): string {
  const folder = mkdtempSync(join(scratch, 'golden-'));
  for (const [name, stored] of Object.entries(golden.files)) {
    const path = join(folder, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, gunzipSync(readFileSync(join(IMAGES, golden.format, stored))));
  }
  return folder;
}

/** What is opened: the leaf, or the snapshot inside it. */
export function goldenPath(golden: Golden, folder: string): string {
  const leaf = join(folder, golden.leaf);
  return golden.snapshot === undefined ? leaf : snapshotPath(leaf, golden.snapshot);
}
