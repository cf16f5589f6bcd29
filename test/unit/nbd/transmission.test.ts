import { describe, expect, it } from 'vitest';
import { CorruptError } from '../../../main/engine/errors.ts';
import { SLAB_DATA } from '../../../main/engine/nbd/slabs.ts';
import { Transmission, type TransmissionState } from '../../../main/engine/nbd/transmission.ts';
import {
  assemble,
  type Chunk,
  type Reply,
  type RequestFields,
  replies,
  request,
  TestDevice,
  TestObserver,
  TestOutput,
} from '../../support/nbd-wire.ts';
import { randomFrom } from '../../support/random.ts';

const READ = 0;
const DISC = 2;
const BLOCK_STATUS = 7;
const DF = 4;
const REQ_ONE = 8;
const EPERM = 1;
const EIO = 5;
const EINVAL = 22;

const MIB = 1 << 20;

function start(device: TestDevice, structured = true, blockStatus = structured) {
  const output = new TestOutput();
  const observer = new TestObserver();
  const transmission = new Transmission(device, { structured, blockStatus }, output, observer);
  return { output, observer, transmission };
}

/** Sends requests in one chunk and gives back the replies of each, by cookie. */
function ask(device: TestDevice, requests: readonly (RequestFields & { payload?: Uint8Array })[], structured = true) {
  const { output, observer, transmission } = start(device, structured);
  const bytes = Buffer.concat(
    requests.flatMap((one, i) => [request({ cookie: BigInt(i), ...one }), one.payload ?? Buffer.alloc(0)]),
  );
  const state = transmission.receive(bytes);
  const all = replies(output.bytes(), (cookie) => {
    const one = requests[Number(cookie)]!;
    return one.type === READ ? one.length! : 0;
  });
  return {
    state,
    observer,
    all,
    of: (index: number): Reply[] => all.filter((reply) => reply.cookie === BigInt(index)),
  };
}

/** Vitest compares buffers element by element, in seconds for megabytes. */
function expectSame(found: Buffer | undefined, expected: Buffer): void {
  expect(found?.length).toBe(expected.length);
  expect(found?.equals(expected)).toBe(true);
}

/** Error number and message of an error chunk, or the number of a simple reply. */
function errorOf(reply: Reply | undefined): { error: number; message?: string } {
  if (reply?.kind === 'simple') return { error: reply.error };
  if (reply?.kind !== 'chunk' || reply.type !== 0x8001) throw new Error('no error reply');
  expect(reply.data.readUInt16BE(4)).toBe(reply.data.length - 6);
  return { error: reply.data.readUInt32BE(0), message: reply.data.toString('utf8', 6) };
}

function extentsOf(reply: Reply | undefined): [number, number][] {
  const chunk = reply as Chunk;
  expect(chunk).toMatchObject({ kind: 'chunk', type: 5, done: true });
  expect(chunk.data.readUInt32BE(0)).toBe(1);
  const out: [number, number][] = [];
  for (let at = 4; at < chunk.data.length; at += 8)
    out.push([chunk.data.readUInt32BE(at), chunk.data.readUInt32BE(at + 4)]);
  return out;
}

describe('NBD transmission', () => {
  const device = new TestDevice(100_000);

  it('answers a simple read byte for byte as the specification draws it', () => {
    const { output, transmission } = start(device, false);
    const cookie = 0x0102_0304_0506_0708n;
    expect(transmission.receive(request({ type: READ, cookie, offset: 7n, length: 5 }))).toBe('more');
    expect(output.bytes().toString('hex')).toBe(
      `67446698${'00000000'}${'0102030405060708'}${device.content.toString('hex', 7, 12)}`,
    );
  });

  it('answers a structured read with one chunk', () => {
    const { output, transmission } = start(device);
    transmission.receive(request({ type: READ, cookie: 0xffff_ffff_ffff_ffffn, offset: 99_999n, length: 1 }));
    expect(output.bytes().toString('hex')).toBe(
      `668e33ef${'0001'}${'0001'}${'f'.repeat(16)}${'00000009'}${'000000000001869f'}${device.content.toString('hex', 99_999)}`,
    );
  });

  it.each([true, false])('answers all requests of a chunk in order and in one write (structured: %s)', (structured) => {
    const requests = Array.from({ length: 16 }, (_, i) => ({ type: READ, offset: BigInt(i * 4096), length: 4096 }));
    const { output, transmission, observer } = start(device, structured);
    transmission.receive(Buffer.concat(requests.map((one, i) => request({ ...one, cookie: BigInt(i) }))));
    expect(output.sent).toHaveLength(1);
    const all = replies(output.bytes(), () => 4096);
    expect(all.map((reply) => Number(reply.cookie))).toEqual(requests.map((_, i) => i));
    expectSame(
      Buffer.concat(all.map((reply) => reply.data.subarray(structured ? 8 : 0))),
      device.content.subarray(0, 65_536),
    );
    expect(observer).toMatchObject({ requests: 16, bytes: 65_536 });
  });

  it.each([
    ['length 0', { type: READ, length: 0 }, EINVAL],
    ['more than 32 MiB', { type: READ, length: 32 * MIB + 1 }, EINVAL],
    ['beyond the end', { type: READ, offset: 99_999n, length: 2 }, EINVAL],
    ['an offset of 2^64-1', { type: READ, offset: 0xffff_ffff_ffff_ffffn, length: 1 }, EINVAL],
    ['an offset of 2^53', { type: READ, offset: 1n << 53n, length: 1 }, EINVAL],
    ['FUA on a read', { type: READ, flags: 1, length: 1 }, EINVAL],
    ['CACHE', { type: 5, length: 4096 }, EINVAL],
    ['TRIM', { type: 4, length: 4096 }, EPERM],
    ['WRITE_ZEROES', { type: 6, length: 4096 }, EPERM],
    ['RESIZE', { type: 8, length: 4096 }, EINVAL],
    ['a command of 65535', { type: 65_535 }, EINVAL],
    ['BLOCK_STATUS of nothing', { type: BLOCK_STATUS, length: 0 }, EINVAL],
    ['BLOCK_STATUS beyond the end', { type: BLOCK_STATUS, length: 100_001 }, EINVAL],
    ['BLOCK_STATUS with DF', { type: BLOCK_STATUS, flags: DF, length: 1 }, EINVAL],
    ['FLUSH with flags', { type: 3, flags: 1 }, EINVAL],
  ])('refuses %s and goes on', (_what, fields, error) => {
    for (const structured of [true, false]) {
      const { of, state } = ask(device, [fields, { type: READ, length: 1 }], structured);
      expect(of(0)).toHaveLength(1);
      expect(errorOf(of(0)[0]).error).toBe(error);
      expect(of(1)).toHaveLength(1);
      expect(state).toBe('more');
    }
  });

  it('refuses DF where structured replies were not negotiated, and BLOCK_STATUS where no context was', () => {
    expect(errorOf(ask(device, [{ type: READ, flags: DF, length: 1 }], false).of(0)[0]).error).toBe(EINVAL);
    const { transmission, output } = start(device, true, false);
    transmission.receive(request({ type: BLOCK_STATUS, length: 1 }));
    expect(errorOf(replies(output.bytes())[0])).toMatchObject({ error: EINVAL });
  });

  it('refuses a write and drops its payload, whatever the payload looks like', () => {
    const payload = Buffer.concat([request({ type: READ, length: 1 }), Buffer.alloc(4068, 0xff)]);
    const { of, all } = ask(device, [
      { type: 1, length: 4096, payload },
      { type: READ, length: 3 },
    ]);
    expect(errorOf(of(0)[0])).toEqual({ error: EPERM, message: expect.stringContaining('read-only') });
    expect(all).toHaveLength(2);
    expectSame(of(1)[0]?.data.subarray(8), device.content.subarray(0, 3));
  });

  it('drops a payload that comes in pieces', () => {
    const { output, transmission } = start(device, false);
    transmission.receive(request({ type: 1, length: 100, cookie: 1n }));
    for (let i = 0; i < 10; i++) transmission.receive(Buffer.alloc(10, 0x25));
    transmission.receive(request({ type: READ, length: 1, cookie: 2n }));
    expect(
      replies(output.bytes(), () => 1).map((reply) => [reply.cookie, reply.kind === 'simple' && reply.error]),
    ).toEqual([
      [1n, EPERM],
      [2n, 0],
    ]);
  });

  it('succeeds a flush', () => {
    for (const structured of [true, false]) {
      expect(ask(device, [{ type: 3 }], structured).of(0)).toEqual([
        { kind: 'simple', error: 0, cookie: 0n, data: Buffer.alloc(0) },
      ]);
    }
  });

  it('says goodbye after everything before was answered', () => {
    const { state, all } = ask(device, [{ type: READ, length: 9 }, { type: DISC }, { type: READ, length: 1 }]);
    expect(state).toBe('done');
    expect(all).toHaveLength(1);
  });

  it.each([
    ['a request without its magic', request({ type: READ, length: 1, magic: 0x25609514 })],
    ['a write of more than 32 MiB', request({ type: 1, length: 32 * MIB + 1 })],
  ])('gives up on %s', (_what, bytes) => {
    const { transmission } = start(device);
    expect(transmission.receive(bytes)).toBe('broken');
    expect(transmission.reason).not.toBe('');
  });

  it('puts requests together from any pieces', () => {
    const bytes = Buffer.concat(
      Array.from({ length: 20 }, (_, i) =>
        request({ type: READ, cookie: BigInt(i), offset: BigInt(i * 100), length: 100 }),
      ),
    );
    const random = randomFrom(2);
    for (let round = 0; round < 50; round++) {
      const { output, transmission } = start(device, false);
      for (let at = 0; at < bytes.length; ) {
        const next = Math.min(bytes.length, at + 1 + Math.floor(random() * 70));
        transmission.receive(bytes.subarray(at, next));
        at = next;
      }
      const all = replies(output.bytes(), () => 100);
      expectSame(Buffer.concat(all.map((reply) => reply.data)), device.content.subarray(0, 2000));
    }
  });

  describe('holes', () => {
    const sparse = new TestDevice(4 * MIB, [
      [100_000, 200_000],
      [300_000, 300_512],
      [MIB, 3 * MIB + 7],
    ]);

    it('are sent as holes in long structured reads, short ones as data', () => {
      const { of } = ask(sparse, [{ type: READ, offset: 50_000n, length: MIB }]);
      const chunks = of(0) as Chunk[];
      expect(chunks.map((chunk) => [chunk.type, chunk.done])).toEqual([
        [1, false],
        [2, false],
        [1, false],
        [2, true],
      ]);
      expectSame(assemble(chunks, 50_000, MIB), sparse.content.subarray(50_000, 50_000 + MIB));
    });

    it('are not sent with DF, in simple replies, nor for short reads', () => {
      const df = ask(sparse, [{ type: READ, flags: DF, offset: 0n, length: MIB }]).of(0) as Chunk[];
      expect(df.map((chunk) => [chunk.type, chunk.done])).toEqual([[1, true]]);
      expectSame(df[0]!.data.subarray(8), sparse.content.subarray(0, MIB));
      const simple = ask(sparse, [{ type: READ, offset: 0n, length: MIB }], false).of(0);
      expectSame(simple[0]!.data, sparse.content.subarray(0, MIB));
      expect((ask(sparse, [{ type: READ, offset: 110_000n, length: 4096 }]).of(0)[0] as Chunk).type).toBe(1);
    });

    it('cover a read that is nothing but a hole', () => {
      const chunks = ask(sparse, [{ type: READ, offset: BigInt(MIB), length: MIB }]).of(0) as Chunk[];
      expect(chunks).toHaveLength(1);
      expect(chunks[0]).toMatchObject({ type: 2, done: true });
    });

    it('fit a slab at their worst', () => {
      const holes = Array.from({ length: 256 }, (_, i) => [i * 8192, i * 8192 + 4096] as [number, number]);
      const worst = new TestDevice(SLAB_DATA, holes);
      const chunks = ask(worst, [{ type: READ, length: SLAB_DATA }]).of(0);
      expect(chunks).toHaveLength(512);
      expectSame(assemble(chunks, 0, SLAB_DATA), worst.content);
    });

    it('are told by BLOCK_STATUS', () => {
      const { of } = ask(sparse, [
        { type: BLOCK_STATUS, length: 4 * MIB },
        { type: BLOCK_STATUS, flags: REQ_ONE, offset: 150_000n, length: MIB },
        { type: BLOCK_STATUS, offset: BigInt(3 * MIB), length: 8 },
      ]);
      expect(extentsOf(of(0)[0])).toEqual([
        [100_000, 0],
        [100_000, 3],
        [100_000, 0],
        [512, 3],
        [MIB - 300_512, 0],
        [2 * MIB + 7, 3],
        [MIB - 7, 0],
      ]);
      expect(extentsOf(of(1)[0])).toEqual([[50_000, 3]]);
      expect(extentsOf(of(2)[0])).toEqual([
        [7, 3],
        [1, 0],
      ]);
    });
  });

  describe('long reads', () => {
    const size = 7 * MIB + 123;
    const long = new TestDevice(size);
    const holed = new TestDevice(size, [[2 * MIB - 5, 5 * MIB]]);

    it.each([
      ['simple', long, false, 0],
      ['structured', long, true, 0],
      ['structured with DF', long, true, DF],
      ['structured with holes', holed, true, 0],
    ])('come in pieces: %s', (_what, from, structured, flags) => {
      const { of, state, observer } = ask(
        from,
        [
          { type: READ, flags, offset: 1n, length: size - 1 },
          { type: READ, offset: 0n, length: 1 },
        ],
        structured,
      );
      expect(state).toBe('more');
      const first = of(0);
      if (structured && flags === 0) expectSame(assemble(first, 1, size - 1), from.content.subarray(1));
      else expectSame(first[0]!.data.subarray(structured ? 8 : 0), from.content.subarray(1));
      expect(first.filter((reply) => reply.kind === 'chunk' && reply.done)).toHaveLength(structured ? 1 : 0);
      expect(of(1)).toHaveLength(1);
      expect(observer).toMatchObject({ requests: 2, bytes: size });
    });

    it('stop while the client does not read, and go on where they were', () => {
      const { output, transmission } = start(long, false);
      output.fullAt = 1;
      let state: TransmissionState = transmission.receive(
        Buffer.concat([
          request({ type: READ, offset: 0n, length: size, cookie: 1n }),
          request({ type: READ, offset: 5n, length: 6, cookie: 2n }),
        ]),
      );
      let rounds = 0;
      while (state === 'full') {
        rounds++;
        output.full = false;
        output.fullAt = output.total() + 1;
        state = transmission.resume();
      }
      expect(state).toBe('more');
      expect(rounds).toBeGreaterThan(2);
      const all = replies(output.bytes(), (cookie) => (cookie === 1n ? size : 6));
      expectSame(all[0]!.data, long.content);
      expectSame(all[1]!.data, long.content.subarray(5, 11));
    });
  });

  describe('errors of the device', () => {
    const broken = new TestDevice(5 * MIB);
    const why = new CorruptError('VMDK grain table', { source: 'a.vmdk', position: 512 });
    broken.failAt.set(50_000, why);
    broken.failAt.set(4 * MIB, new Error('ä'.repeat(5000)));

    it('are EIO for that request only, with the reason, and leave no trace of its data', () => {
      const requests = [
        { type: READ, offset: 0n, length: 10 },
        { type: READ, offset: 45_000n, length: 8192 },
        { type: READ, offset: 60_000n, length: 10 },
      ];
      const { of, observer, all } = ask(broken, requests);
      expect(all).toHaveLength(3);
      expect(errorOf(of(1)[0])).toEqual({ error: EIO, message: why.message });
      expectSame(of(2)[0]!.data.subarray(8), broken.content.subarray(60_000, 60_010));
      expect(observer.failures).toEqual([why]);
      expect(observer.bytes).toBe(20);
      const simple = ask(broken, requests, false);
      expect(simple.all.map((reply) => reply.kind === 'simple' && reply.error)).toEqual([0, EIO, 0]);
    });

    it('end a long structured read with an error chunk behind what was sent', () => {
      const { of, state } = ask(broken, [
        { type: READ, offset: 60_000n, length: 5 * MIB - 60_000 },
        { type: READ, offset: 0n, length: 1 },
      ]);
      const chunks = of(0) as Chunk[];
      expect(chunks.map((chunk) => [chunk.type, chunk.done])).toEqual([
        [1, false],
        [0x8001, true],
      ]);
      // Two-byte letters: cut between them, at the protocol's 4096 bytes.
      expect(errorOf(chunks[1]).message).toBe('ä'.repeat(2048));
      expect(of(1)).toHaveLength(1);
      expect(state).toBe('more');
    });

    it('at the start of a long read of the old kind are EIO; in its middle they close the connection', () => {
      const early = ask(
        broken,
        [
          { type: READ, offset: 0n, length: 3 * MIB },
          { type: READ, length: 1 },
        ],
        false,
      );
      expect(early.all.map((reply) => reply.kind === 'simple' && reply.error)).toEqual([EIO, 0]);
      const { transmission, observer } = start(broken, false);
      expect(transmission.receive(request({ type: READ, offset: BigInt(MIB), length: 4 * MIB }))).toBe('broken');
      expect(observer.failures).toHaveLength(1);
    });
  });

  it('answers whatever comes with whole replies or closes, and sends no more than was asked for', () => {
    const random = randomFrom(3);
    const sparse = new TestDevice(300_000, [[50_000, 150_000]]);
    sparse.failAt.set(200_000, new Error('bad'));
    for (let round = 0; round < 2000; round++) {
      const lengths = new Map<bigint, number>();
      let asked = 0;
      const bytes = Buffer.concat(
        Array.from({ length: 1 + Math.floor(random() * 8) }, (_, i) => {
          const type = random() < 0.6 ? READ : Math.floor(random() * 9);
          const length = random() < 0.1 ? Math.floor(random() * 2 ** 32) : Math.floor(random() * 100_000);
          const offset = BigInt(Math.floor(random() * 320_000));
          lengths.set(BigInt(i), length);
          if (length <= 300_000) asked += length;
          const flags = random() < 0.2 ? Math.floor(random() * 32) : 0;
          return request({ type, flags, cookie: BigInt(i), offset, length: type === 1 ? length % 100 : length });
        }),
      );
      // Headers stay whole except for a few flipped bytes behind the magic, so that the server must parse nonsense.
      for (let i = 0; i < 2; i++) {
        const at = Math.floor(random() * bytes.length);
        if (at % 28 >= 16) bytes[at] = Math.floor(random() * 256);
      }
      const structured = random() < 0.7;
      const { output, transmission } = start(sparse, structured);
      const cut = Math.floor(random() * bytes.length);
      let state = transmission.receive(bytes.subarray(0, cut));
      if (state === 'more') state = transmission.receive(bytes.subarray(cut));
      expect(['more', 'done', 'broken']).toContain(state);
      expect(output.total()).toBeLessThanOrEqual(8 * 300_000 + asked + 20_000);
      if (structured) for (const reply of replies(output.bytes())) expect(reply.cookie).toBeLessThan(8n);
    }
  });
});
