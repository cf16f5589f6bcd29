import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { type IncomingMessage, request } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { CorruptError, DeniedError, IoError, NotFoundError } from '../../../main/engine/errors.ts';
import { startWebShell, type WebShell, type WebShellOptions } from '../../../main/web/web-shell.ts';
import type { ChainliftApi } from '../../../preload/api.ts';
import { connectApi, jsonChannel } from '../../../preload/rpc.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { fakeEngine, fileEntry, target } from './fake-engine.ts';

interface Answer {
  status: number;
  headers: IncomingMessage['headers'];
  body: Buffer;
  /** The connection ended before the announced length. */
  broken: boolean;
}

/** A request as bytes say it: `fetch` would not let a test set Host, Origin or a path with dots. */
function ask(
  shell: WebShell,
  path: string,
  options: { method?: string; headers?: Record<string, string>; host?: string } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request({
      host: options.host ?? '127.0.0.1',
      port: shell.port,
      path,
      method: options.method ?? 'GET',
      agent: false,
      headers: options.headers ?? {},
    });
    sent.on('error', reject);
    sent.on('response', (response) => {
      const chunks: Buffer[] = [];
      const answer = (broken: boolean) =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks), broken });
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => answer(!response.complete));
      response.on('error', () => answer(true));
    });
    sent.end();
  });
}

/** Spends the token of `url` as a browser would; @returns the `Cookie` header of this browser. */
async function enter(shell: WebShell, url = shell.url): Promise<string> {
  const { pathname, search } = new URL(url);
  const answer = await ask(shell, `${pathname}${search}`);
  expect(answer.status).toBe(303);
  expect(answer.headers.location).toBe('/');
  return answer.headers['set-cookie']?.[0]?.split(';')[0] ?? '';
}

describe('the browser shell', () => {
  const scratch = scratchFolder('web-shell');
  let rendererFolder = '';
  const shells: WebShell[] = [];
  beforeAll(() => {
    rendererFolder = join(scratch.path, 'renderer');
    mkdirSync(join(rendererFolder, 'assets'), { recursive: true });
    writeFileSync(join(rendererFolder, 'index.html'), '<title>Chainlift</title>');
    writeFileSync(join(rendererFolder, 'assets', 'app.js'), 'run()');
    writeFileSync(join(scratch.path, 'secret.js'), 'secret');
  });
  afterEach(async () => {
    await Promise.all(shells.splice(0).map((shell) => shell.close()));
  });

  const start = async (
    methods: Partial<ChainliftApi> = {},
    options: Partial<WebShellOptions> = {},
  ): Promise<WebShell> => {
    const shell = await startWebShell({ api: fakeEngine(methods), rendererFolder, closeGrace: 100, ...options });
    shells.push(shell);
    return shell;
  };

  describe('who may enter', () => {
    it('listens on loopback only', async () => {
      for (const host of ['0.0.0.0', '::', '192.168.1.1', 'localhost', '127.0.0.1.example.org', '']) {
        await expect(start({}, { host }), host).rejects.toThrow(DeniedError);
      }
      const shell = await start({}, { host: '127.0.0.2' });
      expect(shell.url).toMatch(new RegExp(`^http://127\\.0\\.0\\.2:${shell.port}/\\?token=[A-Za-z0-9_-]{43}$`));
    });

    it('says that a port is taken', async () => {
      const first = await start();
      await expect(start({}, { port: first.port })).rejects.toThrow(IoError);
    });

    it('exchanges the token for a cookie once, and serves nothing without the cookie', async () => {
      const shell = await start();
      for (const path of ['/', '/index.html', '/assets/app.js', '/shell.json', '/download?target={}&path=/']) {
        expect((await ask(shell, path)).status, path).toBe(401);
      }
      const { search } = new URL(shell.url);
      expect((await ask(shell, '/?token=AAAA')).status).toBe(403);
      expect((await ask(shell, `/${search}`, { method: 'HEAD' })).status).toBe(403);
      expect((await ask(shell, `/assets/app.js${search}`)).status).toBe(401);
      const first = await ask(shell, `/${search}`);
      expect(first.headers['set-cookie']?.[0]).toMatch(/; Path=\/; HttpOnly; SameSite=Strict$/);
      expect((await ask(shell, `/${search}`)).status).toBe(403);

      const cookie = first.headers['set-cookie']?.[0]?.split(';')[0] ?? '';
      const page = await ask(shell, '/', { headers: { cookie } });
      expect(page.status).toBe(200);
      expect(page.body.toString()).toBe('<title>Chainlift</title>');
      // The same browser opening the printed address again is let in; it gets no second cookie.
      const again = await ask(shell, `/${search}`, { headers: { cookie } });
      expect([again.status, again.headers['set-cookie']]).toEqual([303, undefined]);
      // Another browser needs an address of its own.
      expect(await enter(shell, shell.newUrl())).not.toBe(cookie);
      expect((await ask(shell, '/', { headers: { cookie } })).status).toBe(200);
    });

    it('answers only to its own address (DNS rebinding)', async () => {
      const shell = await start();
      const cookie = await enter(shell);
      for (const host of [
        `evil.example:${shell.port}`,
        `localhost:${shell.port}`,
        '127.0.0.1',
        `127.0.0.1:${shell.port + 1}`,
        `127.0.0.1:${shell.port}.evil.example`,
      ]) {
        expect((await ask(shell, '/shell.json', { headers: { cookie, host } })).status, host).toBe(403);
      }
      expect(
        (await ask(shell, shell.newUrl().slice(shell.url.indexOf('/?')), { headers: { host: 'evil.example' } })).status,
      ).toBe(403);
    });

    it('refuses requests of other pages', async () => {
      const shell = await start();
      const cookie = await enter(shell);
      const origin = `http://127.0.0.1:${shell.port}`;
      for (const site of ['cross-site', 'same-site']) {
        for (const path of ['/shell.json', '/assets/app.js', '/download?target={}&path=/']) {
          const answer = await ask(shell, path, { headers: { cookie, 'sec-fetch-site': site } });
          expect(answer.status, `${site} ${path}`).toBe(403);
        }
        expect((await ask(shell, '/', { headers: { cookie, 'sec-fetch-site': site } })).status).toBe(200);
      }
      expect((await ask(shell, '/shell.json', { headers: { cookie, 'sec-fetch-site': 'same-origin' } })).status).toBe(
        200,
      );
      for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS']) {
        expect((await ask(shell, '/', { method, headers: { cookie } })).status, method).toBe(403);
        expect((await ask(shell, '/', { method, headers: { cookie, origin: 'null' } })).status, method).toBe(403);
        expect((await ask(shell, '/', { method, headers: { cookie, origin } })).status, method).toBe(405);
      }
    });
  });

  describe('what it serves', () => {
    it('carries the strict headers on every answer', async () => {
      const shell = await start();
      const cookie = await enter(shell);
      for (const [path, headers] of [
        ['/', { cookie }],
        ['/assets/app.js', { cookie }],
        ['/shell.json', { cookie }],
        ['/nothing', { cookie }],
        ['/', {}],
        ['/?token=wrong', {}],
      ] as const) {
        const answer = await ask(shell, path, { headers });
        const csp = answer.headers['content-security-policy'];
        expect(csp, path).toContain("default-src 'none'; script-src 'self';");
        expect(csp, path).toContain(`connect-src 'self' ws://127.0.0.1:${shell.port};`);
        expect(answer.headers).toMatchObject({
          'x-content-type-options': 'nosniff',
          'referrer-policy': 'no-referrer',
          'cross-origin-opener-policy': 'same-origin',
          'cross-origin-resource-policy': 'same-origin',
          'x-frame-options': 'DENY',
          'cache-control': 'no-store',
        });
        expect(answer.headers['access-control-allow-origin']).toBeUndefined();
      }
    });

    it('serves the built window and nothing around it', async () => {
      const shell = await start();
      const headers = { cookie: await enter(shell) };
      const script = await ask(shell, '/assets/app.js', { headers });
      expect([script.status, script.headers['content-type']]).toEqual([200, 'text/javascript; charset=utf-8']);
      const head = await ask(shell, '/assets/app.js', { headers, method: 'HEAD' });
      expect([head.status, head.headers['content-length'], head.body.length]).toEqual([200, '5', 0]);
      for (const path of [
        '/../secret.js',
        '/%2e%2e/secret.js',
        '/..%2fsecret.js',
        '/assets/..%5c..%5csecret.js',
        '/assets',
        '//etc/passwd',
        '/%',
      ]) {
        expect((await ask(shell, path, { headers })).status, path).toBe(404);
      }
      expect((await ask(shell, 'http://evil.example/', { headers })).status).toBe(403);
    });

    it('tells the page the facts of its shell', async () => {
      const shell = await start({}, { initialSource: '/backups/web01' });
      const answer = await ask(shell, '/shell.json', { headers: { cookie: await enter(shell) } });
      expect(answer.headers['content-type']).toBe('application/json; charset=utf-8');
      expect(JSON.parse(answer.body.toString())).toEqual({
        kind: 'browser',
        platform: process.platform,
        initialSource: '/backups/web01',
      });
    });
  });

  describe('the WebSocket', () => {
    const socketTo = (shell: WebShell, headers: Record<string, string>, path = '/api'): WebSocket =>
      new WebSocket(`ws://127.0.0.1:${shell.port}${path}`, { headers });
    const outcome = (socket: WebSocket): Promise<number> =>
      new Promise((resolve) => {
        socket.on('open', () => resolve(101));
        socket.on('unexpected-response', (_, response) => resolve(response.statusCode ?? 0));
        socket.on('error', () => undefined);
      });

    it('opens for our own page with its cookie only', async () => {
      const shell = await start();
      const cookie = await enter(shell);
      const origin = `http://127.0.0.1:${shell.port}`;
      expect(await outcome(socketTo(shell, { cookie }))).toBe(403);
      expect(await outcome(socketTo(shell, { cookie, origin: 'http://evil.example' }))).toBe(403);
      expect(await outcome(socketTo(shell, { cookie, origin: `http://127.0.0.1:${shell.port + 1}` }))).toBe(403);
      expect(await outcome(socketTo(shell, { cookie, origin: 'null' }))).toBe(403);
      expect(await outcome(socketTo(shell, { cookie, origin, host: 'evil.example' }))).toBe(403);
      expect(await outcome(socketTo(shell, { origin }))).toBe(401);
      expect(await outcome(socketTo(shell, { cookie: `${cookie}x`, origin }))).toBe(401);
      expect(await outcome(socketTo(shell, { cookie, origin }, '/other'))).toBe(404);
      const socket = socketTo(shell, { cookie, origin });
      expect(await outcome(socket)).toBe(101);
      socket.terminate();
    });

    it('carries the contract to several windows at once', async () => {
      let stopped = 0;
      const shell = await start({
        forget: async () => {
          throw new NotFoundError('"x"', { choices: ['a'] });
        },
        recent: async () => [{ path: '/b', name: 'b', opened: '2026-01-01T00:00:00Z' }],
        read: async function* () {
          try {
            for (;;) yield new Uint8Array([0, 255, 128]);
          } finally {
            stopped++;
          }
        },
      });
      const cookie = await enter(shell);
      const origin = `http://127.0.0.1:${shell.port}`;
      const sockets = [socketTo(shell, { cookie, origin }), socketTo(shell, { cookie, origin })];
      await Promise.all(sockets.map((socket) => once(socket, 'open')));
      const apis = sockets.map((socket) =>
        connectApi(
          jsonChannel({
            send: (text) => socket.send(text),
            close: () => socket.close(),
            addEventListener: (type, listener) => socket.addEventListener(type, listener as (event: unknown) => void),
          }),
        ),
      );
      for (const api of apis) {
        expect(await api.recent({})).toHaveLength(1);
        await expect(api.forget({ path: '/x' })).rejects.toMatchObject({
          kind: 'not-found',
          details: { choices: ['a'] },
        });
        await expect(api.forget({ path: 'relative' })).rejects.toMatchObject({ kind: 'usage' });
      }
      let chunks = 0;
      for await (const chunk of apis[0]!.read({ target, path: '/sda1/a' })) {
        expect([...chunk]).toEqual([0, 255, 128]);
        if (++chunks === 50) break;
      }
      await expect.poll(() => stopped).toBe(1);
      // The other window goes in the middle of a stream: its work stops too.
      const other = apis[1]!.read({ target, path: '/sda1/a' })[Symbol.asyncIterator]();
      await other.next();
      sockets[1]!.terminate();
      await expect.poll(() => stopped).toBe(2);
      expect(await apis[0]!.recent({})).toHaveLength(1);
    });

    it('closes on a message beyond the bound and goes on serving', async () => {
      const shell = await start({ recent: async () => [] });
      const headers = { cookie: await enter(shell), origin: `http://127.0.0.1:${shell.port}` };
      const socket = socketTo(shell, headers);
      await once(socket, 'open');
      socket.on('error', () => undefined);
      socket.send('x'.repeat(33 * 1024 * 1024));
      await once(socket, 'close');
      const next = socketTo(shell, headers);
      expect(await outcome(next)).toBe(101);
      next.terminate();
    });

    it('drops a window that no longer answers pings', async () => {
      const shell = await start({}, { pingInterval: 20 });
      const headers = { cookie: await enter(shell), origin: `http://127.0.0.1:${shell.port}` };
      const silent = new WebSocket(`ws://127.0.0.1:${shell.port}/api`, { headers, autoPong: false });
      const lively = socketTo(shell, headers);
      await Promise.all([once(silent, 'open'), once(lively, 'open')]);
      await once(silent, 'close');
      expect(lively.readyState).toBe(WebSocket.OPEN);
      lively.terminate();
    });
  });

  describe('downloads', () => {
    const path = '/sda1/srv/www/Bericht "März".pdf';
    const address = (file = path): string =>
      `/download?target=${encodeURIComponent(JSON.stringify(target))}&path=${encodeURIComponent(file)}`;

    it('streams a file whole, as an attachment that nothing renders', async () => {
      const content = Buffer.alloc(3_000_000);
      for (let i = 0; i < content.length; i++) content[i] = (i * 31) % 251;
      const asked: unknown[] = [];
      const shell = await start({
        stat: async (request) => {
          asked.push(request);
          return fileEntry(request.path, content.length);
        },
        read: async function* (request) {
          asked.push(request);
          for (let at = 0; at < content.length; at += 100_000) yield content.subarray(at, at + 100_000);
        },
      });
      const headers = { cookie: await enter(shell) };
      const answer = await ask(shell, address(), { headers });
      expect(answer.status).toBe(200);
      expect(answer.broken).toBe(false);
      expect(answer.body.equals(content)).toBe(true);
      expect(answer.headers).toMatchObject({
        'content-type': 'application/octet-stream',
        'content-length': String(content.length),
        'content-disposition': `attachment; filename="Bericht _M_rz_.pdf"; filename*=UTF-8''Bericht%20_M%C3%A4rz_.pdf`,
        'content-security-policy': "default-src 'none'; sandbox",
        'x-content-type-options': 'nosniff',
        'cache-control': 'no-store',
      });
      expect(asked).toEqual([
        { target, path },
        { target, path },
      ]);
      const head = await ask(shell, address(), { headers, method: 'HEAD' });
      expect([head.status, head.headers['content-length'], head.body.length]).toEqual([200, '3000000', 0]);
      expect(asked).toHaveLength(3);
    });

    it('serves an empty file', async () => {
      const shell = await start({
        stat: async (request) => fileEntry(request.path, 0),
        read: async function* () {},
      });
      const answer = await ask(shell, address(), { headers: { cookie: await enter(shell) } });
      expect([answer.status, answer.headers['content-length'], answer.broken]).toEqual([200, '0', false]);
    });

    it.each([
      ['fails midway', 100, [60], new CorruptError('Grain', { position: 5 })],
      ['ends early', 100, [60], undefined],
      ['is longer than its metadata says', 100, [60, 41], undefined],
    ])('breaks the connection when the content %s', async (_, size, lengths, error) => {
      const shell = await start({
        stat: async (request) => fileEntry(request.path, size),
        read: async function* () {
          for (const length of lengths) yield new Uint8Array(length);
          if (error !== undefined) throw error;
        },
      });
      const cookie = await enter(shell);
      // A connection that would be kept for more requests: a length that is merely not reached would leave it waiting.
      const socket = connect(shell.port, '127.0.0.1');
      const received: Buffer[] = [];
      socket.on('data', (bytes) => received.push(bytes));
      const ended = new Promise<string>((resolve) => {
        socket.on('error', (cause: NodeJS.ErrnoException) => resolve(cause.code ?? ''));
        socket.on('end', () => resolve('ended in peace'));
      });
      socket.write(`GET ${address()} HTTP/1.1\r\nHost: 127.0.0.1:${shell.port}\r\nCookie: ${cookie}\r\n\r\n`);
      expect(await ended).toBe('ECONNRESET');
      const [head, body] = Buffer.concat(received).toString('latin1').split('\r\n\r\n');
      // What had been sent may be lost with the reset; what arrived is less than was announced.
      if (head !== '') expect(head).toContain(`Content-Length: ${size}`);
      expect((body ?? '').length).toBeLessThan(size);
    });

    it('says why when nothing could be read', async () => {
      const shell = await start({
        stat: async (request) => {
          if (request.path === '/sda1/absent') throw new NotFoundError(request.path);
          return fileEntry(request.path, 100, request.path === '/sda1/folder' ? { kind: 'directory' } : {});
        },
        // biome-ignore lint/correctness/useYield: it fails before its first chunk
        read: async function* () {
          throw new CorruptError('Grain table', { source: 'web01.vmdk', position: 512, expected: 1, found: 2 });
        },
      });
      const headers = { cookie: await enter(shell) };
      const damaged = await ask(shell, address(), { headers });
      expect(damaged.status).toBe(502);
      expect(damaged.headers['content-disposition']).toBeUndefined();
      expect(JSON.parse(damaged.body.toString())).toMatchObject({
        error: { kind: 'corrupt', details: { structure: 'Grain table', position: 512 } },
      });
      expect((await ask(shell, address('/sda1/absent'), { headers })).status).toBe(404);
      expect((await ask(shell, address('/sda1/folder'), { headers })).status).toBe(400);
    });

    it.each([
      '/download',
      '/download?target=%7B&path=/sda1/a',
      '/download?target=%7B%22source%22%3A%22relative%22%7D&path=/sda1/a',
      '/download?target=%7B%22source%22%3A%22%2Fa%22%2C%22x%22%3A1%7D&path=/sda1/a',
      '/download?target=%7B%22source%22%3A%22%2Fa%22%7D',
      '/download?target=%7B%22source%22%3A%22%2Fa%22%7D&path=sda1',
      '/download?target=%7B%22source%22%3A%22%2Fa%22%7D&path=/a%00b',
      '/download?target=null&path=/sda1/a',
    ])('refuses %s', async (query) => {
      const shell = await start();
      const answer = await ask(shell, query, { headers: { cookie: await enter(shell) } });
      expect(answer.status).toBe(400);
      expect(JSON.parse(answer.body.toString())).toMatchObject({ error: { kind: 'usage' } });
    });

    it('reads no faster than the client takes, and stops when it goes', async () => {
      let chunks = 0;
      let stopped = false;
      const shell = await start({
        stat: async (request) => fileEntry(request.path, 2 ** 40),
        read: async function* () {
          try {
            for (;;) {
              chunks++;
              yield new Uint8Array(1 << 20);
            }
          } finally {
            stopped = true;
          }
        },
      });
      const cookie = await enter(shell);
      const socket = connect(shell.port, '127.0.0.1');
      socket.write(`GET ${address()} HTTP/1.1\r\nHost: 127.0.0.1:${shell.port}\r\nCookie: ${cookie}\r\n\r\n`);
      await once(socket, 'readable');
      // Nothing is taken from here on: production must come to rest, at what the system's buffers hold.
      let before = -1;
      await expect
        .poll(
          () => {
            const rested = chunks === before;
            before = chunks;
            return rested;
          },
          { interval: 100 },
        )
        .toBe(true);
      expect(chunks).toBeLessThan(64);
      expect(stopped).toBe(false);
      socket.destroy();
      await expect.poll(() => stopped).toBe(true);
    });

    it('stops a read that has produced nothing yet when the client goes', async () => {
      let returned = false;
      let asked = false;
      const shell = await start({
        stat: async (request) => fileEntry(request.path, 10),
        read: () => ({
          [Symbol.asyncIterator]: () => {
            let end: (result: IteratorResult<Uint8Array>) => void = () => undefined;
            return {
              next: () => {
                asked = true;
                return new Promise((resolve) => {
                  end = resolve;
                });
              },
              return: async () => {
                returned = true;
                end({ done: true, value: undefined });
                return { done: true, value: undefined };
              },
            };
          },
        }),
      });
      const cookie = await enter(shell);
      const socket = connect(shell.port, '127.0.0.1');
      socket.write(`GET ${address()} HTTP/1.1\r\nHost: 127.0.0.1:${shell.port}\r\nCookie: ${cookie}\r\n\r\n`);
      await expect.poll(() => asked).toBe(true);
      socket.destroy();
      await expect.poll(() => returned).toBe(true);
    });
  });

  it('closes in bounded time whatever its clients do', async () => {
    const shell = await start({
      stat: async (request) => fileEntry(request.path, 2 ** 40),
      read: async function* () {
        for (;;) yield new Uint8Array(1 << 20);
      },
    });
    const cookie = await enter(shell);
    const origin = `http://127.0.0.1:${shell.port}`;
    const socket = new WebSocket(`ws://127.0.0.1:${shell.port}/api`, { headers: { cookie, origin } });
    await once(socket, 'open');
    socket.pause();
    const stuck = connect(shell.port, '127.0.0.1');
    stuck.on('error', () => undefined);
    const query = `target=${encodeURIComponent(JSON.stringify(target))}&path=/sda1/a`;
    stuck.write(`GET /download?${query} HTTP/1.1\r\nHost: 127.0.0.1:${shell.port}\r\nCookie: ${cookie}\r\n\r\n`);
    await once(stuck, 'readable');
    const begun = performance.now();
    await Promise.all([shell.close(), shell.close()]);
    expect(performance.now() - begun).toBeLessThan(5_000);
    await expect(ask(shell, '/')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    socket.terminate();
    stuck.destroy();
  });

  afterAll(() => expect(shells).toEqual([]));
});
