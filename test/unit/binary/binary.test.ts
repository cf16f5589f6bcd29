import { describe, expect, it } from 'vitest';
import { Fields, hex32, isZero } from '../../../main/engine/binary.ts';
import {
  CancelledError,
  CorruptError,
  DeniedError,
  IoError,
  MissingParentError,
  NeedsKeyError,
  NotFoundError,
  throwIfCancelled,
  toWireError,
  UnsupportedError,
  UsageError,
} from '../../../main/engine/errors.ts';

const bytes = Uint8Array.from({ length: 32 }, (_, i) => (i * 17 + 1) & 0xff);
/** In the middle of a larger buffer: a view that forgets its start would read the wrong bytes. */
const shifted = (() => {
  const large = new Uint8Array(64).fill(0xee);
  large.set(bytes, 13);
  return large.subarray(13, 45);
})();
const fields = () => new Fields(shifted, 'GPT header', 'disk 0', 512);
const buffer = Buffer.from(bytes);

describe('Fields', () => {
  it('reads what Buffer reads', () => {
    const f = fields();
    for (let at = 0; at <= 24; at++) {
      expect(f.u8(at)).toBe(buffer.readUInt8(at));
      expect(f.u16(at)).toBe(buffer.readUInt16LE(at));
      expect(f.u16be(at)).toBe(buffer.readUInt16BE(at));
      expect(f.u32(at)).toBe(buffer.readUInt32LE(at));
      expect(f.u32be(at)).toBe(buffer.readUInt32BE(at));
      expect(f.i32(at)).toBe(buffer.readInt32LE(at));
      expect(f.big64(at)).toBe(buffer.readBigUInt64LE(at));
      expect(f.big64be(at)).toBe(buffer.readBigUInt64BE(at));
      expect(Buffer.from(f.slice(at, 8))).toEqual(buffer.subarray(at, at + 8));
    }
    expect(f.length).toBe(32);
  });

  it('reads nothing outside the structure', () => {
    const f = fields();
    const readers: [string, number, (at: number) => unknown][] = [
      ['u8', 1, (at) => f.u8(at)],
      ['u16', 2, (at) => f.u16(at)],
      ['u16be', 2, (at) => f.u16be(at)],
      ['u32', 4, (at) => f.u32(at)],
      ['u32be', 4, (at) => f.u32be(at)],
      ['i32', 4, (at) => f.i32(at)],
      ['u64', 8, (at) => f.u64(at)],
      ['u64be', 8, (at) => f.u64be(at)],
      ['big64', 8, (at) => f.big64(at)],
      ['big64be', 8, (at) => f.big64be(at)],
      ['uuid', 16, (at) => f.uuid(at)],
      ['guid', 16, (at) => f.guid(at)],
      ['slice', 5, (at) => f.slice(at, 5)],
      ['ascii', 5, (at) => f.ascii(at, 5)],
    ];
    for (const [name, width, read] of readers) {
      for (const at of [33 - width, 32, 1000, -1, -width, Number.NaN, Number.POSITIVE_INFINITY]) {
        expect(() => read(at), `${name} at ${at}`).toThrow(CorruptError);
      }
    }
    for (const length of [-1, -40, Number.NaN, 33])
      expect(() => f.slice(0, length), String(length)).toThrow(CorruptError);
    expect(f.slice(32, 0)).toHaveLength(0);
  });

  it('says which structure, where, what was expected and what was found', () => {
    expect(() => fields().u32(30)).toThrow(
      'GPT header is damaged in disk 0 at byte 542: expected 34 bytes, found 32 bytes',
    );
    expect(fields().corrupt('revision', 8, 'at most 1', 7).toWire()).toEqual({
      kind: 'corrupt',
      message: 'GPT header revision is damaged in disk 0 at byte 520: expected at most 1, found 7',
      details: { structure: 'GPT header revision', source: 'disk 0', position: 520, expected: 'at most 1', found: 7 },
    });
    expect(() => fields().require(false, 'size', 12, 92, 0)).toThrow(
      'GPT header size is damaged in disk 0 at byte 524',
    );
    expect(() => fields().require(true, 'size', 12, 92, 0)).not.toThrow();
  });

  it('takes 64-bit numbers up to 2^53-1 and refuses the rest', () => {
    const of = (value: bigint, big: boolean): number => {
      const raw = Buffer.alloc(8);
      if (big) raw.writeBigUInt64BE(value);
      else raw.writeBigUInt64LE(value);
      const f = new Fields(raw, 'L1 entry', 'a.qcow2', 0);
      return big ? f.u64be(0, 'offset') : f.u64(0, 'offset');
    };
    for (const big of [true, false]) {
      for (const value of [0n, 1n, 0xffff_ffffn, 0x1_0000_0000n, 0x1234_5678_9abcn, 2n ** 53n - 1n]) {
        expect(of(value, big)).toBe(Number(value));
      }
      for (const value of [2n ** 53n, 2n ** 53n + 1n, 2n ** 63n, 2n ** 64n - 1n]) {
        expect(() => of(value, big)).toThrow(CorruptError);
        expect(() => of(value, big)).toThrow(`found 0x${value.toString(16)}`);
      }
    }
  });

  it('orders the bytes of a UUID and of a GUID as each is written', () => {
    const raw = Buffer.from('00112233445566778899aabbccddeeff', 'hex');
    const f = new Fields(raw, 'x', 'y', 0);
    expect(f.uuid(0)).toBe('00112233-4455-6677-8899-aabbccddeeff');
    expect(f.guid(0)).toBe('33221100-5544-7766-8899-AABBCCDDEEFF');
    // "EFI System" as the UEFI specification lists it, and as it lies on a disk.
    const efi = Buffer.from('28732ac11ff8d211ba4b00a0c93ec93b', 'hex');
    expect(new Fields(efi, 'x', 'y', 0).guid(0)).toBe('C12A7328-F81F-11D2-BA4B-00A0C93EC93B');
  });

  it('reads labels up to their first NUL', () => {
    const f = new Fields(Buffer.from('EFI PART\0junk\xe9', 'latin1'), 'x', 'y', 0);
    expect(f.ascii(0, 13)).toBe('EFI PART');
    expect(f.ascii(0, 3)).toBe('EFI');
    expect(f.ascii(8, 5)).toBe('');
    expect(f.ascii(9, 5)).toBe('junké');
  });
});

describe('small helpers', () => {
  it('isZero looks at every byte, wherever the bytes lie', () => {
    const large = new Uint8Array(100);
    for (let start = 0; start < 10; start++) {
      for (let length = 0; length < 40; length++) {
        const view = large.subarray(start, start + length);
        expect(isZero(view)).toBe(true);
        for (let at = 0; at < length; at++) {
          view[at] = 1;
          expect(isZero(view), `${start} ${length} ${at}`).toBe(false);
          view[at] = 0;
        }
      }
    }
  });

  it('hex32 has eight digits', () => {
    expect(hex32(0)).toBe('00000000');
    expect(hex32(0xdeadbeef)).toBe('deadbeef');
    expect(hex32(-1)).toBe('ffffffff');
  });
});

describe('errors', () => {
  it('cross a process as data', () => {
    const cause = Object.assign(new Error('EIO: i/o error, read'), { code: 'EIO' });
    const all = [
      new IoError('base.vmdk cannot be read', { source: 'base.vmdk', position: 7 }, cause),
      new UnsupportedError('VHDX log replay', { source: 'a.vhdx' }),
      new CorruptError('Grain table', { source: 'a.vmdk', position: 512 }),
      new NotFoundError('Point "x"', { choices: ['a', 'b'] }),
      new MissingParentError({ child: 'c', recorded: 'p', reason: 'it is not there' }),
      new NeedsKeyError('sda2'),
      new CancelledError('The copy'),
      new DeniedError('"../x"', 'it leaves the folder'),
      new UsageError('Say which disk', { choices: ['0', '1'] }),
    ];
    expect(all.map((error) => error.kind)).toEqual([
      'io',
      'unsupported',
      'corrupt',
      'not-found',
      'missing-parent',
      'needs-key',
      'cancelled',
      'denied',
      'usage',
    ]);
    for (const error of all) {
      const wire = toWireError(error);
      expect(wire).toEqual(structuredClone(wire));
      expect(JSON.parse(JSON.stringify(wire))).toEqual(wire);
      expect(error.name).toBe(error.constructor.name);
    }
    expect(all[0]!.details).toEqual({ source: 'base.vmdk', position: 7, code: 'EIO' });
    expect(all[0]!.message).toBe('base.vmdk cannot be read: EIO: i/o error, read');
    expect(all[0]!.cause).toBe(cause);
    expect(all[3]!.message).toBe('Point "x" not found; there is: a, b');
    expect(all[8]!.message).toBe('Say which disk; choose one of: 0, 1');
  });

  it('that are none of ours are internal', () => {
    expect(toWireError(new TypeError('oops'))).toEqual({ kind: 'internal', message: 'oops', details: {} });
    expect(toWireError('text')).toMatchObject({ kind: 'internal', message: 'text' });
    expect(toWireError(undefined)).toMatchObject({ kind: 'internal' });
  });

  it('throwIfCancelled throws when it is, and only then', () => {
    const controller = new AbortController();
    throwIfCancelled(undefined);
    throwIfCancelled(controller.signal);
    controller.abort();
    expect(() => throwIfCancelled(controller.signal, 'The copy')).toThrow('The copy was cancelled');
  });
});
