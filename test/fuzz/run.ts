/** Runs mutants in processes of their own, with a clock and a ceiling on each. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';

/** What a mutant may cost. */
export const SECONDS = 5;
export const BYTES = 512 << 20;
/** Added to the clock for a machine that does something else as well. */
const GRACE_SECONDS = 10;

export interface Failure {
  readonly seed: number;
  readonly image: string | undefined;
  readonly what: string;
  readonly patches?: unknown;
}

export interface Outcome {
  readonly mutants: number;
  /** Mutants that still read as something; the others ended in a typed error. */
  readonly data: number;
  readonly slowest: number;
  readonly largest: number;
  readonly failures: readonly Failure[];
}

/** `npm run soak` bundles this, and says where the project is. */
const root = process.env.CHAINLIFT_ROOT ?? resolve(import.meta.dirname, '..', '..');

/** The worker as a program: Node does not start TypeScript. @returns its path. */
export async function buildWorker(): Promise<string> {
  const folder = join(root, 'node_modules', '.cache', 'chainlift');
  mkdirSync(folder, { recursive: true });
  const built = join(folder, `fuzz-worker-${process.pid}.mjs`);
  const manifest = createRequire(import.meta.url).resolve('rolldown/package.json');
  const source = join(root, 'test', 'fuzz', 'worker.ts');
  const options = ['--file', built, '--format', 'esm', '--platform', 'node'];
  await promisify(execFile)(process.execPath, [join(dirname(manifest), 'bin', 'cli.mjs'), source, ...options], {
    cwd: root,
  });
  return built;
}

/**
 * Looks at mutants `first` to `first + count - 1`, in `processes` processes that share them. A process that hangs or dies costs the
 * mutant it was at; another goes on behind it.
 */
export async function fuzz(
  worker: string,
  scratch: string,
  options: { first: number; count: number; processes: number; only?: string; say?: (text: string) => void },
): Promise<Outcome> {
  const share = Math.ceil(options.count / options.processes);
  const runs = Array.from({ length: options.processes }, (_, n) => {
    const first = options.first + n * share;
    const count = Math.max(0, Math.min(share, options.first + options.count - first));
    return stretch(worker, join(scratch, `fuzz-${n}`), first, count, options.only ?? '', options.say);
  });
  const parts = await Promise.all(runs);
  return {
    mutants: sum(parts.map((part) => part.mutants)),
    data: sum(parts.map((part) => part.data)),
    slowest: Math.max(0, ...parts.map((part) => part.slowest)),
    largest: Math.max(0, ...parts.map((part) => part.largest)),
    failures: parts.flatMap((part) => part.failures),
  };
}

/** Applies recorded patches to one golden image and looks at it. */
export async function replay(worker: string, scratch: string, file: string, image: string): Promise<Outcome> {
  return stretch(worker, scratch, 0, 1, image, undefined, file);
}

const sum = (numbers: readonly number[]): number => numbers.reduce((total, n) => total + n, 0);

async function stretch(
  worker: string,
  scratch: string,
  first: number,
  count: number,
  only: string,
  say: ((text: string) => void) | undefined,
  recorded?: string,
): Promise<Outcome> {
  const failures: Failure[] = [];
  let [mutants, data, slowest, largest] = [0, 0, 0, 0];
  let next = first;
  for (let round = 0; next < first + count; round++) {
    const args = [String(next), String(first + count - next), join(scratch, String(round)), only, recorded ?? ''];
    const child = spawn(process.execPath, ['--max-old-space-size=400', worker, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, CHAINLIFT_GOLDEN_IMAGES: join(root, 'test', 'data', 'images') },
    });
    let at: { seed: number; image: string } | undefined;
    const clock = watchdog(child);
    let stderr = '';
    child.stderr.on('data', (text) => {
      stderr = (stderr + text).slice(-4_000);
    });
    const ended = new Promise<string | null>((done) => child.on('close', (_code, signal) => done(signal)));
    for await (const line of createInterface({ input: child.stdout })) {
      clock.restart();
      const said = JSON.parse(line) as Record<string, unknown>;
      if (typeof said.started === 'string') {
        at = { seed: said.seed as number, image: said.started };
        continue;
      }
      mutants++;
      next = (said.seed as number) + 1;
      if (recorded !== undefined) next = first + count;
      if (said.read === 'data') data++;
      slowest = Math.max(slowest, said.took as number);
      largest = Math.max(largest, said.rss as number);
      const image = said.image as string | undefined;
      const failed = (what: string): void => {
        failures.push({ seed: said.seed as number, image: image ?? at?.image, what, patches: said.patches });
      };
      if (typeof said.failure === 'string') failed(said.failure);
      else if ((said.took as number) > SECONDS * 1000) failed(`took ${Math.round(said.took as number)} ms`);
      if ((said.rss as number) > BYTES) failed(`holds ${said.rss} bytes`);
      at = undefined;
      if (mutants % 1000 === 0) say?.(`${mutants} mutants`);
    }
    const signal = await ended;
    clock.stop();
    if (next >= first + count) break;
    const what =
      signal === null
        ? `the process ended: ${stderr}`
        : clock.fired
          ? 'it hangs'
          : `the process was ended by ${signal}: ${stderr}`;
    failures.push({ seed: at?.seed ?? next, image: at?.image, what });
    next = (at?.seed ?? next) + 1;
    // Something is wrong with all of them.
    if (failures.length > 50) break;
  }
  return { mutants, data, slowest, largest, failures };
}

/** Ends a process that has said nothing for too long. */
function watchdog(child: ChildProcess): { restart(): void; stop(): void; readonly fired: boolean } {
  let fired = false;
  const fire = (): void => {
    fired = true;
    child.kill('SIGKILL');
  };
  let timer = setTimeout(fire, (SECONDS + GRACE_SECONDS) * 1000);
  return {
    restart() {
      clearTimeout(timer);
      timer = setTimeout(fire, (SECONDS + GRACE_SECONDS) * 1000);
    },
    stop: () => clearTimeout(timer),
    get fired() {
      return fired;
    },
  };
}
