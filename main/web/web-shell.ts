/**
 * The browser shell: the same window over HTTP and WebSocket, on this computer only.
 *
 * What it guards against, and how:
 * - other computers: it listens on a loopback address and on nothing else;
 * - other users and programs of this computer: a one-time token, exchanged for a cookie (sessions.ts); nothing is served without;
 * - pages of other origins in the same browser: the cookie is HttpOnly and SameSite=Strict; `Origin` is checked where the
 *   connection acts, `Sec-Fetch-Site` on what is read (another port of 127.0.0.1 is the same *site*); Cross-Origin-Resource-Policy;
 * - DNS rebinding: `Host` must be exactly our address and port;
 * - what a guest file may hold: downloads are attachments, never rendered (download.ts); the page's policy allows own scripts only.
 *
 *   GET /?token=...        spends the token, sets the cookie, redirects to /
 *   GET /, /assets/...     the window
 *   GET /shell.json        what the page asks of its shell: {kind, platform, initialSource}
 *   GET /download?...      a guest file's content
 *   WebSocket /api         the contract (preload/rpc.ts) as JSON
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, isIPv4, type Socket } from 'node:net';
import { type WebSocket, WebSocketServer } from 'ws';
import type { ChainliftApi, ShellApi } from '../../preload/api.ts';
import { jsonChannel, MAX_MESSAGE_CHARACTERS, serveApi } from '../../preload/rpc.ts';
import { DeniedError, IoError } from '../engine/errors.ts';
import { sendError, serveDownload } from './download.ts';
import { contentSecurityPolicy, RendererFiles } from './renderer-files.ts';
import { Sessions } from './sessions.ts';
import { wireError } from './wire-error.ts';

export interface WebShellOptions {
  readonly api: ChainliftApi;
  /** TCP port; 0 (the default) lets the system choose. */
  readonly port?: number;
  /** A loopback address: 127.0.0.1 (the default) or ::1. */
  readonly host?: string;
  /** Source that the window opens first. */
  readonly initialSource?: string;
  /** The built window: out/renderer. */
  readonly rendererFolder: string;
  /** Milliseconds between pings of a WebSocket; one that has not answered by the next is closed. */
  readonly pingInterval?: number;
  /** Milliseconds that `close` gives connections to end by themselves. */
  readonly closeGrace?: number;
}

export interface WebShell {
  /** The address to open, with a token that works once. */
  readonly url: string;
  readonly port: number;
  /** Another address with a token of its own, for another browser. */
  newUrl(): string;
  /** Stops serving. Connections are given a bounded time to end, then cut. */
  close(): Promise<void>;
}

/** What `GET /shell.json` answers. */
export interface ShellFacts extends Pick<ShellApi, 'platform'> {
  readonly kind: 'browser';
  readonly initialSource?: string;
}

const maxSockets = 32;
const maxDownloads = 32;
const maxConnections = 256;

/**
 * Starts the browser shell.
 * @throws DeniedError when `host` is not a loopback address; IoError when the port is taken or the window has not been built.
 */
export async function startWebShell(options: WebShellOptions): Promise<WebShell> {
  const host = options.host ?? '127.0.0.1';
  if (host !== '::1' && !(isIPv4(host) && host.startsWith('127.'))) {
    throw new DeniedError(`Serving on ${host}`, 'the browser shell serves this computer only (127.0.0.1 or ::1)', {
      host,
    });
  }
  const files = new RendererFiles(options.rendererFolder);
  const server = createServer({ headersTimeout: 10_000, requestTimeout: 30_000, keepAliveTimeout: 5_000 });
  server.maxConnections = maxConnections;
  const port = await listen(server, host, options.port ?? 0);
  const shell = new Shell(options, files, server, host === '::1' ? `[::1]:${port}` : `${host}:${port}`, port);
  return { url: shell.newUrl(), port, newUrl: () => shell.newUrl(), close: () => shell.close() };
}

function listen(server: Server, host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) =>
      reject(new IoError(`Port ${port} of ${host} cannot be served`, { host, port }, error)),
    );
    server.listen(port, host, () => {
      server.removeAllListeners('error');
      resolve((server.address() as AddressInfo).port);
    });
  });
}

class Shell {
  readonly #options: WebShellOptions;
  readonly #files: RendererFiles;
  readonly #server: Server;
  /** `127.0.0.1:PORT`, exactly as `Host` must have it. */
  readonly #authority: string;
  readonly #origin: string;
  readonly #sessions: Sessions;
  readonly #sockets: WebSocketServer;
  readonly #answered = new WeakMap<WebSocket, boolean>();
  readonly #pinger: NodeJS.Timeout;
  readonly #baseHeaders: Readonly<Record<string, string>>;
  #downloads = 0;
  #closing: Promise<void> | undefined;

  constructor(options: WebShellOptions, files: RendererFiles, server: Server, authority: string, port: number) {
    this.#options = options;
    this.#files = files;
    this.#server = server;
    this.#authority = authority;
    this.#origin = `http://${authority}`;
    this.#sessions = new Sessions(port);
    this.#sockets = new WebSocketServer({
      noServer: true,
      maxPayload: MAX_MESSAGE_CHARACTERS,
      perMessageDeflate: false,
      clientTracking: true,
    });
    this.#baseHeaders = {
      'Content-Security-Policy': contentSecurityPolicy([`ws://${authority}`]),
      'X-Content-Type-Options': 'nosniff',
      'Referrer-Policy': 'no-referrer',
      'Cross-Origin-Opener-Policy': 'same-origin',
      'Cross-Origin-Resource-Policy': 'same-origin',
      'X-Frame-Options': 'DENY',
      'Cache-Control': 'no-store',
    };
    server.on('request', (request, response) => void this.#answer(request, response));
    server.on('upgrade', (request, socket, head) => this.#upgrade(request, socket as Socket, head));
    this.#pinger = setInterval(() => this.#ping(), options.pingInterval ?? 15_000);
    this.#pinger.unref();
  }

  newUrl(): string {
    return `${this.#origin}/?token=${this.#sessions.issueToken()}`;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    for (const [name, value] of Object.entries(this.#baseHeaders)) response.setHeader(name, value);
    try {
      await this.#route(request, response);
    } catch (error) {
      if (response.headersSent) request.socket.resetAndDestroy();
      else sendError(response, wireError(error));
    }
  }

  async #route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.headers.host !== this.#authority) throw refused('the address is not that of this program');
    const { method } = request;
    if (method !== 'GET' && method !== 'HEAD') {
      // What changes anything goes over the WebSocket. A request of another kind is no page of ours, whoever sent it.
      if (request.headers.origin !== this.#origin) throw refused('it comes from another page');
      response.writeHead(405, { Allow: 'GET, HEAD' }).end();
      return;
    }
    const target = request.url ?? '';
    if (!target.startsWith('/') || !URL.canParse(target, this.#origin)) throw refused('the address is not valid');
    const url = new URL(`${this.#origin}${target}`);
    const token = url.pathname === '/' ? url.searchParams.get('token') : null;
    const known = this.#sessions.allows(request.headers.cookie);
    if (token !== null) {
      this.#enter(request, response, token, known);
      return;
    }
    if (!known) {
      say(response, 401, 'Open the address that chainlift printed when it was started; each address works once.');
      return;
    }
    const site = request.headers['sec-fetch-site'];
    // Going to the window's address from elsewhere is harmless; reading anything of it from elsewhere is not.
    if (url.pathname !== '/' && site !== undefined && site !== 'same-origin' && site !== 'none') {
      throw refused('it comes from another page');
    }
    if (url.pathname === '/shell.json') this.#facts(response);
    else if (url.pathname === '/download') await this.#download(request, response, url.searchParams);
    else await this.#file(response, url.pathname);
  }

  #enter(request: IncomingMessage, response: ServerResponse, token: string, known: boolean): void {
    // HEAD asks without acting: it must not spend a token.
    const cookie = known || request.method === 'HEAD' ? undefined : this.#sessions.exchange(token);
    if (cookie === undefined && !known) {
      say(response, 403, 'This address was used already or is not valid. Start chainlift again for a new one.');
      return;
    }
    response.writeHead(303, { Location: '/', ...(cookie === undefined ? {} : { 'Set-Cookie': cookie }) }).end();
  }

  #facts(response: ServerResponse): void {
    const { initialSource } = this.#options;
    const facts: ShellFacts = {
      kind: 'browser',
      platform: process.platform,
      ...(initialSource === undefined ? {} : { initialSource }),
    };
    send(response, 200, 'application/json; charset=utf-8', Buffer.from(JSON.stringify(facts)));
  }

  async #download(request: IncomingMessage, response: ServerResponse, query: URLSearchParams): Promise<void> {
    if (this.#downloads >= maxDownloads) {
      response.setHeader('Retry-After', '5');
      say(response, 503, `More than ${maxDownloads} downloads at once. Try again when one has ended.`);
      return;
    }
    this.#downloads++;
    try {
      await serveDownload(this.#options.api, request, response, query);
    } finally {
      this.#downloads--;
    }
  }

  async #file(response: ServerResponse, pathname: string): Promise<void> {
    const file = await this.#files.get(pathname);
    if (file === undefined) say(response, 404, 'There is nothing at this address.');
    else send(response, 200, file.type, file.bytes);
  }

  #upgrade(request: IncomingMessage, socket: Socket, head: Buffer): void {
    // A client that resets the connection while it is being looked at: nobody is left to be told.
    socket.on('error', () => socket.destroy());
    const status =
      this.#closing !== undefined
        ? 503
        : request.headers.host !== this.#authority || request.headers.origin !== this.#origin
          ? 403
          : !this.#sessions.allows(request.headers.cookie)
            ? 401
            : request.url !== '/api'
              ? 404
              : this.#sockets.clients.size >= maxSockets
                ? 503
                : 101;
    if (status !== 101) {
      const answer = `HTTP/1.1 ${status} Refused\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`;
      socket.end(answer, () => socket.destroy());
      return;
    }
    this.#sockets.handleUpgrade(request, socket, head, (client) => this.#serve(client));
  }

  #serve(client: WebSocket): void {
    this.#answered.set(client, true);
    client.on('pong', () => this.#answered.set(client, true));
    // A frame that breaks the protocol or its limits. `ws` closes the connection; the channel hears of it by `close`.
    client.on('error', () => client.terminate());
    serveApi(
      this.#options.api,
      jsonChannel({
        send: (text) => client.send(text),
        close: (code, reason) => client.close(code, reason),
        // `ws` types its listeners per event; the channel takes what each event brings.
        addEventListener: (type, listener) => client.addEventListener(type, listener as (event: unknown) => void),
      }),
    );
  }

  #ping(): void {
    for (const client of this.#sockets.clients) {
      if (this.#answered.get(client) === false) {
        client.terminate();
        continue;
      }
      this.#answered.set(client, false);
      client.ping();
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#end();
    return this.#closing;
  }

  async #end(): Promise<void> {
    clearInterval(this.#pinger);
    const ended = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const client of this.#sockets.clients) client.close(1001, 'Chainlift was closed');
    this.#server.closeIdleConnections();
    const cut = setTimeout(() => {
      for (const client of this.#sockets.clients) client.terminate();
      this.#server.closeAllConnections();
    }, this.#options.closeGrace ?? 1_000);
    await ended;
    clearTimeout(cut);
    this.#sockets.close();
  }
}

function refused(why: string): DeniedError {
  return new DeniedError('The request', why);
}

function send(response: ServerResponse, status: number, type: string, bytes: Uint8Array): void {
  response.writeHead(status, { 'Content-Type': type, 'Content-Length': bytes.length });
  // For HEAD, Node leaves the body out.
  response.end(bytes);
}

/** An answer for a person who opened an address by hand. */
function say(response: ServerResponse, status: number, sentence: string): void {
  send(response, status, 'text/plain; charset=utf-8', Buffer.from(`${sentence}\n`));
}
