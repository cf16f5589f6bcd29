import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type NbdServer, startNbdServer } from '../../main/engine/nbd/server.ts';
import { missingGuest, readInGuest } from '../support/nbd-guest.ts';
import { describePeers, run, tryRun } from '../support/peers.ts';
import { randomFrom } from '../support/random.ts';
import { fingerprint, scratchFolder, sha256File } from '../support/scratch.ts';

const MIB = 1 << 20;
const SIZE = 48 * MIB;
/** Debian's own Python, which is the one that has python3-libnbd. */
const PYTHON = '/usr/bin/python3';

function missingLibnbd(): string | undefined {
  return existsSync(PYTHON) && tryRun(PYTHON, ['-c', 'import nbd']).code === 0
    ? undefined
    : 'the Python module nbd is not installed (Debian package python3-libnbd)';
}

/** Runs a Python program with libnbd's module; it prints one JSON document. */
function python(uri: string, program: string, ...args: string[]): unknown {
  return JSON.parse(run(PYTHON, ['-c', `import nbd, json, sys\nuri = sys.argv[1]\n${program}`, uri, ...args]));
}

describePeers('NBD server', { peers: ['qemu-img', 'qemu-io', 'nbdinfo', 'nbdcopy'] }, () => {
  const scratch = scratchFolder('nbd-peers');
  let images: string;
  let before: Record<string, string>;
  /** What the leaf reads as, according to qemu-img. */
  let raw: string;
  let expected: Buffer;
  let server: NbdServer;

  beforeAll(async () => {
    images = join(scratch.path, 'images');
    await mkdir(images);
    raw = join(scratch.path, 'truth.raw');
    const random = randomFrom(7);
    let below: string | undefined;
    for (const name of ['base', 'one', 'two']) {
      const path = join(images, `${name}.vmdk`);
      const backing = below === undefined ? [] : ['-b', below, '-F', 'vmdk'];
      run('qemu-img', ['create', '-q', '-f', 'vmdk', ...backing, path, ...(below === undefined ? [`${SIZE}`] : [])], {
        cwd: images,
      });
      const writes = Array.from({ length: 60 }, () => {
        const at = Math.floor(random() * (SIZE / 2 / 4096)) * 4096;
        return `write -q -P ${1 + Math.floor(random() * 254)} ${at} ${4096 * (1 + Math.floor(random() * 40))}`;
      });
      run('qemu-io', ['-f', 'vmdk', path], { input: `${writes.join('\n')}\n`, cwd: images });
      below = `${name}.vmdk`;
    }
    run('qemu-img', ['convert', '-f', 'vmdk', '-O', 'raw', join(images, 'two.vmdk'), raw]);
    expected = readFileSync(raw);
    before = fingerprint(images);
    server = await startNbdServer({
      exports: [
        {
          name: 'web01/disk 0',
          description: 'web01, disk 0, read-only',
          device: { kind: 'chain', path: join(images, 'two.vmdk'), root: images },
        },
        { name: 'raw', description: 'the same as a raw file', device: { kind: 'file', path: raw } },
      ],
      workers: 2,
    });
  });
  afterAll(async () => {
    await server?.close();
    if (before !== undefined) expect(fingerprint(images)).toEqual(before);
  });

  it('is what nbdinfo says it should be', () => {
    const info = JSON.parse(run('nbdinfo', ['--json', '--list', server.uri])) as { exports: Record<string, unknown>[] };
    expect(info).toMatchObject({ protocol: 'newstyle-fixed', TLS: false, structured: true });
    expect(info.exports).toHaveLength(2);
    expect(info.exports[0]).toMatchObject({
      'export-name': 'web01/disk 0',
      description: 'web01, disk 0, read-only',
      contexts: ['base:allocation'],
      is_read_only: true,
      can_multi_conn: true,
      can_df: true,
      can_cache: false,
      can_trim: false,
      can_zero: false,
      block_size_minimum: 1,
      block_size_preferred: 4096,
      block_size_maximum: 32 * MIB,
      'export-size': SIZE,
    });
    expect(info.exports[1]).toMatchObject({ 'export-name': 'raw', 'export-size': SIZE });
  });

  it('has a map that calls zero only what is, and data every stored grain', () => {
    const map = JSON.parse(run('nbdinfo', ['--map', '--json', server.uri])) as {
      offset: number;
      length: number;
      type: number;
    }[];
    let at = 0;
    const kinds = new Set<number>();
    for (const { offset, length, type } of map) {
      expect(offset).toBe(at);
      at += length;
      kinds.add(type);
      if (type === 3) expect(expected.subarray(offset, at).every((byte) => byte === 0)).toBe(true);
    }
    expect(at).toBe(SIZE);
    expect([...kinds].sort()).toEqual([0, 3]);
    // qemu looks at the chain itself: it must not see data where we say there is a hole.
    const theirs = JSON.parse(run('qemu-img', ['map', '--output=json', join(images, 'two.vmdk')])) as {
      start: number;
      length: number;
      data: boolean;
    }[];
    const dataOf = (ranges: readonly (readonly [number, number])[]): number =>
      ranges.reduce((sum, [, n]) => sum + n, 0);
    const theirData = dataOf(theirs.filter((run) => run.data).map((run) => [run.start, run.length]));
    const ourData = dataOf(map.filter((run) => run.type === 0).map((run) => [run.offset, run.length]));
    expect(ourData).toBe(theirData);
  });

  it('is copied byte for byte by nbdcopy, over one connection and over several', () => {
    for (const [name, args] of [
      ['one', ['--synchronous']],
      ['many', ['--connections=4', '--requests=64']],
      ['dense', ['--no-extents', '--connections=2']],
      ['huge', ['--request-size=33554432', '--no-extents']],
    ] as const) {
      const copy = join(scratch.path, `copy-${name}`);
      run('nbdcopy', [...args, server.uri, copy]);
      expect(sha256File(copy), name).toBe(sha256File(raw));
    }
  });

  it('agrees with qemu-img', () => {
    for (const { uri } of server.stats().exports) {
      expect(run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', raw, uri])).toContain('identical');
    }
    const converted = join(scratch.path, 'converted.raw');
    run('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', server.uri, converted]);
    expect(sha256File(converted)).toBe(sha256File(raw));
    const map = JSON.parse(run('qemu-img', ['map', '-f', 'raw', '--output=json', server.uri])) as { length: number }[];
    expect(map.reduce((sum, { length }) => sum + length, 0)).toBe(SIZE);
    expect(map.length).toBeGreaterThan(2);
  });

  it('lets qemu-io read and never write', () => {
    const pattern = expected.indexOf(Buffer.alloc(4096, expected[expected.findIndex((byte) => byte !== 0)]));
    const byte = expected[pattern]!;
    expect(
      tryRun('qemu-io', ['-r', '-f', 'raw', '-c', `read -P ${byte} ${pattern} 4096`, server.uri]).stdout,
    ).not.toContain('failed');
    const write = tryRun('qemu-io', ['-f', 'raw', '-c', 'write 0 4096', server.uri]);
    expect(`${write.stdout}${write.stderr}`).toMatch(/read-only|not permitted|denied/i);
    expect(write.code).not.toBe(0);
  });

  it('keeps serving when clients are killed in the middle of a read', async () => {
    for (let i = 0; i < 5; i++) {
      const client = spawn('nbdcopy', ['--no-extents', '--connections=4', server.uri, '-'], {
        stdio: ['ignore', 'pipe', 'ignore'],
      });
      await once(client.stdout, 'data');
      client.kill('SIGKILL');
      client.stdout.destroy();
      await once(client, 'exit');
    }
    while (server.stats().exports.some(({ clients }) => clients > 0))
      await new Promise((resolve) => setImmediate(resolve));
    expect(run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', raw, server.uri])).toContain('identical');
  });

  it('answers a read of what has gone from under it with an error, and the next one with data', async () => {
    const path = join(scratch.path, 'going.raw');
    writeFileSync(path, expected);
    const going = await startNbdServer({
      exports: [{ name: '', description: '', device: { kind: 'file', path } }],
      workers: 1,
    });
    try {
      const reads = spawn('qemu-io', ['-r', '-f', 'raw', going.uri], { stdio: ['pipe', 'pipe', 'pipe'] });
      let said = '';
      reads.stdout.on('data', (chunk: Buffer) => {
        said += chunk.toString();
      });
      reads.stderr.on('data', (chunk: Buffer) => {
        said += chunk.toString();
      });
      const ask = async (command: string, answer: RegExp): Promise<void> => {
        const from = said.length;
        reads.stdin.write(`${command}\n`);
        while (!answer.test(said.slice(from)))
          await Promise.race([once(reads.stdout, 'data'), once(reads.stderr, 'data')]);
      };
      await ask('read 0 512', /read 512\/512/);
      truncateSync(path, 16 * MIB);
      await ask(`read ${20 * MIB} 4096`, /read failed: Input\/output error/);
      await ask(`read ${MIB} 4096`, /read 4096\/4096/);
      reads.stdin.end('quit\n');
      await once(reads, 'exit');
      expect(going.stats().exports[0]!.errors).toBeGreaterThan(0);
    } finally {
      await going.close();
    }
  });

  it('ends clients that are attached when it closes', async () => {
    const closing = await startNbdServer({
      exports: [{ name: 'x', description: '', device: { kind: 'file', path: raw } }],
    });
    const client = spawn('nbdcopy', ['--no-extents', closing.uri, '-'], { stdio: ['ignore', 'pipe', 'pipe'] });
    await once(client.stdout, 'data');
    const ended = once(client, 'exit');
    const { address } = closing;
    await closing.close();
    client.stdout.resume();
    expect((await ended)[0]).not.toBe(0);
    expect('socket' in address && existsSync(dirname(address.socket))).toBe(false);
  });

  describePeers('read by fio', { peers: ['fio'] }, () => {
    it('gives every read what it asks for', () => {
      const output = join(scratch.path, 'fio.json');
      run('fio', [
        '--name=r',
        '--ioengine=nbd',
        `--uri=${server.uri}`,
        '--rw=randread',
        '--bs=4k',
        '--iodepth=16',
        '--io_size=64m',
        `--size=${SIZE}`,
        '--output-format=json',
        `--output=${output}`,
      ]);
      const result = JSON.parse(readFileSync(output, 'utf8')) as {
        jobs: { error: number; read: { total_ios: number } }[];
      };
      expect(result.jobs[0]).toMatchObject({ error: 0, read: { total_ios: 16_384 } });
    });
  });

  describePeers('read through libnbd', { reasons: [missingLibnbd()] }, () => {
    it('reads with and without structured replies, in chunks and in one', () => {
      const found = python(
        server.uri,
        `
out = {}
for structured in (True, False):
    h = nbd.NBD()
    h.set_request_structured_replies(structured)
    h.connect_uri(uri)
    out[str(structured)] = [h.get_structured_replies_negotiated(), h.can_df(), h.get_size()]
    chunks = []
    def chunk(data, offset, status, err):
        chunks.append([offset, len(data), status])
    h.pread_structured(4 << 20, ${30 * MIB}, chunk)
    out['chunks' + str(structured)] = chunks
    if structured:
        one = []
        h.pread_structured(4 << 20, ${30 * MIB}, lambda data, offset, status, err: one.append([offset, len(data), status]), nbd.CMD_FLAG_DF)
        out['df'] = one
print(json.dumps(out))
`,
      ) as Record<string, unknown[]>;
      expect(found.True).toEqual([true, true, SIZE]);
      expect(found.False).toEqual([false, false, SIZE]);
      // The second half of the disk was never written: holes (status 2), in pieces of a slab.
      expect(found.chunksTrue).toEqual([
        [30 * MIB, 2 * MIB, 2],
        [32 * MIB, 2 * MIB, 2],
      ]);
      expect(found.df).toEqual([[30 * MIB, 4 * MIB, 1]]);
      expect(found.chunksFalse).toEqual([[30 * MIB, 4 * MIB, 1]]);
    });

    it('has base:allocation and no other context, and one extent when one is asked for', () => {
      const found = python(
        server.uri,
        `
h = nbd.NBD()
h.add_meta_context('base:allocation')
h.add_meta_context('qemu:dirty-bitmap:x')
h.connect_uri(uri)
extents = []
h.block_status(h.get_size(), 0, lambda name, offset, entries, err: extents.append([name, offset, len(entries)]))
one = []
h.block_status(h.get_size(), 0, lambda name, offset, entries, err: one.append(len(entries)), nbd.CMD_FLAG_REQ_ONE)
print(json.dumps([h.can_meta_context('base:allocation'), h.can_meta_context('qemu:dirty-bitmap:x'), extents, one]))
`,
      ) as [boolean, boolean, [string, number, number][], number[]];
      expect(found[0]).toBe(true);
      expect(found[1]).toBe(false);
      expect(found[2]).toHaveLength(1);
      expect(found[2][0]!.slice(0, 2)).toEqual(['base:allocation', 0]);
      expect(found[2][0]![2]).toBeGreaterThan(4);
      expect(found[3]).toEqual([2]);
    });

    it('refuses what it must with the errors of the specification, and goes on', () => {
      const found = python(
        server.uri,
        `
h = nbd.NBD()
h.set_strict_mode(0)
h.add_meta_context('base:allocation')
h.connect_uri(uri)
size = h.get_size()
calls = {
    'write': lambda: h.pwrite(b'x' * 70000, 0),
    'trim': lambda: h.trim(4096, 0),
    'zero': lambda: h.zero(4096, 0),
    'cache': lambda: h.cache(4096, 0),
    'beyond': lambda: h.pread(512, size - 511),
    'nothing': lambda: h.pread(0, 0),
    'flags': lambda: h.pread(512, 0, nbd.CMD_FLAG_FAST_ZERO),
    'status': lambda: h.block_status(4096, size, lambda *args: 0),
}
out = {}
for name, call in calls.items():
    try:
        call()
        out[name] = 'ok'
    except nbd.Error as e:
        out[name] = e.errno
    assert len(h.pread(512, 0)) == 512
h.flush()
h.shutdown()
print(json.dumps(out))
`,
      );
      expect(found).toEqual({
        write: 'EPERM',
        trim: 'EPERM',
        zero: 'EPERM',
        cache: 'EINVAL',
        beyond: 'EINVAL',
        nothing: 'EINVAL',
        flags: 'EINVAL',
        status: 'EINVAL',
      });
    });

    it('serves many connections with many reads each at once', () => {
      const found = python(
        server.uri,
        `
import random
truth = open(sys.argv[2], 'rb').read()
handles = []
for i in range(16):
    h = nbd.NBD()
    h.connect_uri(uri)
    handles.append(h)
random.seed(5)
wrong = 0
for batch in range(10):
    pending = []
    for n in range(200):
        h = random.choice(handles)
        length = random.choice([1, 512, 4096, 65536, 300000])
        offset = random.randrange(0, len(truth) - length)
        buf = nbd.Buffer(length)
        pending.append((h, h.aio_pread(buf, offset), buf, offset, length))
    for h, cookie, buf, offset, length in pending:
        while not h.aio_command_completed(cookie):
            h.poll(-1)
        wrong += bytes(buf.to_bytearray()) != truth[offset:offset + length]
print(json.dumps(wrong))
`,
        raw,
      );
      expect(found).toBe(0);
    });
  });

  describePeers(
    'attached by the kernel of a QEMU guest',
    { peers: ['qemu-system-x86_64', 'busybox', 'cpio'], reasons: [missingGuest()] },
    () => {
      it('reads the same bytes there, and cannot be written to', async () => {
        const tcp = await startNbdServer({
          exports: [
            { name: 'disk0', description: '', device: { kind: 'chain', path: join(images, 'two.vmdk'), root: images } },
          ],
          listen: { host: '127.0.0.1', port: 0 },
          workers: 2,
        });
        try {
          if (!('port' in tcp.address)) throw new Error('no port');
          const report = await readInGuest(join(scratch.path, 'guest'), tcp.address.port, 'disk0');
          expect(report).toMatchObject({ size: SIZE, readOnly: true, sha256: sha256File(raw) });
          expect(report.write).toMatch(/not permitted|error/i);
          expect(statSync(raw).size).toBe(SIZE);
        } finally {
          await tcp.close();
        }
      });
    },
  );
});
