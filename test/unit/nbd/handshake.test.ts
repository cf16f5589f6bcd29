import { describe, expect, it } from 'vitest';
import { ExportDirectory } from '../../../main/engine/nbd/exports.ts';
import { Handshake, type HandshakeOutcome, MAX_REPLY_BYTES } from '../../../main/engine/nbd/handshake.ts';
import { CLIENT_FLAGS, contextData, counted, infoData, option, optionReplies } from '../../support/nbd-wire.ts';
import { randomFrom } from '../../support/random.ts';

const exports = new ExportDirectory([
  { name: 'web01/disk0', description: 'web01, disk 0', size: 0x1234_5678_9a },
  { name: 'dätä', description: '', size: 512 },
]);

function shake(...parts: Uint8Array[]) {
  const sent: Uint8Array[] = [];
  const handshake = new Handshake(exports, (bytes) => sent.push(bytes));
  let outcome: HandshakeOutcome = { state: 'more' };
  for (const part of parts) {
    if (outcome.state === 'more') outcome = handshake.receive(part);
  }
  return { outcome, raw: Buffer.concat(sent), handshake, sent };
}

/** Replies after client flags and the given options. */
function haggle(...options: Uint8Array[]) {
  const { outcome, raw } = shake(CLIENT_FLAGS, ...options);
  return { outcome, replies: optionReplies(raw) };
}

const ACK = 1;
const ERR_UNSUP = 0x8000_0001;
const ERR_INVALID = 0x8000_0003;
const ERR_UNKNOWN = 0x8000_0006;
const ERR_TOO_BIG = 0x8000_0009;

describe('NBD handshake', () => {
  it('greets with the magics and the flags of fixed newstyle', () => {
    const { handshake, sent } = shake();
    handshake.greet();
    expect(Buffer.concat(sent).toString('hex')).toBe('4e42444d41474943' + '49484156454f5054' + '0003');
  });

  it.each(['00000004', '47455420', 'ffffffff'])('closes on the unknown client flags %s', (hex) => {
    expect(shake(Buffer.from(hex, 'hex')).outcome).toMatchObject({
      state: 'close',
      reason: expect.stringMatching(/unknown client flags/),
    });
  });

  it('answers EXPORT_NAME without a reply head, with zeroes for clients that want them', () => {
    const short = shake(CLIENT_FLAGS, option(1, Buffer.from('web01/disk0')), Buffer.alloc(0));
    expect(short.raw.toString('hex')).toBe('000000123456789a' + '0107');
    expect(short.outcome).toMatchObject({
      state: 'transmission',
      exportIndex: 0,
      structured: false,
      blockStatus: false,
    });
    const long = shake(Buffer.from('00000001', 'hex'), option(1, Buffer.from('web01/disk0')));
    expect(long.raw).toHaveLength(134);
    expect(long.raw.subarray(10).every((byte) => byte === 0)).toBe(true);
  });

  it('serves clients of before fixed newstyle, which know EXPORT_NAME only', () => {
    expect(shake(Buffer.alloc(4), option(1)).outcome).toMatchObject({ state: 'transmission', exportIndex: 0 });
    expect(shake(Buffer.alloc(4), option(3)).outcome).toMatchObject({ state: 'close' });
  });

  it('closes on EXPORT_NAME with a name that is not served', () => {
    expect(shake(CLIENT_FLAGS, option(1, Buffer.from('other'))).outcome).toMatchObject({
      state: 'close',
      reason: expect.stringMatching(/other/),
    });
  });

  it('lists every export with its description', () => {
    const { replies, outcome } = haggle(option(3));
    expect(outcome.state).toBe('more');
    expect(replies.map((reply) => [reply.option, reply.type, reply.data.toString('latin1')])).toEqual([
      [3, 2, '\0\0\0\x0bweb01/disk0web01, disk 0'],
      [3, 2, `\0\0\0\x06${Buffer.from('dätä').toString('latin1')}`],
      [3, ACK, ''],
    ]);
    expect(haggle(option(3, Buffer.from('x'))).replies[0]?.type).toBe(ERR_INVALID);
  });

  it('gives INFO as asked, and goes on haggling', () => {
    const { replies, outcome } = haggle(option(6, infoData('', [1, 2, 3, 99])));
    expect(outcome.state).toBe('more');
    expect(replies.map((reply) => [reply.type, reply.data.toString('hex')])).toEqual([
      [3, '0000' + '000000123456789a' + '0107'],
      [3, `0001${Buffer.from('web01/disk0').toString('hex')}`],
      [3, `0002${Buffer.from('web01, disk 0').toString('hex')}`],
      [3, '0003' + '00000001' + '00001000' + '02000000'],
      [ACK, ''],
    ]);
  });

  it('goes with GO, DF offered only with structured replies, and passes on what came behind', () => {
    const plain = shake(CLIENT_FLAGS, Buffer.concat([option(7, infoData('dätä')), Buffer.from('rest')]));
    expect(plain.outcome).toMatchObject({ state: 'transmission', exportIndex: 1, structured: false });
    expect(plain.outcome.state === 'transmission' && Buffer.from(plain.outcome.rest).toString()).toBe('rest');
    expect(optionReplies(plain.raw)[0]?.data.toString('hex')).toBe('0000' + '0000000000000200' + '0107');
    const structured = haggle(option(8), option(7, infoData('dätä')));
    expect(structured.outcome).toMatchObject({ state: 'transmission', structured: true, blockStatus: false });
    expect(structured.replies[1]?.data.toString('hex')).toBe('0000' + '0000000000000200' + '0187');
  });

  it('says that an export is unknown, and lets the client try again', () => {
    for (const number of [6, 7]) {
      const { replies, outcome } = haggle(option(number, infoData('nope')));
      expect(replies.map((reply) => reply.type)).toEqual([ERR_UNKNOWN]);
      expect(outcome.state).toBe('more');
    }
  });

  it.each([
    ['GO without data', 7, Buffer.alloc(0)],
    ['a name longer than its option', 7, Buffer.from('000000ff6161', 'hex')],
    ['a request count that does not fit', 6, Buffer.concat([counted(''), Buffer.from('0002', 'hex')])],
    ['bytes behind the requests', 6, Buffer.concat([infoData(''), Buffer.from('00', 'hex')])],
    ['STRUCTURED_REPLY with data', 8, Buffer.from('00', 'hex')],
    ['a name of more than 4096 bytes', 7, infoData('x'.repeat(4097))],
  ])('refuses %s as invalid', (_what, number, data) => {
    const { replies, outcome } = haggle(option(number, data));
    expect(replies.map((reply) => reply.type)).toEqual([ERR_INVALID]);
    expect(outcome.state).toBe('more');
  });

  it.each([4, 5, 11, 12, 0xffff_ffff])('does not know option %d', (number) => {
    expect(haggle(option(number, Buffer.from('data'))).replies.map((reply) => reply.type)).toEqual([ERR_UNSUP]);
  });

  it('acknowledges ABORT and closes', () => {
    const { replies, outcome } = haggle(option(2));
    expect(replies.map((reply) => reply.type)).toEqual([ACK]);
    expect(outcome).toEqual({ state: 'close', reason: undefined });
  });

  it('refuses options of more than 64 KiB before they have come', () => {
    const huge = option(7);
    huge.writeUInt32BE(0x7fff_ffff, 12);
    const { replies, outcome } = haggle(huge);
    expect(replies.map((reply) => reply.type)).toEqual([ERR_TOO_BIG]);
    expect(outcome.state).toBe('close');
  });

  it('closes on an option without its magic', () => {
    expect(haggle(Buffer.alloc(16)).outcome).toMatchObject({ state: 'close' });
  });

  describe('metadata contexts', () => {
    const structured = option(8);
    it('needs structured replies', () => {
      expect(haggle(option(10, contextData('', ['base:allocation']))).replies[0]?.type).toBe(ERR_INVALID);
    });
    it.each([
      ['no query', [], 1],
      ['the namespace', ['base:'], 1],
      ['the name', ['x-other:y', 'base:allocation'], 1],
      ['another namespace', ['qemu:dirty-bitmap:'], 0],
    ])('lists for %s', (_what, queries, found) => {
      const { replies } = haggle(structured, option(9, contextData('', queries)));
      expect(replies.slice(1).map((reply) => reply.type)).toEqual([...Array(found).fill(4), ACK]);
      if (found === 1) expect(replies[1]?.data.toString('latin1')).toBe('\0\0\0\0base:allocation');
    });
    it('selects by exact name, for the export it was selected for', () => {
      const select = option(10, contextData('web01/disk0', ['base:allocation', 'base:unknown']));
      const go = haggle(structured, select, option(7, infoData('web01/disk0')));
      expect(go.replies[1]?.data.toString('latin1')).toBe('\0\0\0\x01base:allocation');
      expect(go.outcome).toMatchObject({ state: 'transmission', blockStatus: true });
      // The default export is the same one; another is not.
      expect(haggle(structured, select, option(7, infoData(''))).outcome).toMatchObject({ blockStatus: true });
      expect(haggle(structured, select, option(7, infoData('dätä'))).outcome).toMatchObject({ blockStatus: false });
    });
    it('does not take a wildcard for a selection, and forgets the last one', () => {
      const select = option(10, contextData('', ['base:allocation']));
      const again = option(10, contextData('', ['base:']));
      expect(haggle(structured, select, again, option(7, infoData(''))).outcome).toMatchObject({ blockStatus: false });
    });
    it.each([
      ['a query without a namespace', contextData('', ['allocation']), ERR_INVALID],
      [
        'fewer queries than it says',
        Buffer.concat([counted(''), Buffer.from('00000002', 'hex'), counted('base:')]),
        ERR_INVALID,
      ],
      ['bytes behind the queries', Buffer.concat([contextData('', ['base:']), Buffer.from('00', 'hex')]), ERR_INVALID],
      ['an unknown export', contextData('nope', ['base:']), ERR_UNKNOWN],
    ])('refuses %s', (_what, data, type) => {
      expect(haggle(structured, option(10, data)).replies.map((reply) => reply.type)).toEqual([ACK, type]);
    });
  });

  it('understands the same conversation byte by byte', () => {
    const bytes = Buffer.concat([
      CLIENT_FLAGS,
      option(8),
      option(10, contextData('', ['base:allocation'])),
      option(3),
      option(7, infoData('', [3])),
    ]);
    const whole = shake(bytes);
    const pieces = shake(...Array.from(bytes, (_, i) => bytes.subarray(i, i + 1)));
    expect(pieces.raw).toEqual(whole.raw);
    expect(pieces.outcome).toMatchObject({ state: 'transmission', blockStatus: true });
  });

  it('ends a client that asks for lists without end', () => {
    const many = new ExportDirectory(
      Array.from({ length: 1000 }, (_, i) => ({ name: `e${i}`, description: 'd'.repeat(4000), size: 1 })),
    );
    let bytes = 0;
    const handshake = new Handshake(many, (part) => {
      bytes += part.length;
    });
    const outcome = handshake.receive(Buffer.concat([CLIENT_FLAGS, ...Array.from({ length: 4000 }, () => option(3))]));
    expect(outcome).toMatchObject({ state: 'close' });
    expect(bytes).toBeLessThan(MAX_REPLY_BYTES + 5_000_000);
  });

  it('survives damaged conversations, cut anywhere', () => {
    const random = randomFrom(1);
    for (let round = 0; round < 3000; round++) {
      const good = Buffer.concat([
        CLIENT_FLAGS,
        option(8),
        option(10, contextData('', ['base:allocation'])),
        option(6, infoData('web01/disk0', [0, 1, 2, 3])),
        option(Math.floor(random() * 13), Buffer.from(Array.from({ length: random() * 40 }, () => random() * 256))),
        option(7, infoData('dätä')),
      ]);
      for (let i = 0; i < 4; i++) good[Math.floor(random() * good.length)] = Math.floor(random() * 256);
      const cut = Math.floor(random() * good.length);
      const { outcome, raw } = shake(good.subarray(0, cut), good.subarray(cut));
      expect(['more', 'close', 'transmission']).toContain(outcome.state);
      expect(raw.length).toBeLessThan(10_000);
    }
  });
});
