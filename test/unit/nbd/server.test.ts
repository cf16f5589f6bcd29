import { once } from 'node:events';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { DeniedError, UsageError } from '../../../main/engine/errors.ts';
import { type NbdServer, type NbdServerOptions, startNbdServer } from '../../../main/engine/nbd/server.ts';
import { WireClient } from '../../support/nbd-client.ts';
import { CLIENT_FLAGS, request } from '../../support/nbd-wire.ts';
import { scratchFolder, sha256File } from '../../support/scratch.ts';

const MIB = 1 << 20;

/** Waits until something is so, a turn of the event loop at a time. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

describe('NBD server', () => {
  const scratch = scratchFolder('nbd');
  const content = Buffer.alloc(8 * MIB, 'chainlift ');
  let image = '';
  let hash = '';
  beforeAll(() => {
    image = join(scratch.path, 'disk.img');
    for (let i = 0; i < content.length; i += 512) content.writeUInt32BE(i, i);
    writeFileSync(image, content);
    hash = sha256File(image);
  });

  let server: NbdServer | undefined;
  afterEach(async () => {
    await server?.close();
    server = undefined;
    expect(sha256File(image)).toBe(hash);
  });

  async function serve(options: Partial<NbdServerOptions> = {}): Promise<NbdServer> {
    server = await startNbdServer({
      exports: [{ name: 'one', description: 'first', device: { kind: 'file', path: image } }],
      workers: 2,
      ...options,
    });
    return server;
  }

  async function readOnce(client: WireClient, offset: number, length: number): Promise<Buffer> {
    client.write(request({ type: 0, offset: BigInt(offset), length }));
    return (await client.read(16 + length)).subarray(16);
  }

  it('serves a file in a private place, counts, and leaves nothing behind', async () => {
    const { address, uri, size, stats } = await serve();
    if (!('socket' in address)) throw new Error('no socket');
    expect(uri).toBe(`nbd+unix:///one?socket=${address.socket}`);
    expect(size).toBe(content.length);
    expect(statSync(address.socket).mode & 0o777).toBe(0o600);
    const client = await WireClient.connect(address);
    expect(await client.go('one')).toBe(content.length);
    const bytes = await readOnce(client, 12_345, 2 * MIB);
    expect(bytes.equals(content.subarray(12_345, 12_345 + 2 * MIB))).toBe(true);
    await until(() => server!.stats().exports[0]!.clients === 1);
    expect(stats.call(server).exports[0]).toMatchObject({ connections: 1, requests: 1, bytesRead: 2 * MIB, errors: 0 });
    const gone = once(server!.events, 'disconnected');
    client.write(request({ type: 2 }));
    await client.untilClosed();
    expect(await gone).toEqual([{ export: 'one' }]);
    expect(server!.stats().exports[0]!.clients).toBe(0);
    await server!.close();
    expect(existsSync(address.socket)).toBe(false);
  });

  it.runIf(process.platform === 'linux')('gives each client to the worker that has the fewest', async () => {
    const { address } = await serve({ workers: 4 });
    expect(server!.workers).toBe(4);
    const clients: WireClient[] = [];
    // One after another: each has its greeting, so its worker has pointed the socket on, before the next one comes.
    for (let i = 0; i < 8; i++) {
      const client = await WireClient.connect(address);
      await client.go();
      clients.push(client);
    }
    expect([...server!.loads()]).toEqual([2, 2, 2, 2]);
    for (const client of clients) client.socket.destroy();
    await until(() => server!.loads().every((load) => load === 0));
  });

  it('serves many clients that come at once', async () => {
    const { address } = await serve({ workers: 3 });
    const clients = await Promise.all(Array.from({ length: 60 }, () => WireClient.connect(address)));
    await Promise.all(
      clients.map(async (client, i) => {
        await client.go();
        expect((await readOnce(client, i * 512, 512)).equals(content.subarray(i * 512, i * 512 + 512))).toBe(true);
      }),
    );
    await until(() => server!.stats().exports[0]!.clients === 60);
    for (const client of clients) client.socket.destroy();
    await until(() => server!.stats().exports[0]!.clients === 0);
  });

  it('serves TCP on loopback, and nowhere else', async () => {
    const { address, uri } = await serve({ listen: { host: '127.0.0.1', port: 0 } });
    if (!('port' in address)) throw new Error('no port');
    expect(address.port).toBeGreaterThan(0);
    expect(uri).toBe(`nbd://127.0.0.1:${address.port}/one`);
    const client = await WireClient.connect(address);
    expect(await client.go()).toBe(content.length);
    expect((await readOnce(client, 0, 9)).equals(content.subarray(0, 9))).toBe(true);
    client.socket.destroy();
    await expect(serve({ listen: { host: '0.0.0.0', port: 0 } })).rejects.toBeInstanceOf(DeniedError);
  });

  it('serves several exports by name', async () => {
    const small = join(scratch.path, 'small.img');
    writeFileSync(small, 'abc');
    const { address } = await serve({
      exports: [
        { name: 'one', description: '', device: { kind: 'file', path: image } },
        { name: 'two', description: '', device: { kind: 'chain', path: small, root: scratch.path } },
      ],
    });
    const client = await WireClient.connect(address);
    expect(await client.go('two')).toBe(statSync(small).size);
    expect((await readOnce(client, 1, 2)).toString()).toBe('bc');
    client.socket.destroy();
    expect(server!.commands('two').some(({ command }) => command.includes('-name two'))).toBe(true);
    expect(() => server!.commands('three')).toThrow(UsageError);
  });

  it('does not start on what it cannot open, and says so with the kind of the error', async () => {
    const missing = serve({
      exports: [{ name: '', description: '', device: { kind: 'file', path: join(scratch.path, 'no') } }],
    });
    await expect(missing).rejects.toMatchObject({ kind: 'io', details: { code: 'ENOENT' } });
    await expect(serve({ exports: [] })).rejects.toBeInstanceOf(UsageError);
    await expect(serve({ workers: 0 })).rejects.toBeInstanceOf(UsageError);
    const taken = join(scratch.path, 'taken');
    writeFileSync(taken, '');
    await expect(serve({ listen: { socket: taken } })).rejects.toBeInstanceOf(DeniedError);
    expect(readFileSync(taken)).toHaveLength(0);
  });

  it('answers a failed read with EIO and goes on', async () => {
    const shrinking = join(scratch.path, 'shrinking.img');
    writeFileSync(shrinking, Buffer.alloc(8192, 1));
    const { address } = await serve({
      exports: [{ name: 's', description: '', device: { kind: 'file', path: shrinking } }],
    });
    const client = await WireClient.connect(address);
    await client.go();
    writeFileSync(shrinking, Buffer.alloc(4096, 1));
    const told = once(server!.events, 'readFailed');
    client.write(request({ type: 0, offset: 4096n, length: 512 }));
    expect((await client.read(16)).readUInt32BE(4)).toBe(5);
    expect((await told)[0]).toMatchObject({
      export: 's',
      offset: 4096,
      length: 512,
      more: 0,
      error: { kind: 'corrupt' },
    });
    expect((await readOnce(client, 0, 512)).equals(Buffer.alloc(512, 1))).toBe(true);
    expect(server!.stats().exports[0]).toMatchObject({ errors: 1, bytesRead: 512 });
    client.socket.destroy();
  });

  it('ends clients that do not get to the point, and those that talk something else', async () => {
    const { address } = await serve({ handshakeMs: 50 });
    const silent = await WireClient.connect(address);
    const web = await WireClient.connect(address);
    web.write(Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'));
    const nonsense = await WireClient.connect(address);
    nonsense.write(Buffer.concat([CLIENT_FLAGS, Buffer.alloc(100, 'x')]));
    await Promise.all([silent, web, nonsense].map((client) => client.untilClosed()));
  });

  it('keeps little for a client that asks and does not read, and serves the others meanwhile', async () => {
    const { address } = await serve({ workers: 1 });
    const greedy = await WireClient.connect(address);
    await greedy.go();
    greedy.socket.pause();
    const before = process.memoryUsage().rss;
    // 16 GiB are asked for.
    const ask = Buffer.concat(Array.from({ length: 2048 }, () => request({ type: 0, length: 8 * MIB })));
    greedy.write(ask);
    const other = await WireClient.connect(address);
    await other.go();
    for (let i = 0; i < 200; i++) expect((await readOnce(other, i * 4096, 4096)).length).toBe(4096);
    expect(server!.stats().exports[0]!.bytesRead).toBeLessThan(32 * MIB);
    expect(process.memoryUsage().rss - before).toBeLessThan(128 * MIB);
    other.socket.destroy();
    greedy.socket.destroy();
  });

  it('gives a client that has said all it wants its replies before it closes', async () => {
    const { address } = await serve();
    const client = await WireClient.connect(address);
    await client.go();
    client.socket.end(Buffer.concat(Array.from({ length: 4 }, () => request({ type: 0, length: 8 * MIB }))));
    let bytes = 0;
    client.socket.on('data', (chunk) => {
      bytes += chunk.length;
    });
    await once(client.socket, 'close');
    expect(bytes).toBe(4 * (16 + 8 * MIB));
  });

  it('closes with clients attached and replies under way, soon and for good', async () => {
    const { address } = await serve();
    const client = await WireClient.connect(address);
    await client.go();
    client.socket.pause();
    client.write(Buffer.concat(Array.from({ length: 100 }, () => request({ type: 0, length: 8 * MIB }))));
    await until(() => server!.stats().exports[0]!.requests > 0);
    const started = performance.now();
    await Promise.all([server!.close(), server!.close()]);
    expect(performance.now() - started).toBeLessThan(4000);
    await expect(WireClient.connect(address)).rejects.toThrow();
    client.socket.destroy();
  });

  it('turns away more clients than it may have', async () => {
    const { address } = await serve({ workers: 1, maxConnections: 2 });
    const two = [await WireClient.connect(address), await WireClient.connect(address)];
    await Promise.all(two.map((client) => client.go()));
    const third = await WireClient.connect(address);
    await third.untilClosed();
    for (const client of two) client.socket.destroy();
  });
});
