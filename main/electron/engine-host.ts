/**
 * The engine process as the main process sees it: started when first needed, handed a port for every connection, started
 * again once when it crashes. A second crash soon after the first is not a mishap: then a person is asked.
 *
 * Nobody is told of a crash by message: every port to the process closes with it, which fails the calls under way, shows the
 * window that it is offline, and makes it ask for a new port.
 */
import type { MessageChannelMain, MessagePortMain, UtilityProcess } from 'electron';
import type { ChainliftApi } from '../../preload/api.ts';
import { type Channel, connectApi } from '../../preload/rpc.ts';
import { closeGrace, type EngineMessage } from './engine-protocol.ts';
import { warn } from './log.ts';
import { electronChannel } from './port.ts';

export interface EngineHostOptions {
  /** Starts the engine process. */
  readonly fork: () => UtilityProcess;
  readonly createChannel: () => MessageChannelMain;
  /** The engine process was started, at first or again. */
  readonly onStarted?: () => void;
  /** The engine crashed again soon after it was restarted, and stays down until `restart` is called. */
  readonly onGivenUp: (exitCode: number) => void;
  readonly now?: () => number;
}

/** A crash this long after the one before counts as the first again. */
const calm = 60_000;

export class EngineHost {
  readonly #options: EngineHostOptions;
  readonly #now: () => number;
  #child: UtilityProcess | undefined;
  #connection: { api: ChainliftApi; channel: Channel } | undefined;
  #lastCrash = Number.NEGATIVE_INFINITY;
  #state: 'serving' | 'given-up' | 'stopping' = 'serving';

  constructor(options: EngineHostOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
  }

  /** A port to the engine, for the window. Undefined while the engine is down for good or stopping. */
  connect(): MessagePortMain | undefined {
    if (this.#state !== 'serving') return undefined;
    const child = this.#child ?? this.#start();
    const { port1, port2 } = this.#options.createChannel();
    child.postMessage({ type: 'connect' } satisfies EngineMessage, [port1]);
    return port2;
  }

  /** The engine, for the shell's own calls. Made anew after a crash; calls on one that crashed reject. */
  api(): ChainliftApi | undefined {
    if (this.#connection === undefined) {
      const port = this.connect();
      if (port === undefined) return undefined;
      const channel = electronChannel(port);
      const connection = { api: connectApi(channel), channel };
      this.#connection = connection;
      channel.onClose(() => {
        if (this.#connection === connection) this.#connection = undefined;
      });
    }
    return this.#connection.api;
  }

  /** Starts an engine that was given up again. */
  restart(): void {
    if (this.#state !== 'given-up') return;
    this.#state = 'serving';
    this.#lastCrash = Number.NEGATIVE_INFINITY;
    this.#start();
  }

  #start(): UtilityProcess {
    const child = this.#options.fork();
    this.#child = child;
    child.on('exit', (code) => this.#ended(child, code));
    this.#options.onStarted?.();
    return child;
  }

  #ended(child: UtilityProcess, code: number): void {
    if (this.#child !== child) return;
    this.#child = undefined;
    this.#connection?.channel.close();
    this.#connection = undefined;
    if (this.#state !== 'serving') return;
    warn(`the engine ended unexpectedly (exit code ${code})`);
    const now = this.#now();
    const again = now - this.#lastCrash < calm;
    this.#lastCrash = now;
    if (again) {
      this.#state = 'given-up';
      this.#options.onGivenUp(code);
    } else {
      this.#start();
    }
  }

  /** Closes the engine: it is told to, and ended when it takes too long. */
  async stop(): Promise<void> {
    this.#state = 'stopping';
    const child = this.#child;
    if (child === undefined) return;
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    child.postMessage({ type: 'close' } satisfies EngineMessage);
    // Longer than the process gives itself.
    const cut = setTimeout(() => child.kill(), closeGrace + 1_000);
    await ended;
    clearTimeout(cut);
  }
}
