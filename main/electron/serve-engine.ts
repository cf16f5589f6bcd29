/** The engine process' side: serves the engine over each port it is sent, and ends when it is told to or its parent is gone. */
import type { MessagePortMain } from 'electron';

import type { ChainliftApi } from '../../preload/api.ts';
import { serveApi } from '../../preload/rpc.ts';
import { closeGrace, engineMessageSchema } from './engine-protocol.ts';
import { warn } from './log.ts';
import { electronChannel } from './port.ts';
import { isAlive } from './process-alive.ts';

/** What serves the contract, and can be closed. */
export interface ServedEngine {
  readonly api: ChainliftApi;
  close(): Promise<void>;
}

/** The part of Electron's `process.parentPort` that is used. */
export interface ParentPort {
  on(
    event: 'message',
    listener: (event: { readonly data: unknown; readonly ports: readonly MessagePortMain[] }) => void,
  ): unknown;
}

export interface EngineProcessOptions {
  readonly parentPort: ParentPort;
  readonly engine: ServedEngine;
  /** Process id of the main process. */
  readonly parent: number;
  readonly exit: (code: number) => void;
  /** Whether a process is there; the system's answer when absent. */
  readonly alive?: (pid: number) => boolean;
  /** Milliseconds between looks at the parent. */
  readonly parentInterval?: number;
}

/** Serves until told to close or the parent has gone; then closes the engine, within a bounded time, and exits. */
export function serveEngine(options: EngineProcessOptions): void {
  const { engine, exit } = options;
  const alive = options.alive ?? isAlive;
  let closing = false;

  const close = (): void => {
    if (closing) return;
    closing = true;
    clearInterval(watch);
    // An engine that hangs while it closes must not outlive its window.
    const cut = setTimeout(() => {
      warn('the engine did not close in time');
      exit(1);
    }, closeGrace);
    engine.close().then(
      () => {
        clearTimeout(cut);
        exit(0);
      },
      (error: unknown) => {
        clearTimeout(cut);
        warn(`the engine did not close: ${error instanceof Error ? error.stack : String(error)}`);
        exit(1);
      },
    );
  };

  // Chromium ends a utility process whose browser process is gone, without a word; this gives the engine the chance to
  // remove its sockets and partial files where it is not that fast.
  const watch = setInterval(() => {
    if (!alive(options.parent)) close();
  }, options.parentInterval ?? 2_000);

  options.parentPort.on('message', ({ data, ports }) => {
    const message = engineMessageSchema.safeParse(data);
    const port = ports[0];
    if (!message.success) warn('the engine was sent a message that it does not know');
    else if (message.data.type === 'close') close();
    else if (port === undefined) warn('the engine was sent no port to serve');
    else if (!closing) serveApi(engine.api, electronChannel(port));
  });
}
