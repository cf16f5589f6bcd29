import { existsSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { NotFoundError } from '../../engine/errors.ts';
import { openBrowser } from '../../web/open-browser.ts';
import { startWebShell } from '../../web/web-shell.ts';
import { runCommand } from '../context.ts';
import { say } from '../output.ts';

interface ServeOptions {
  readonly port?: number;
  readonly open?: boolean;
}

/** The built window, from wherever this module was bundled to. @throws NotFoundError when it was not built. */
function rendererFolder(): string {
  const here = dirname(fileURLToPath(import.meta.url));
  for (let folder = here; ; folder = dirname(folder)) {
    const candidate = join(folder, 'renderer');
    if (basename(folder) === 'out' && existsSync(join(candidate, 'index.html'))) return candidate;
    if (folder === dirname(folder)) throw new NotFoundError('The built window (out/renderer)', { lookedAbove: here });
  }
}

/** `serve [repository]`: the URL is the first line; serves until interrupted. */
export function serve(source: string | undefined, options: ServeOptions): Promise<void> {
  return runCommand(
    async ({ engine, out, interrupted }) => {
      const shell = await startWebShell({
        api: engine.api,
        rendererFolder: rendererFolder(),
        ...(source === undefined ? {} : { initialSource: resolve(source) }),
        ...(options.port === undefined ? {} : { port: options.port }),
      });
      try {
        out.line(shell.url);
        await out.flush();
        if (options.open === true) {
          const { opened, reason } = await openBrowser(shell.url);
          if (!opened) say(`Open the address above in a browser${reason === undefined ? '' : ` (${reason})`}.`);
        }
        await new Promise<void>((done) => {
          if (interrupted.aborted) done();
          else interrupted.addEventListener('abort', () => done(), { once: true });
        });
        return 0;
      } finally {
        // Also where the address could not be printed: a server that nobody can find would run for ever.
        await shell.close();
      }
    },
    { synchronous: false, remember: true },
  );
}
