import { resolve } from 'node:path';
import { IoError } from '../../engine/errors.ts';
import { type CommonOptions, runCommand, targetOf } from '../context.ts';
import { printable, say } from '../output.ts';

interface NbdOptions extends CommonOptions {
  readonly socket?: string;
  readonly listen?: string;
  readonly workers?: number;
}

/** `nbd <source>`: the URI is the first line; serves until interrupted. */
export function nbd(source: string, options: NbdOptions): Promise<void> {
  return runCommand(
    async ({ engine, out, interrupted }) => {
      const started = await engine.api.startExport({
        target: targetOf(source, options),
        ...(options.socket === undefined ? {} : { socket: resolve(options.socket) }),
        ...(options.listen === undefined ? {} : { listen: options.listen }),
        ...(options.workers === undefined ? {} : { workers: options.workers }),
      });
      if (options.json) out.json(started);
      else out.line(started.uri);
      await out.flush();
      if (process.stderr.isTTY) {
        say(`Serving ${printable(started.description)}. Ctrl-C ends it.`);
        for (const { title, command } of started.commands) say(`${title}:\n  ${printable(command)}`);
      }
      const list = engine.api.watchExports({})[Symbol.asyncIterator]();
      const stop = (): void => void list.return?.();
      interrupted.addEventListener('abort', stop, { once: true });
      if (interrupted.aborted) stop();
      // Until it is interrupted, or the export ends by itself: then nothing is served, and waiting on would hide it.
      for (let step = await list.next(); step.done !== true; step = await list.next()) {
        if (!step.value.some(({ id }) => id === started.id)) {
          throw new IoError('The export ended by itself: one of its data workers failed', { uri: started.uri });
        }
      }
      await engine.api.stopExport({ id: started.id });
      return 0;
    },
    { synchronous: true },
  );
}
