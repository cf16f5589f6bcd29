import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type Server } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { DeniedError, UsageError } from '../../../main/engine/errors.ts';
import { exportCommands, shellQuote } from '../../../main/engine/nbd/commands.ts';
import {
  hideSocket,
  loopbackAddress,
  pointSocket,
  prepareSocket,
  publishSocket,
  removeFolder,
  workerSocket,
} from '../../../main/engine/nbd/listen-socket.ts';
import { exportUri } from '../../../main/engine/nbd/uri.ts';
import { run, tryRun } from '../../support/peers.ts';
import { scratchFolder } from '../../support/scratch.ts';

describe('NBD URIs', () => {
  it.each([
    [{ socket: '/run/nbd.sock' }, 'web01/disk0', 'nbd+unix:///web01/disk0?socket=/run/nbd.sock'],
    [{ socket: '/tmp/a b&c#d/ü.sock' }, '', 'nbd+unix:///?socket=/tmp/a%20b%26c%23d/%C3%BC.sock'],
    [{ host: '127.0.0.1', port: 10809 }, "it's 100%?", 'nbd://127.0.0.1:10809/it%27s%20100%25%3F'],
    [{ host: '::1', port: 1 }, 'a,b', 'nbd://[::1]:1/a%2Cb'],
  ])('are percent-encoded: %o %s', (address, name, uri) => {
    expect(exportUri(address, name)).toBe(uri);
    const parsed = new URL(uri);
    expect(decodeURIComponent(parsed.pathname.slice(1))).toBe(name);
    if ('socket' in address) expect(parsed.searchParams.get('socket')).toBe(address.socket);
  });
});

describe('NBD commands', () => {
  it('give a shell exactly the words that are meant', () => {
    for (const word of ['', 'plain', 'a b', "it's", '$HOME`id`"x"', 'a\nb', '*?[]', '-x', 'ü']) {
      expect(run('sh', ['-c', `printf %s ${shellQuote(word)}`])).toBe(word);
    }
  });

  it('quote names and double the commas of QEMU options', () => {
    const served = {
      uri: exportUri({ socket: '/tmp/x y,z.sock' }, "o'k, so"),
      name: "o'k, so",
      socket: '/tmp/x y,z.sock',
    };
    const words = (part: string): string[] => {
      const command = exportCommands(served).find((one) => one.command.includes(part))!.command;
      return run('sh', ['-c', `printf '%s\\n' ${command}`])
        .split('\n')
        .slice(0, -1);
    };
    expect(words('-blockdev')).toContain(
      "driver=nbd,node-name=backup,read-only=on,server.type=unix,server.path=/tmp/x y,,z.sock,export=o'k,, so",
    );
    expect(words('nbd-client -unix')).toEqual([
      'sudo',
      'nbd-client',
      '-unix',
      '/tmp/x y,z.sock',
      '/dev/nbd0',
      '-name',
      "o'k, so",
      '-readonly',
    ]);
    expect(words('nbdcopy')[1]).toBe(served.uri);
  });
});

describe('TCP addresses', () => {
  it.each(['127.0.0.1', '127.9.8.7', '::1', '[::1]', '0:0:0:0:0:0:0:1', 'localhost'])('may be %s', (host) => {
    expect(loopbackAddress(host, 0).port).toBe(0);
  });
  it.each(['0.0.0.0', '::', '192.168.1.2', '::ffff:10.0.0.1', 'example.com', '', '128.0.0.1', '127.0.0.1.evil.org'])(
    'may not be "%s"',
    (host) => {
      expect(() => loopbackAddress(host, 10809)).toThrow(DeniedError);
    },
  );
  it.each([-1, 65_536, 1.5, Number.NaN])('have a port, which %d is not', (port) => {
    expect(() => loopbackAddress('127.0.0.1', port)).toThrow(UsageError);
  });
});

function listening(path: string): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(path, () => resolve(server));
  });
}

describe('Unix sockets', () => {
  const scratch = scratchFolder('socket');

  it('get mode 0600 and a private folder', async () => {
    const place = await prepareSocket();
    const server = await listening(workerSocket(place, 0));
    const sockets = publishSocket(place, 1);
    expect(statSync(place.path).mode & 0o777).toBe(0o600);
    expect(statSync(dirname(place.path)).mode & 0o777).toBe(0o700);
    server.close();
    hideSocket(place, sockets);
    removeFolder(place);
    expect(existsSync(dirname(place.path))).toBe(false);
  });

  it('are reachable at no time with a wider mode, and leave nothing behind', async () => {
    const folder = join(scratch.path, 'wide');
    mkdirSync(folder);
    chmodSync(folder, 0o777);
    const path = join(folder, 'x.sock');
    const place = await prepareSocket(path);
    expect(statSync(place.folder).mode & 0o777).toBe(0o700);
    const server = await listening(workerSocket(place, 0));
    expect(existsSync(path)).toBe(false);
    const sockets = publishSocket(place, 1);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    server.close();
    hideSocket(place, sockets);
    removeFolder(place);
    expect(run('ls', ['-A', folder])).toBe('');
  });

  it('never replace a file, be it there before or made meanwhile', async () => {
    const file = join(scratch.path, 'precious');
    writeFileSync(file, 'x');
    await expect(prepareSocket(file)).rejects.toBeInstanceOf(DeniedError);
    const late = join(scratch.path, 'late');
    const place = await prepareSocket(late);
    const server = await listening(workerSocket(place, 0));
    writeFileSync(late, 'mine');
    expect(() => publishSocket(place, 1)).toThrow(DeniedError);
    server.close();
    removeFolder(place);
    expect(existsSync(late)).toBe(true);
  });

  it('move their name on, but not over a file that took its place', async () => {
    const path = join(scratch.path, 'moving.sock');
    const place = await prepareSocket(path);
    const servers = [await listening(workerSocket(place, 0)), await listening(workerSocket(place, 1))];
    const sockets = publishSocket(place, 2);
    expect(statSync(path).ino).toBe(sockets[0]!.ino);
    for (const to of [1, 1, 0]) {
      pointSocket(place, 2, to);
      expect(statSync(path).ino).toBe(sockets[to]!.ino);
      expect(readdirSync(place.folder).sort()).toEqual(['0', '1']);
    }
    rmSync(path);
    pointSocket(place, 2, 1);
    expect(existsSync(path)).toBe(false);
    writeFileSync(path, 'mine');
    pointSocket(place, 2, 1);
    hideSocket(place, sockets);
    expect(readFileSync(path, 'utf8')).toBe('mine');
    for (const server of servers) server.close();
    removeFolder(place);
  });

  it('take the place of a dead server, not of a living one', async () => {
    const folder = join(scratch.path, 'stale');
    mkdirSync(folder);
    const path = join(folder, 'nbd.sock');
    // A process that is killed leaves its sockets' files behind.
    const dead = join(folder, '.nbd-dead00');
    mkdirSync(dead);
    const script = `require('net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))`;
    tryRun(process.execPath, ['-e', script, join(dead, '0')]);
    linkSync(join(dead, '0'), path);
    mkdirSync(join(folder, '.nbd-other0'));
    const place = await prepareSocket(path);
    expect(readdirSync(folder).sort()).toEqual(['.nbd-other0', basename(place.folder)].sort());
    const server = await listening(workerSocket(place, 0));
    const sockets = publishSocket(place, 1);
    await expect(prepareSocket(path)).rejects.toBeInstanceOf(DeniedError);
    server.close();
    hideSocket(place, sockets);
    removeFolder(place);
    expect(readdirSync(folder)).toEqual(['.nbd-other0']);
  });

  it('say what is wrong with a place that is none', async () => {
    const file = join(scratch.path, 'file');
    writeFileSync(file, '');
    await expect(prepareSocket(join(file, 'x.sock'))).rejects.toMatchObject({
      kind: 'io',
      details: { code: 'ENOTDIR' },
    });
    await expect(prepareSocket(join(scratch.path, 'no', 'x.sock'))).rejects.toMatchObject({
      details: { code: 'ENOENT' },
    });
  });

  it('refuse a path that the system would cut off', async () => {
    await expect(prepareSocket(join(scratch.path, 'x'.repeat(100)))).rejects.toBeInstanceOf(UsageError);
  });
});
