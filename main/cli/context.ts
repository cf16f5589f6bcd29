/** What every command works with: an engine of its own, output, and one way to end. */
import type { TaskSnapshot, WireError } from '../../preload/api.ts';
import { CancelledError, ChainliftError, toWireError } from '../engine/errors.ts';
import { createEngine, type Engine } from '../engine/service/engine.ts';
import { duration, endProgressLine, Output, printable, progressLine, say, size } from './output.ts';

/** How a command ended: 0 done, 1 findings or failure, 2 wrong usage. */
export type ExitCode = 0 | 1 | 2;

export interface CommonOptions {
  readonly json?: boolean;
  readonly vm?: string;
  readonly point?: string;
  readonly disk?: number;
}

export interface Context {
  readonly engine: Engine;
  readonly out: Output;
  /**
   * Aborted by the first Ctrl-C, SIGTERM or hang-up. Only a command that looks at it takes these signals: one that has nothing to
   * tidy away is ended by the system, at once, even where it reads or writes without ever letting the event loop run.
   */
  readonly interrupted: AbortSignal;
}

export function targetOf(source: string, options: CommonOptions) {
  return {
    source,
    ...(options.vm === undefined ? {} : { vm: options.vm }),
    ...(options.point === undefined ? {} : { point: options.point }),
    ...(options.disk === undefined ? {} : { disk: options.disk }),
  };
}

/** Prints an error the way every command does: kind, message. One line, whatever names the message has in it. */
export function sayError(error: WireError): void {
  say(printable(`chainlift: ${error.kind}: ${error.message}`));
}

/** What ends a command: Ctrl-C, a polite kill, a terminal or connection that went away. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Runs a command's body and turns whatever happens into an exit code. */
export async function runCommand(
  body: (context: Context) => Promise<ExitCode>,
  options: { synchronous?: boolean; remember?: boolean } = {},
): Promise<void> {
  const controller = new AbortController();
  let hungUp = false;
  const interrupt = (signal: NodeJS.Signals): void => {
    hungUp ||= signal === 'SIGHUP';
    // A second one means: now. But a shell passes a hang-up on that the system sends as well, and nobody meant anything by it.
    if (controller.signal.aborted && signal !== 'SIGHUP') process.exit(130);
    controller.abort();
  };
  let listening = false;
  const interrupted = (): AbortSignal => {
    if (!listening) for (const signal of SIGNALS) process.on(signal, interrupt);
    listening = true;
    return controller.signal;
  };
  const engine = createEngine({
    synchronous: options.synchronous ?? true,
    // Only windows have a list of recent repositories; a script's use leaves no trace.
    remember: options.remember === true,
  });
  const out = new Output();
  let code: ExitCode;
  try {
    code = await body({
      engine,
      out,
      get interrupted() {
        return interrupted();
      },
    });
    await out.flush();
  } catch (error) {
    endProgressLine();
    if (!(error instanceof ChainliftError)) throw error;
    // Standard output may be what failed; the error that came first is the one to be told in any case.
    await out.flush().catch((second: unknown) => sayError(toWireError(second)));
    sayError(toWireError(error));
    code = error.kind === 'usage' ? 2 : 1;
  }
  await engine.close();
  process.exitCode = code;
  for (const signal of SIGNALS) process.off(signal, interrupt);
  // All is tidied up. Node aborts, with a core dump, where it ends by itself after its terminal has gone.
  if (hungUp) process.kill(process.pid, 'SIGHUP');
}

/** Follows a task to its end, with progress on a terminal; Ctrl-C cancels it. @throws CancelledError; failures are returned. */
export async function followTask(context: Context, started: TaskSnapshot): Promise<TaskSnapshot> {
  const { api } = context.engine;
  const cancel = (): void => void api.cancelTask({ id: started.id });
  context.interrupted.addEventListener('abort', cancel, { once: true });
  // Interrupted while the task was being prepared.
  if (context.interrupted.aborted) cancel();
  let last = started;
  try {
    for await (const snapshot of api.watchTask({ id: started.id })) {
      last = snapshot;
      progressLine(progressText(snapshot));
    }
  } finally {
    endProgressLine();
    context.interrupted.removeEventListener('abort', cancel);
  }
  if (last.state === 'cancelled') throw new CancelledError(last.title);
  return last;
}

function progressText({ title, progress, bytesPerSecond, secondsLeft }: TaskSnapshot): string {
  const share =
    progress.bytesTotal !== undefined && progress.bytesTotal > 0
      ? `${Math.floor((progress.bytesDone / progress.bytesTotal) * 100)} %`
      : '';
  const items = progress.itemsTotal === undefined ? '' : `${progress.itemsDone} of ${progress.itemsTotal}`;
  const rate = bytesPerSecond > 0 ? `${size(bytesPerSecond)}/s` : '';
  const left = secondsLeft === undefined ? '' : `${duration(secondsLeft)} left`;
  return [title, share, items, rate, left].filter((part) => part !== '').join(', ');
}
