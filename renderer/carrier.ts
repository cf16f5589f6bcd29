/** How this window reaches the engine: Electron's MessagePort, or a WebSocket to the server that the page came from. */
import type { ChainliftApi, ShellApi, Target } from '../preload/api.ts';
import type { BridgeApi } from '../preload/bridge/bridge-api.ts';
import { PORT_MESSAGE } from '../preload/bridge/bridge-api.ts';
import { jsonChannel, portChannel } from '../preload/rpc/channels.ts';
import { connectApi } from '../preload/rpc/client.ts';
import type { Channel } from '../preload/rpc/protocol.ts';

declare global {
  interface Window {
    /** There in Electron only. */
    readonly chainlift?: BridgeApi;
  }
}

export interface Engine {
  readonly api: ChainliftApi;
  /** Resolves when the connection has ended. */
  readonly lost: Promise<void>;
}

export interface Carrier {
  readonly shell: ShellApi;
  /** Rejects when the engine can't be reached. */
  connect(): Promise<Engine>;
}

function engineOver(channel: Channel): Engine {
  const lost = new Promise<void>((resolve) => channel.onClose(resolve));
  return { api: connectApi(channel), lost };
}

const CONNECT_TIMEOUT_MS = 15_000;

export function electronCarrier(bridge: BridgeApi): Carrier {
  return {
    shell: bridge,
    connect: () =>
      new Promise((resolve, reject) => {
        const timer = setTimeout(() => {
          window.removeEventListener('message', receive);
          reject(new Error('The engine did not answer'));
        }, CONNECT_TIMEOUT_MS);
        const receive = (event: MessageEvent) => {
          const port = event.ports[0];
          if (event.source !== window || event.data !== PORT_MESSAGE || port === undefined) return;
          clearTimeout(timer);
          window.removeEventListener('message', receive);
          resolve(engineOver(portChannel(port)));
        };
        window.addEventListener('message', receive);
        bridge.connect();
      }),
  };
}

/** What the server says about itself and the source to open first. */
interface ShellFacts {
  readonly platform: string;
  readonly initialSource?: string;
}

/** The server does not know this browser: its address works once, and the cookie it gave has ended with the server. */
export class NotAdmittedError extends Error {
  override readonly name = 'NotAdmittedError';
}

/** The browser's carrier: the cookie that came with the page admits both the facts and the WebSocket. */
export async function browserCarrier(): Promise<Carrier> {
  const facts = await shellFacts();
  const address = new URL('/api', location.href);
  address.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  return {
    shell: { kind: 'browser', platform: facts.platform, initialSource: facts.initialSource, downloadUrl },
    connect: () =>
      new Promise((resolve, reject) => {
        const socket = new WebSocket(address);
        const refused = () => {
          // A browser does not say why a WebSocket was refused; asking for the facts tells whether we are still admitted.
          shellFacts().then(() => reject(new Error('The server did not answer')), reject);
        };
        socket.addEventListener('open', () => {
          socket.removeEventListener('close', refused);
          resolve(engineOver(jsonChannel(socket)));
        });
        socket.addEventListener('close', refused);
      }),
  };
}

async function shellFacts(): Promise<ShellFacts> {
  const response = await fetch('/shell.json', { credentials: 'same-origin' });
  if (response.status === 401) throw new NotAdmittedError('This address is not open to this browser any more');
  if (!response.ok) throw new Error(`The server answered ${response.status}`);
  const facts = (await response.json()) as { platform?: unknown; initialSource?: unknown };
  return {
    platform: typeof facts.platform === 'string' ? facts.platform : '',
    ...(typeof facts.initialSource === 'string' ? { initialSource: facts.initialSource } : {}),
  };
}

function downloadUrl(target: Target, path: string): string {
  const url = new URL('/download', location.href);
  url.searchParams.set('target', JSON.stringify(target));
  url.searchParams.set('path', path);
  return url.href;
}
