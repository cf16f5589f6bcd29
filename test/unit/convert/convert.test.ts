/** Every kind of image that is written, read by our own readers; what is there already; interruptions. */
import { createHash } from 'node:crypto';
import {
  appendFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { Disk } from '../../../main/engine/chain/disk.ts';
import type { StretchRecord } from '../../../main/engine/convert/messages.ts';
import { targetVariants } from '../../../main/engine/convert/plan.ts';
import { crc32c } from '../../../main/engine/crc32c.ts';
import { openLayer } from '../../../main/engine/image/formats.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { convertImage, leftovers, startConversion, writeSparse } from '../../support/convert.ts';
import { between, randomBytesOf, randomFrom } from '../../support/random.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';

const MiB = 1 << 20;
const scratch = scratchFolder('convert');
let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(scratch.path, 'case-'));
  mkdirSync(join(folder, 'from'));
  mkdirSync(join(folder, 'to'));
});
const from = (name: string) => join(folder, 'from', name);
const to = (name: string) => join(folder, 'to', name);

const targets = (Object.keys(targetVariants) as (keyof typeof targetVariants)[]).flatMap((format) =>
  targetVariants[format].map((variant) => ({ format, variant })),
);

/** A disk of data and zeros of odd lengths at odd places. */
function randomDisk(size: number, seed: number): Buffer {
  const random = randomFrom(seed);
  const disk = Buffer.alloc(size);
  for (let i = 0; i < 24 && size > 0; i++) {
    const at = between(random, 0, size - 1);
    disk.set(randomBytesOf(random, Math.min(size - at, between(random, 1, 200_000))), at);
  }
  return disk;
}

async function readAll(path: string, format: string): Promise<{ disk: Disk; bytes: Buffer }> {
  const disk = new Disk([await openLayer(path, new Confinement(dirname(path), { synchronous: true }), format)]);
  const bytes = Buffer.alloc(disk.size);
  disk.readIntoSync(bytes, 0);
  return { disk, bytes };
}

describe.each(targets)('$format $variant', ({ format, variant }) => {
  it.each([512, 1000, 65_536, 3 * MiB + 512, 33 * MiB + 7 * 512, 70 * MiB])(
    'holds a disk of %i bytes',
    async (size) => {
      const expected = randomDisk(size, size);
      writeFileSync(from('disk.raw'), expected);
      const file = to(`disk.${format}`);
      await leavesUntouched(join(folder, 'from'), async () => {
        const result = await convertImage(from('disk.raw'), file, { format, variant, verify: true });
        expect(result).toMatchObject({ format, variant, verified: true, resumedBytes: 0 });
        expect(result.files[0]).toBe(file);
        for (const one of result.files) expect(existsSync(one)).toBe(true);
        expect(result.size).toBe(format === 'raw' ? size : Math.ceil(size / 512) * 512);
      });
      const { disk, bytes } = await readAll(file, format);
      expect(disk.layers[0]).toMatchObject({ format, parent: undefined });
      if (format === 'vmdk') expect(disk.layers[0]!.variant).toBe(variant);
      expect(bytes.subarray(0, size).equals(expected)).toBe(true);
      expect(bytes.subarray(size).every((byte) => byte === 0)).toBe(true);
      await disk.close();
      expect(leftovers(file)).toEqual([]);
    },
  );

  it('has nothing that verification would find', async () => {
    writeFileSync(from('disk.raw'), randomDisk(40 * MiB, 5));
    const file = to(`disk.${format}`);
    await convertImage(from('disk.raw'), file, { format, variant });
    const layer = await openLayer(file, new Confinement(folder), format);
    const findings = [];
    for await (const finding of layer.check()) if (finding.severity !== 'note') findings.push(finding);
    await layer.close();
    expect(findings).toEqual([]);
  });

  it('leaves zeros unallocated', async () => {
    // Allocated and zero in the source: that must be found out by looking.
    const disk = Buffer.alloc(64 * MiB);
    disk.fill(7, 3 * MiB, 3 * MiB + 4096);
    disk.fill(8, 40 * MiB, 41 * MiB);
    writeFileSync(from('disk.raw'), disk);
    const { files, dataBytes } = await convertImage(from('disk.raw'), to('disk.img'), { format, variant });
    const allocated = files.reduce((sum, file) => sum + statSync(file).blocks * 512, 0);
    expect(allocated).toBeLessThan(3 * MiB);
    expect(dataBytes).toBeGreaterThanOrEqual(MiB + 4096);
    expect(dataBytes).toBeLessThanOrEqual(MiB + 65_536);
  });

  it.each([1, 2, 3])('takes up an interrupted conversion, %i', async (seed) => {
    const random = randomFrom(seed);
    const disk = Buffer.alloc(200 * MiB + 512);
    for (let at = 0; at < disk.length; at += 9 * MiB) {
      disk.set(randomBytesOf(random, Math.min(disk.length - at, between(random, 1, 400_000))), at);
    }
    writeFileSync(from('disk.raw'), disk);
    const file = to(`disk.${format}`);
    const options = { format, variant, verify: true } as const;
    await interrupt(from('disk.raw'), file, options);
    expect(existsSync(file)).toBe(false);
    // What the unfinished stretches wrote is there, and of no use.
    const kept = keepRecords(file, variant === 'streamOptimized' ? (i) => i < seed * 2 : () => random() < seed / 4);

    const result = await convertImage(from('disk.raw'), file, { ...options, resume: true, workers: seed });
    expect(result.resumedBytes).toBe(kept);
    expect(leftovers(file)).toEqual([]);
    const { disk: written, bytes } = await readAll(file, format);
    await written.close();
    expect(bytes.subarray(0, disk.length).equals(disk)).toBe(true);
  });
});

/** Converts until everything is written and is being read back, and cancels it there. */
async function interrupt(source: string, file: string, options: Parameters<typeof convertImage>[2]): Promise<void> {
  const started = startConversion(source, file, { ...options, verify: true }, ({ controller, progress }) => {
    if (progress.current === 'reading it back') controller.abort();
  });
  await expect(started.end).rejects.toMatchObject({ kind: 'cancelled' });
  expect(leftovers(file).filter((name) => name.endsWith('.journal'))).toHaveLength(1);
}

function journalOf(file: string): string {
  return join(dirname(file), leftovers(file).find((name) => name.endsWith('.journal'))!);
}

/** Takes records out of a journal, as if the conversion had been killed before them. @returns bytes of those that stay. */
function keepRecords(file: string, keep: (index: number) => boolean): number {
  const [header, ...lines] = readFileSync(journalOf(file), 'utf8').trimEnd().split('\n');
  const byStretch = lines
    .map((line) => ({ line, record: JSON.parse(line.slice(9)) as StretchRecord }))
    .sort((a, b) => a.record.stretch - b.record.stretch);
  expect(byStretch.length).toBeGreaterThan(5);
  // At least the first, so that there is something to go on with.
  const kept = byStretch.filter((_, i) => i === 0 || keep(i));
  writeFileSync(journalOf(file), `${[header, ...kept.map(({ line }) => line)].join('\n')}\n`);
  return kept.reduce((sum, { record }) => sum + record.data, 0);
}

describe('what is there already', () => {
  const raw = { format: 'raw' } as const;
  beforeEach(() => writeFileSync(from('disk.raw'), randomDisk(MiB, 1)));

  it('is refused, or replaced when asked', async () => {
    writeFileSync(to('out.img'), 'mine');
    await expect(convertImage(from('disk.raw'), to('out.img'), raw)).rejects.toMatchObject({
      kind: 'denied',
      details: { exists: true },
    });
    expect(readFileSync(to('out.img'), 'utf8')).toBe('mine');
    await convertImage(from('disk.raw'), to('out.img'), { ...raw, existing: 'replace' });
    expect(readFileSync(to('out.img')).equals(readFileSync(from('disk.raw')))).toBe(true);
  });

  it('is replaced, not written through, where it is a link', async () => {
    writeFileSync(to('elsewhere'), 'mine');
    symlinkSync(to('elsewhere'), to('out.img'));
    await convertImage(from('disk.raw'), to('out.img'), { ...raw, existing: 'replace' });
    expect(readFileSync(to('elsewhere'), 'utf8')).toBe('mine');
    expect(readFileSync(to('out.img')).equals(readFileSync(from('disk.raw')))).toBe(true);
  });

  it('is never replaced where it is read', async () => {
    const before = readFileSync(from('disk.raw'));
    linkSync(from('disk.raw'), to('same.img'));
    for (const path of [from('disk.raw'), to('same.img')]) {
      await expect(convertImage(from('disk.raw'), path, { ...raw, existing: 'replace' })).rejects.toMatchObject({
        kind: 'denied',
      });
    }
    await expect(convertImage(from('disk.raw'), to('out.img'), { ...raw, existing: 'replace' })).resolves.toBeDefined();
    await expect(
      convertImage(from('disk.raw'), to('out.img'), { ...raw, existing: 'replace', spare: () => true }),
    ).rejects.toMatchObject({ kind: 'denied' });
    expect(readFileSync(from('disk.raw')).equals(before)).toBe(true);
  });

  it('counts for the extent of a flat image too', async () => {
    writeFileSync(to('out-flat.vmdk'), 'mine');
    const flat = { format: 'vmdk', variant: 'monolithicFlat' } as const;
    await expect(convertImage(from('disk.raw'), to('out.vmdk'), flat)).rejects.toMatchObject({ kind: 'denied' });
    expect(readFileSync(to('out-flat.vmdk'), 'utf8')).toBe('mine');
    expect(existsSync(to('out.vmdk'))).toBe(false);
  });

  it.each([
    ['a folder that does not exist', () => to('none/out.img'), raw, 'io'],
    ['a folder of that name', () => join(folder, 'to'), raw, 'denied'],
    ['a file as its folder', () => join(from('disk.raw'), 'out.img'), raw, 'usage'],
    ['a name with quotes', () => to('a"b.vmdk'), { format: 'vmdk' } as const, 'usage'],
    ['a kind that there is not', () => to('a.vmdk'), { format: 'vmdk', variant: 'seSparse' } as const, 'usage'],
    ['a kind of another format', () => to('a.raw'), { format: 'raw', variant: 'monolithicFlat' } as const, 'usage'],
  ] as const)('refuses %s', async (_, path, options, kind) => {
    await expect(convertImage(from('disk.raw'), path(), options)).rejects.toMatchObject({ kind });
    expect(leftovers(to('x'))).toEqual([]);
  });

  it('refuses an empty disk where the format has none', async () => {
    writeFileSync(from('empty.raw'), '');
    await convertImage(from('empty.raw'), to('empty.raw'), raw);
    expect(statSync(to('empty.raw')).size).toBe(0);
    await expect(convertImage(from('empty.raw'), to('e.qcow2'), { format: 'qcow2' })).rejects.toMatchObject({
      kind: 'unsupported',
    });
    expect(leftovers(to('e.qcow2'))).toEqual([]);
  });

  it('works under the longest name a file can have', async () => {
    const name = `${'ü'.repeat(125)}.img`;
    await convertImage(from('disk.raw'), to(name), raw);
    expect(readFileSync(to(name)).equals(readFileSync(from('disk.raw')))).toBe(true);
  });
});

describe('an interrupted conversion', () => {
  const qcow2 = { format: 'qcow2' } as const;
  const DATA = 3 * 65_536;

  /** Leaves a part and its journal of three stretches, one cluster each. */
  async function interrupted(): Promise<string> {
    const piece = Buffer.alloc(60_000, 1);
    writeSparse(
      from('disk.raw'),
      200 * MiB,
      new Map([
        [0, piece],
        [70 * MiB, piece],
        [199 * MiB, piece],
      ]),
    );
    const file = to('out.qcow2');
    await interrupt(from('disk.raw'), file, qcow2);
    expect(leftovers(file)).toHaveLength(2);
    return file;
  }
  const partOf = (file: string) => to(leftovers(file).find((name) => name.endsWith('.part'))!);
  const resumed = async (file: string, more: object = {}): Promise<number> => {
    const result = await convertImage(from('disk.raw'), file, { ...qcow2, resume: true, ...more });
    expect(leftovers(file)).toEqual([]);
    return result.resumedBytes;
  };

  it('is begun anew unless it is to be resumed, and leaves nothing', async () => {
    const file = await interrupted();
    expect((await convertImage(from('disk.raw'), file, qcow2)).resumedBytes).toBe(0);
    expect(leftovers(file)).toEqual([]);
  });

  it('is begun anew when a file of the chain changed', async () => {
    const file = await interrupted();
    utimesSync(from('disk.raw'), new Date(), new Date(Date.now() + 5000));
    expect(await resumed(file)).toBe(0);
  });

  it('is begun anew for another format', async () => {
    const file = await interrupted();
    expect(await resumed(file, { format: 'raw' })).toBe(0);
  });

  it('goes on behind a line that was being written', async () => {
    const file = await interrupted();
    appendFileSync(journalOf(file), '12345678 {"stretch":1,"da');
    expect(await resumed(file)).toBe(DATA);
  });

  it('ends its journal at a line that was damaged', async () => {
    const file = await interrupted();
    const lines = readFileSync(journalOf(file), 'utf8').split('\n');
    lines[1] = lines[1]!.replace('data', 'date');
    writeFileSync(journalOf(file), lines.join('\n'));
    expect(await resumed(file)).toBe(0);
  });

  it('is begun anew when its part has another name too', async () => {
    const file = await interrupted();
    linkSync(partOf(file), to('other'));
    const before = readFileSync(to('other'));
    expect(await resumed(file)).toBe(0);
    expect(readFileSync(to('other')).equals(before)).toBe(true);
  });

  it('is begun anew when its part is gone, or a link', async () => {
    const file = await interrupted();
    const part = partOf(file);
    rmSync(part);
    writeFileSync(to('elsewhere'), 'mine');
    symlinkSync(to('elsewhere'), part);
    expect(await resumed(file)).toBe(0);
    expect(readFileSync(to('elsewhere'), 'utf8')).toBe('mine');
  });

  it.each<[string, object | null]>([
    ['nothing', null],
    ['a stretch that the disk has not', { stretch: 7, data: 65_536, placed: [0, 1], tables: [0, 1] }],
    ['places that are no numbers', { stretch: 0, data: 65_536, placed: ['0', 1], tables: [0, 1] }],
    ['places below the first', { stretch: 0, data: 65_536, placed: [-5, 1], tables: [0, 1] }],
    ['a table that the image has not', { stretch: 0, data: 65_536, placed: [0, 1], tables: [9, 1] }],
    ['no places', { stretch: 0, data: 65_536 }],
  ])('is begun anew when its journal, whoever wrote it, has a record with %s', async (_, record) => {
    const file = await interrupted();
    const text = JSON.stringify(record);
    const line = `${crc32c(Buffer.from(text)).toString(16).padStart(8, '0')} ${text}\n`;
    appendFileSync(journalOf(file), line);
    expect(await resumed(file)).toBe(0);
  });

  it('is left alone while another process writes it', async () => {
    const file = await interrupted();
    const [header, ...records] = readFileSync(journalOf(file), 'utf8').split('\n');
    const made = JSON.parse(header!.slice(9)) as { process: unknown };
    // The parent of this process is there as long as the test.
    made.process = { pid: process.ppid };
    const text = JSON.stringify(made);
    const first = `${crc32c(Buffer.from(text)).toString(16).padStart(8, '0')} ${text}`;
    writeFileSync(journalOf(file), [first, ...records].join('\n'));
    const before = leftovers(file);
    const result = await convertImage(from('disk.raw'), file, { ...qcow2, resume: true });
    expect(result.resumedBytes).toBe(0);
    expect(leftovers(file)).toEqual(before);
  });

  it('does not disturb another of this process', async () => {
    writeSparse(from('disk.raw'), 200 * MiB, new Map([[MiB, Buffer.alloc(200_000, 1)]]));
    const file = to('out.qcow2');
    const both = [1, 2].map(() => convertImage(from('disk.raw'), file, { ...qcow2, resume: true, verify: true }));
    // One of them gets the name.
    const ends = await Promise.allSettled(both);
    expect(ends.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    expect(leftovers(file)).toEqual([]);
  });

  it('ends within a moment when it is cancelled', async () => {
    writeSparse(from('disk.raw'), 64 * 1024 * MiB, new Map([[0, Buffer.alloc(100, 1)]]));
    let asked = 0;
    const started = startConversion(from('disk.raw'), to('out.raw'), { format: 'raw' }, ({ controller, progress }) => {
      if (progress.bytesDone > 0 && asked === 0) {
        asked = performance.now();
        controller.abort();
      }
    });
    await expect(started.end).rejects.toMatchObject({ kind: 'cancelled' });
    expect(performance.now() - asked).toBeLessThan(1000);
    expect(existsSync(to('out.raw'))).toBe(false);
  });

  it('leaves nothing when the source is damaged', async () => {
    writeFileSync(from('bad.vmdk'), Buffer.concat([Buffer.from('KDMV'), Buffer.alloc(2000, 0xff)]));
    await expect(convertImage(from('bad.vmdk'), to('x.raw'), { format: 'raw' })).rejects.toMatchObject({
      kind: expect.stringMatching(/corrupt|unsupported/),
    });
    expect(leftovers(to('x.raw'))).toEqual([]);
    expect(existsSync(to('x.raw'))).toBe(false);
  });
});

it('tells progress in bytes of data, to its end', async () => {
  writeFileSync(from('disk.raw'), randomDisk(40 * MiB, 2));
  const started = startConversion(from('disk.raw'), to('a.raw'), { format: 'raw', verify: true });
  await started.end;
  expect(started.progress).toMatchObject({ bytesDone: 80 * MiB, bytesTotal: 80 * MiB });
  expect(
    createHash('sha256')
      .update(readFileSync(to('a.raw')))
      .digest('hex'),
  ).toBe(
    createHash('sha256')
      .update(readFileSync(from('disk.raw')))
      .digest('hex'),
  );
  expect(basename(to('a.raw'))).toBe('a.raw');
});
