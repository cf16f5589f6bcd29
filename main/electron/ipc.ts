/**
 * The one way in for calls of the window to the main process. Every call is checked for who sends it (the main frame of our
 * window, showing our page) and for what it sends (a schema of its arguments), and every failure goes back as data, since
 * Electron carries no more of an error than its message.
 */
import type { IpcMain, IpcMainEvent, IpcMainInvokeEvent, WebContents } from 'electron';
import type { ZodType } from 'zod';
import type { WireError } from '../../preload/api.ts';
import { DeniedError, UsageError } from '../engine/errors.ts';
import { wireError } from '../web/wire-error.ts';
import { warn } from './log.ts';
import { isOfPage } from './page.ts';

/** What an `invoke` is answered with. The preload script turns `error` into a rejection. */
export type Outcome<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: WireError };

type Sender = Pick<IpcMainEvent, 'sender' | 'senderFrame'> | Pick<IpcMainInvokeEvent, 'sender' | 'senderFrame'>;

export class WindowCalls {
  readonly #ipc: IpcMain;
  readonly #contents: () => WebContents | undefined;
  readonly #page: string;

  /** `contents` is the web content of our window while there is one. */
  constructor(ipc: IpcMain, contents: () => WebContents | undefined, page: string) {
    this.#ipc = ipc;
    this.#contents = contents;
    this.#page = page;
  }

  /** Whether an event comes from the main frame of our window and that frame shows our page. */
  trusts(event: Sender): boolean {
    const frame = event.senderFrame;
    return (
      event.sender === this.#contents() && frame !== null && frame.parent === null && isOfPage(frame.url, this.#page)
    );
  }

  /** Answers `ipcRenderer.invoke`. `schema` is of the list of arguments. */
  handle<Arguments extends readonly unknown[], Result>(
    channel: string,
    schema: ZodType<Arguments>,
    handler: (...args: Arguments) => Promise<Result> | Result,
  ): void {
    this.#ipc.handle(channel, async (event, ...args: unknown[]): Promise<Outcome<Result>> => {
      try {
        if (!this.trusts(event)) throw new DeniedError(channel, 'it does not come from the window');
        const checked = schema.safeParse(args);
        if (!checked.success) {
          const issue = checked.error.issues[0];
          throw new UsageError(`${channel}: ${issue?.path.join('.') ?? ''} ${issue?.message ?? 'is not valid'}`);
        }
        return { ok: true, value: await handler(...checked.data) };
      } catch (error) {
        const wire = wireError(error);
        if (wire.kind === 'internal') warn(`${channel}: ${error instanceof Error ? error.stack : wire.message}`);
        return { ok: false, error: wire };
      }
    });
  }

  /** Takes `ipcRenderer.send` without arguments; what comes from elsewhere is dropped. */
  on(channel: string, handler: () => void): void {
    this.#ipc.on(channel, (event) => {
      if (this.trusts(event)) handler();
      else warn(`${channel}: refused, it does not come from the window`);
    });
  }

  /** Answers `ipcRenderer.sendSync` without arguments. A caller that is not trusted gets undefined, not a wait for ever. */
  answer(channel: string, value: () => string | undefined): void {
    this.#ipc.on(channel, (event) => {
      event.returnValue = this.trusts(event) ? value() : undefined;
    });
  }
}
