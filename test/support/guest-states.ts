/** A guest's disk at three moments, for repositories of every origin: a GPT with an ext4, written by mkfs.ext4 and debugfs. */
import { createHash, randomBytes } from 'node:crypto';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { run } from './peers.ts';
import { sha256File } from './scratch.ts';

const SECTOR = 512;
export const MIB = 1 << 20;
export const DISK = 24 * MIB;
const PARTITION = 2048 * SECTOR;
export const STATES = 3;

export interface State {
  /** The whole disk. */
  readonly raw: string;
  readonly sha256: string;
  /** Content of every file, by its path in the volume. */
  readonly files: ReadonlyMap<string, Buffer>;
}

export interface ExpectedPoint {
  /** What `--point` is given. */
  readonly point: string;
  /** Which state its disk is. */
  readonly state: number;
  readonly memory?: boolean;
  readonly quiesced?: boolean;
}

/** A repository, and what a scan of it has to say. */
export interface Repository {
  readonly folder: string;
  /** As the scan names it. */
  readonly vm: string;
  readonly origin: string;
  /** Parents before children. */
  readonly points: readonly ExpectedPoint[];
}

/** The guest's disk at three moments: a file that changes, one that is lost, one that comes, and one that stays. */
export function makeStates(folder: string): State[] {
  const big = randomBytes(3 * MIB);
  const csv = (day: number): Buffer => Buffer.from(`order;amount\n${`${day};${day * 17}\n`.repeat(4_000 + day)}`);
  const contents: ReadonlyMap<string, Buffer>[] = [
    new Map([
      ['/srv/orders.csv', csv(0)],
      ['/srv/lost.txt', Buffer.from('gone on the second day\n')],
      ['/srv/deep/er/Grüße 日本.bin', big.subarray(0, 100_000)],
      ['/big.bin', big],
    ]),
    new Map([
      ['/srv/orders.csv', csv(1)],
      ['/srv/new.txt', Buffer.from('since the second day\n')],
      ['/srv/deep/er/Grüße 日本.bin', big.subarray(0, 100_000)],
      ['/big.bin', big],
    ]),
    new Map([
      ['/srv/orders.csv', csv(2)],
      ['/srv/new.txt', Buffer.from('since the second day\n')],
      ['/srv/deep/er/Grüße 日本.bin', big.subarray(7, 90_007)],
      ['/big.bin', big],
    ]),
  ];
  const raw = join(folder, 'state-0.raw');
  const tree = (state: number): string => join(folder, `tree-${state}`);
  for (const [state, files] of contents.entries()) {
    for (const [path, bytes] of files) {
      mkdirSync(dirname(join(tree(state), path)), { recursive: true });
      writeFileSync(join(tree(state), path), bytes);
    }
  }
  run('truncate', ['-s', String(DISK), raw]);
  run('sfdisk', ['--quiet', raw], { input: `label: gpt\nstart=${PARTITION / SECTOR}, type=linux\n` });
  const kilobytes = `${(DISK - 2 * MIB) / 1024}k`;
  run('mkfs.ext4', ['-q', '-F', '-E', `offset=${PARTITION}`, '-L', 'data', '-d', tree(0), raw, kilobytes]);
  for (let state = 1; state < STATES; state++) {
    const [before, after] = [contents[state - 1]!, contents[state]!];
    const next = join(folder, `state-${state}.raw`);
    copyFileSync(join(folder, `state-${state - 1}.raw`), next);
    const commands: string[] = [];
    for (const [path, bytes] of before) if (after.get(path)?.equals(bytes) !== true) commands.push(`rm "${path}"`);
    for (const [path, bytes] of after) {
      if (before.get(path)?.equals(bytes) !== true) commands.push(`write "${join(tree(state), path)}" "${path}"`);
    }
    run('debugfs', ['-w', '-f', '-', `${next}?offset=${PARTITION}`], { input: `${commands.join('\n')}\n` });
  }
  return contents.map((files, state) => {
    const path = join(folder, `state-${state}.raw`);
    return { raw: path, sha256: sha256File(path), files };
  });
}

/** Units in which `after` differs from `before` (from zeros, without it). */
export function changedUnits(before: Buffer | undefined, after: Buffer, unit: number): Map<number, Buffer> {
  const changed = new Map<number, Buffer>();
  const zeros = Buffer.alloc(unit);
  for (let at = 0; at < after.length; at += unit) {
    const piece = after.subarray(at, at + unit);
    if (!piece.equals(before === undefined ? zeros : before.subarray(at, at + unit))) changed.set(at / unit, piece);
  }
  return changed;
}

const UNIT = 64 << 10;

/** Writes where `after` differs from `before` with qemu-io. @param image its arguments that name the image. */
export function writeDifference(image: readonly string[], before: State, after: State, folder?: string): void {
  const commands: string[] = [];
  for (const [index, bytes] of changedUnits(readFileSync(before.raw), readFileSync(after.raw), UNIT)) {
    const piece = join(dirname(after.raw), `piece-${createHash('sha1').update(bytes).digest('hex')}`);
    writeFileSync(piece, bytes);
    commands.push('-c', `write -q -s ${piece} ${index * UNIT} ${bytes.length}`);
  }
  run('qemu-io', [...commands, ...image], folder === undefined ? {} : { cwd: folder });
}

/** Writes a file, and the folders it lies in. */
export const put = (path: string, bytes: Buffer | string): void => {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, bytes);
};
