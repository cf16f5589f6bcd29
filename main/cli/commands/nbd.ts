import { resolve } from 'node:path';
import { type CommonOptions, runCommand, targetOf } from '../context.ts';
import { say } from '../output.ts';

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
        say(`Serving ${started.description}. Ctrl-C ends it.`);
        for (const { title, command } of started.commands) say(`${title}:\n  ${command}`);
      }
      await new Promise<void>((done) => {
        if (interrupted.aborted) done();
        else interrupted.addEventListener('abort', () => done(), { once: true });
      });
      await engine.api.stopExport({ id: started.id });
      return 0;
    },
    { synchronous: true },
  );
}
