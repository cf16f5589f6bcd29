/** QCOW2 written and read by QEMU: what it writes we read the same, what our builder writes it reads as we do. */
import { createHash } from 'node:crypto';
import { copyFileSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { openChain } from '../../main/engine/chain/open.ts';
import { verifyChain } from '../../main/engine/chain/verify.ts';
import { openLayer } from '../../main/engine/image/formats.ts';
import { type Finding, snapshotPath } from '../../main/engine/image/image.ts';
import { Confinement } from '../../main/engine/storage/confinement.ts';
import { runAsync } from '../../main/engine/storage/io.ts';
import { describePeers, run, tryRun } from '../support/peers.ts';
import { buildQcow2, type Cluster, modelOf, pattern, type Qcow2Options } from '../support/qcow2-builder.ts';
import { randomFrom } from '../support/random.ts';
import { imageFolders, leavesUntouched, scratchFolder, sha256File } from '../support/scratch.ts';

const MIB = 1 << 20;

/** SHA-256 of the chain's bytes, read both ways. */
async function hashChain(path: string, folder: string, to = Number.POSITIVE_INFINITY): Promise<string> {
  const hashes: string[] = [];
  for (const synchronous of [true, false]) {
    const disk = await openChain(path, new Confinement(folder, { synchronous }), { synchronous });
    const hash = createHash('sha256');
    const end = Math.min(disk.size, to);
    for (let at = 0; at < end; at += 5_000_011) hash.update(await disk.read(at, Math.min(5_000_011, end - at)));
    await disk.close();
    hashes.push(hash.digest('hex'));
  }
  expect(hashes[1]).toBe(hashes[0]);
  return hashes[0]!;
}

async function verify(path: string, folder: string): Promise<Finding[]> {
  const found: Finding[] = [];
  for await (const finding of verifyChain(path, new Confinement(folder))) found.push(finding);
  return found;
}

/** Findings that are more than notes; a chain whose disks differ in size on purpose has those too. */
async function faults(path: string, folder: string): Promise<Finding[]> {
  return (await verify(path, folder)).filter(({ severity, code }) => severity !== 'note' && code !== 'size-mismatch');
}

interface MapEntry {
  readonly start: number;
  readonly length: number;
  readonly depth: number;
  readonly present: boolean;
  readonly zero: boolean;
  readonly data: boolean;
  readonly compressed?: boolean;
}

/** Holds the runs of the leaf against qemu-img's map of the chain. */
async function expectMap(image: string, folder: string): Promise<void> {
  const map = JSON.parse(run('qemu-img', ['map', '--output=json', image])) as MapEntry[];
  const layer = await openLayer(image, new Confinement(folder));
  try {
    for (const { start, length, depth, present, data } of map) {
      const kinds = new Set((await runAsync(layer.runs(start, length))).map(({ kind }) => kind));
      const expected = depth > 0 || !present ? ['absent'] : data ? ['data', 'compressed'] : ['zero'];
      for (const kind of kinds) expect(expected, `${start}+${length}`).toContain(kind);
    }
  } finally {
    await layer.close();
  }
}

/** qemu-io commands: data, zeros in both ways, discards, at odd and even places of a disk. */
function workload(size: number, seed: number, count: number, longest = 2 * MIB): string[] {
  const random = randomFrom(seed);
  const commands: string[] = [];
  const unit = 512;
  const places = () => {
    const length = Math.min(unit * (1 + Math.floor(random() ** 3 * (longest / unit))), size);
    return `${Math.floor((random() * (size - length)) / unit) * unit} ${length}`;
  };
  for (let i = 0; i < count; i++) {
    const dice = random();
    const what =
      dice < 0.6
        ? `write -P ${1 + Math.floor(random() * 254)}`
        : dice < 0.72
          ? 'write -z'
          : dice < 0.84
            ? 'write -zu'
            : 'discard';
    commands.push('-c', `${what} ${places()}`);
  }
  commands.push('-c', `write -P 77 ${size - unit} ${unit}`);
  return commands;
}

describePeers('QCOW2 and QEMU', { peers: ['qemu-img', 'qemu-io'] }, () => {
  const scratch = scratchFolder('peers-qcow2');
  const fresh = imageFolders(scratch);
  const create = (image: string, size: number, options: string[] = [], backing?: [string, string]) => {
    const o = options.length === 0 ? [] : ['-o', options.join(',')];
    const b = backing === undefined ? [] : ['-b', backing[0], '-F', backing[1]];
    run('qemu-img', ['create', '-q', '-f', 'qcow2', ...o, ...b, image, String(size)]);
  };
  const truth = (image: string, raw: string, extra: string[] = []) => {
    run('qemu-img', ['convert', ...extra, '-O', 'raw', image, raw]);
    return sha256File(raw);
  };

  it.each([
    ['compat=0.10', 'cluster_size=512', 3 * MIB + 512],
    ['compat=0.10', 'cluster_size=65536', 64 * MIB],
    ['compat=1.1', 'cluster_size=512', 5 * MIB],
    ['compat=1.1', 'cluster_size=1024', 5 * MIB],
    ['compat=1.1', 'cluster_size=4096', 37 * MIB + 512],
    ['compat=1.1', 'cluster_size=16384', 50 * MIB],
    ['compat=1.1', 'cluster_size=65536', 700 * MIB + 1024],
    ['compat=1.1', 'cluster_size=2097152', 100 * MIB],
    ['lazy_refcounts=on', 'cluster_size=65536', 64 * MIB],
    ['refcount_bits=1', 'cluster_size=4096', 20 * MIB],
    ['refcount_bits=8', 'cluster_size=512', 2 * MIB],
    ['refcount_bits=64', 'cluster_size=65536', 40 * MIB],
    ['extended_l2=on', 'cluster_size=16384', 30 * MIB],
    ['extended_l2=on', 'cluster_size=131072', 64 * MIB + 512],
    ['extended_l2=on', 'cluster_size=2097152', 64 * MIB],
    ['preallocation=metadata', 'cluster_size=65536', 20 * MIB],
    ['preallocation=falloc', 'cluster_size=4096', 10 * MIB],
    ['preallocation=metadata,extended_l2=on', 'cluster_size=65536', 20 * MIB],
  ])('reads what qemu-io writes: %s, %s, %i bytes', async (feature, cluster, size) => {
    const { folder, raw } = fresh();
    const image = join(folder, 'web 01.qcow2');
    create(image, size, [feature, cluster]);
    run('qemu-io', ['-f', 'qcow2', ...workload(size, size % 997, 40), image]);
    const expected = truth(image, raw);
    await leavesUntouched(folder, async () => {
      expect(await hashChain(image, folder)).toBe(expected);
      await expectMap(image, folder);
      expect(await faults(image, folder)).toEqual([]);
    });
  });

  it.each([
    ['zlib', 512, MIB + 512],
    ['zlib', 4096, 6 * MIB],
    ['zlib', 65_536, 20 * MIB + 1024],
    ['zlib', 2 * MIB, 20 * MIB],
    ['zstd', 512, MIB],
    ['zstd', 4096, 6 * MIB + 512],
    ['zstd', 65_536, 20 * MIB],
    ['zstd', 2 * MIB, 20 * MIB],
  ] as const)('reads what qemu-img compresses: %s, clusters of %i bytes', async (type, cluster, size) => {
    const { folder, raw } = fresh();
    const image = join(folder, 'disk.qcow2');
    const source = Buffer.concat(Array.from({ length: 40 }, (_, i) => pattern(i, Math.ceil(size / 40)))).subarray(
      0,
      size,
    );
    // Parts that compress to nothing, to a half, and not at all.
    source.fill(0, Math.floor(size / 8), Math.floor(size / 5));
    source.fill(0x41, Math.floor(size / 3), Math.floor(size / 2));
    const random = randomFrom(size);
    for (let at = Math.floor(size / 1.5); at < size * 0.7; at++) source[at] = Math.floor(random() * 256);
    writeFileSync(raw, source);
    const options = `compression_type=${type},cluster_size=${cluster}`;
    run('qemu-img', ['convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o', options, raw, image]);
    expect(await hashChain(image, folder)).toBe(sha256File(raw));
    expect(await faults(image, folder)).toEqual([]);
    const layer = await openLayer(image, new Confinement(folder));
    expect((await runAsync(layer.runs(0, size))).some(({ kind }) => kind === 'compressed')).toBe(true);
    await layer.close();
    // Compressed clusters in part written over.
    run('qemu-io', ['-f', 'qcow2', ...workload(size, size % 101, 15, 128 * 1024), image]);
    expect(await hashChain(image, folder)).toBe(truth(image, raw));
    expect(await faults(image, folder)).toEqual([]);
  });

  it.each([1, 2, 3, 5, 10, 24])('reads chains of %i overlays, of changing sizes and sub-formats', async (depth) => {
    const { folder, raw } = fresh();
    const random = randomFrom(depth);
    const kinds = [
      ['cluster_size=65536'],
      ['cluster_size=4096'],
      ['extended_l2=on', 'cluster_size=65536'],
      ['compat=0.10'],
      ['compression_type=zstd', 'cluster_size=32768'],
    ];
    const base = join(folder, 'base.raw');
    run('qemu-img', ['create', '-q', '-f', 'raw', base, String(16 * MIB + 512)]);
    run('qemu-io', ['-f', 'raw', ...workload(16 * MIB + 512, depth, 10), base]);
    let below: [string, string] = ['base.raw', 'raw'];
    let image = base;
    for (let link = 1; link <= depth; link++) {
      const name = `snap-${link}.qcow2`;
      image = join(folder, name);
      const size = (12 + Math.floor(random() * 10)) * MIB + 512 * Math.floor(random() * 3);
      create(image, size, kinds[Math.floor(random() * kinds.length)], below);
      run('qemu-io', ['-f', 'qcow2', ...workload(size, link * 31, 8, MIB), image]);
      below = [name, 'qcow2'];
    }
    await leavesUntouched(folder, async () => {
      expect(await hashChain(image, folder)).toBe(truth(image, raw));
      await expectMap(image, folder);
      expect(await faults(image, folder)).toEqual([]);
    });
    // The same disk, with the links in the middle taken out.
    if (depth >= 3) {
      run('qemu-img', ['rebase', '-f', 'qcow2', '-F', 'qcow2', '-b', 'snap-1.qcow2', image]);
      expect(await hashChain(image, folder)).toBe(truth(image, raw));
    }
  });

  it('never probes a backing file that is recorded as raw', async () => {
    const { folder, raw } = fresh();
    // The guest wrote a QCOW2 image over its own disk, whose backing file is another disk's.
    create(join(folder, 'secret.qcow2'), MIB);
    create(join(folder, 'base.img'), MIB, [], ['secret.qcow2', 'qcow2']);
    const size = Math.floor(statSync(join(folder, 'base.img')).size / 512) * 512;
    create(join(folder, 'top.qcow2'), size, [], ['base.img', 'raw']);
    const disk = await openChain('top.qcow2', new Confinement(folder));
    expect(disk.layers.map(({ format }) => format)).toEqual(['qcow2', 'raw']);
    await disk.close();
    expect(await hashChain('top.qcow2', folder)).toBe(truth(join(folder, 'top.qcow2'), raw));
  });

  it.each([
    ['json:{"driver":"qcow2","file":{"driver":"file","filename":"base.qcow2"}}', 'qcow2'],
    ['json:{"file.filename":"base.qcow2"}', 'qcow2'],
    ['json:{"driver":"raw","file.driver":"file","file.filename":"base.qcow2"}', 'raw'],
    ['file:base.qcow2', 'qcow2'],
  ])('follows the backing file %s as QEMU does', async (backing, format) => {
    const { folder, raw } = fresh();
    create(join(folder, 'base.qcow2'), 2 * MIB);
    run('qemu-io', ['-f', 'qcow2', ...workload(2 * MIB, 3, 10), join(folder, 'base.qcow2')]);
    const image = join(folder, 'top.qcow2');
    run('qemu-img', ['create', '-q', '-u', '-f', 'qcow2', '-b', backing, '-F', format, image, '300k']);
    // QEMU takes names in json: from its working folder.
    run('qemu-img', ['convert', '-O', 'raw', 'top.qcow2', raw], { cwd: folder });
    expect(await hashChain(image, folder)).toBe(sha256File(raw));
  });

  it.each([
    'nbd://localhost/disk',
    'json:{"driver":"nbd","server":{"type":"unix","path":"/tmp/x"}}',
    'https://example.com/a',
  ])('refuses the backing file %s by name', async (backing) => {
    const { folder } = fresh();
    const image = join(folder, 'top.qcow2');
    run('qemu-img', ['create', '-q', '-u', '-f', 'qcow2', '-b', backing, '-F', 'raw', image, '1M']);
    await expect(openLayer(image, new Confinement(folder))).rejects.toMatchObject({ kind: 'unsupported' });
  });

  it.each([
    ['compat=0.10', 'cluster_size=4096'],
    ['compat=1.1', 'cluster_size=65536'],
    ['extended_l2=on', 'cluster_size=16384'],
  ])('opens internal snapshots as points of their own: %s', async (feature, cluster) => {
    const { folder, raw } = fresh();
    create(join(folder, 'base.qcow2'), 10 * MIB);
    run('qemu-io', ['-f', 'qcow2', ...workload(10 * MIB, 9, 10), join(folder, 'base.qcow2')]);
    const image = join(folder, 'disk.qcow2');
    create(image, 10 * MIB, [feature, cluster], ['base.qcow2', 'qcow2']);
    for (const [i, name] of ['first', 'zweiter – mit Umlaut ü', 'third'].entries()) {
      run('qemu-io', ['-f', 'qcow2', ...workload(10 * MIB, 40 + i, 12), image]);
      run('qemu-img', ['snapshot', '-c', name, image]);
    }
    run('qemu-io', ['-f', 'qcow2', ...workload(10 * MIB, 60, 12), image]);
    run('qemu-img', ['snapshot', '-d', 'zweiter – mit Umlaut ü', image]);
    const layer = await openLayer(image, new Confinement(folder));
    expect(layer.snapshots).toMatchObject([
      { id: '1', name: 'first', stateBytes: 0, virtualSize: 10 * MIB },
      { id: '3', name: 'third', stateBytes: 0, virtualSize: 10 * MIB },
    ]);
    const age = Date.now() - Date.parse(layer.snapshots![0]!.created!);
    expect(age).toBeGreaterThan(-1000);
    expect(age).toBeLessThan(600_000);
    await layer.close();
    await leavesUntouched(folder, async () => {
      expect(await hashChain(image, folder)).toBe(truth(image, raw));
      for (const id of ['1', '3']) {
        const path = snapshotPath(image, id);
        expect(await hashChain(path, folder)).toBe(truth(image, raw, ['-l', `snapshot.id=${id}`]));
        expect(await faults(path, folder)).toEqual([]);
      }
      expect(await faults(image, folder)).toEqual([]);
      await expect(openLayer(snapshotPath(image, '2'), new Confinement(folder))).rejects.toMatchObject({
        kind: 'not-found',
        details: { choices: ['1', '3'] },
      });
    });
  });

  it('gives a snapshot the size that the disk had', async () => {
    const { folder, raw } = fresh();
    const image = join(folder, 'disk.qcow2');
    create(image, 3 * MIB);
    run('qemu-io', ['-f', 'qcow2', '-c', 'write -P 5 0 3M', image]);
    const before = truth(image, raw);
    run('qemu-img', ['snapshot', '-c', 'small', image]);
    run('qemu-img', ['resize', '-q', image, '1G']);
    run('qemu-io', ['-f', 'qcow2', '-c', 'write -P 6 2M 900M', image]);
    const layer = await openLayer(snapshotPath(image, '1'), new Confinement(folder));
    expect(layer.virtualSize).toBe(3 * MIB);
    await layer.close();
    expect(await hashChain(snapshotPath(image, '1'), folder)).toBe(before);
    expect(await hashChain(image, folder)).toBe(truth(image, raw));
    expect(await faults(image, folder)).toEqual([]);
  });

  it.each([false, true])('reads external data files (raw: %s)', async (isRaw) => {
    const { folder, raw } = fresh();
    const image = join(folder, 'disk.qcow2');
    create(image, 20 * MIB, [`data_file=${join(folder, 'disk.data')}`, `data_file_raw=${isRaw ? 'on' : 'off'}`]);
    run('qemu-io', ['-f', 'qcow2', ...workload(20 * MIB, 4, 25), image]);
    const expected = truth(image, raw);
    expect(await hashChain(image, folder)).toBe(expected);
    if (isRaw) expect(sha256File(join(folder, 'disk.data'))).toBe(expected);
    expect(await faults(image, folder)).toEqual([]);
    const layer = await openLayer(image, new Confinement(folder));
    expect(layer.files.map(({ role, name }) => [role, name])).toEqual([
      ['image', 'disk.qcow2'],
      ['data', 'disk.data'],
    ]);
    expect(layer.properties).toMatchObject({ dataFileRaw: isRaw });
    await layer.close();
  });

  it('reads an image that was not closed, with its refcounts behind', async () => {
    const { folder, raw } = fresh();
    const image = join(folder, 'disk.qcow2');
    create(image, 20 * MIB, ['lazy_refcounts=on']);
    // The process kills itself before it writes refcounts back.
    tryRun('qemu-io', [
      '-f',
      'qcow2',
      '-c',
      'write -P 3 0 5M',
      '-c',
      'write -P 4 10M 1M',
      '-c',
      'flush',
      '-c',
      'sigraise 9',
      image,
    ]);
    copyFileSync(image, `${raw}.qcow2`);
    const found = await verify(image, folder);
    expect(found.filter(({ severity }) => severity !== 'note')).toEqual([]);
    expect(found.map(({ code }) => code)).toContain('dirty');
    expect(found.map(({ code }) => code)).toContain('refcount-too-low');
    expect(await hashChain(image, folder)).toBe(truth(`${raw}.qcow2`, raw));
  });

  it('names persistent bitmaps, and counts their clusters', async () => {
    const { folder, raw } = fresh();
    const image = join(folder, 'disk.qcow2');
    create(image, 20 * MIB);
    for (const [name, granularity] of [
      ['monday', '65536'],
      ['tuesday', '512'],
    ] as const) {
      run('qemu-img', ['bitmap', '--add', '-g', granularity, image, name]);
      run('qemu-io', ['-f', 'qcow2', ...workload(20 * MIB, granularity.length, 10), image]);
    }
    const layer = await openLayer(image, new Confinement(folder));
    expect(layer.properties.bitmaps).toBe('monday (65536), tuesday (512)');
    await layer.close();
    const found = await verify(image, folder);
    expect(found).toEqual([]);
    expect(await hashChain(image, folder)).toBe(truth(image, raw));
  });

  it.each(['aes', 'luks'])('refuses %s by name', async (method) => {
    const { folder } = fresh();
    const image = join(folder, 'disk.qcow2');
    run('qemu-img', [
      'create',
      '-q',
      '-f',
      'qcow2',
      '--object',
      'secret,id=s,data=abc',
      '-o',
      `encrypt.format=${method},encrypt.key-secret=s${method === 'luks' ? ',encrypt.iter-time=10' : ''}`,
      image,
      '1M',
    ]);
    await expect(openLayer(image, new Confinement(folder))).rejects.toMatchObject({
      kind: 'needs-key',
      details: { method },
    });
  });

  it('opens 64 TiB in no time, and finds what little is in it', async () => {
    const { folder } = fresh();
    const image = join(folder, 'big.qcow2');
    const size = 64 * 2 ** 40;
    create(image, size, ['cluster_size=65536']);
    const random = randomFrom(5);
    const places = Array.from({ length: 200 }, () => Math.floor((random() * size) / 65_536) * 65_536);
    run('qemu-io', [
      '-f',
      'qcow2',
      ...places.flatMap((at, i) => ['-c', `write -P ${1 + (i % 250)} ${at} 65536`]),
      image,
    ]);
    const started = performance.now();
    const disk = await openChain(image, new Confinement(folder, { synchronous: true }), { synchronous: true });
    for (const [i, at] of places.entries()) {
      const bytes = await disk.read(at + 100, 1000);
      expect(bytes.every((byte) => byte === 1 + (i % 250))).toBe(true);
    }
    expect(performance.now() - started).toBeLessThan(5000);
    await disk.close();
    expect(await faults(image, folder)).toEqual([]);
  });

  const zoo: [string, Qcow2Options][] = [];
  for (const clusterBits of [9, 12, 16]) {
    for (const options of [
      { version: 2 as const },
      { zstd: true },
      { refcountOrder: 0, plain: true },
      { refcountOrder: 2 },
      { refcountOrder: 5 },
      { dataFirst: true },
      { extendedL2: true },
      { snapshots: true },
    ]) {
      if (options.extendedL2 && clusterBits < 14) continue;
      zoo.push([`${clusterBits} bits ${JSON.stringify(options)}`, zooImage(clusterBits, options)]);
    }
  }

  it.each(zoo)('QEMU finds no fault with the builder’s image, and reads it as we do: %s', async (_title, options) => {
    const { folder, raw } = fresh();
    const image = join(folder, 'disk.qcow2');
    writeFileSync(image, buildQcow2(options).bytes);
    const checked = tryRun('qemu-img', ['check', image]);
    expect(`${checked.stdout}${checked.stderr}`).toContain('No errors were found');
    expect(await verify(image, folder)).toEqual([]);
    const model = modelOf(options, options.clusterBits);
    expect(truth(image, raw)).toBe(createHash('sha256').update(model).digest('hex'));
    expect(await hashChain(image, folder)).toBe(sha256File(raw));
    for (const snapshot of options.snapshots ?? []) {
      const then = createHash('sha256').update(modelOf(snapshot, options.clusterBits)).digest('hex');
      expect(await hashChain(snapshotPath(image, snapshot.id), folder)).toBe(then);
      // QEMU keeps the present size for every snapshot.
      run('qemu-img', ['convert', '-l', `snapshot.id=${snapshot.id}`, '-O', 'raw', image, raw]);
      expect(createHash('sha256').update(readFileSync(raw).subarray(0, snapshot.size)).digest('hex')).toBe(then);
    }
  });

  it('calls damaged what qemu-img check calls corrupt', async () => {
    const { folder } = fresh();
    const image = join(folder, 'disk.qcow2');
    const options = zooImage(9, { snapshots: true });
    const { bytes } = buildQcow2(options);
    const random = randomFrom(21);
    let corrupt = 0;
    for (let i = 0; i < 400; i++) {
      const mutant = Buffer.from(bytes);
      // Tables are scattered all over it; half of the changes aim at the header and the L1 table behind it.
      const at = Math.floor(random() * (random() < 0.3 ? 2048 : mutant.length));
      mutant[at] = Math.floor(random() * 256);
      if (random() < 0.3) mutant[Math.floor(random() * mutant.length)]! ^= 1 << Math.floor(random() * 8);
      writeFileSync(image, mutant);
      const peer = tryRun('qemu-img', ['check', '-f', 'qcow2', '--output=json', image]);
      if (peer.code !== 2) continue;
      corrupt++;
      const found = await verify(image, folder);
      // A flag that only disagrees with a refcount which is too high itself does no harm: that is a note here.
      const serious = `${peer.stdout}${peer.stderr}`.split('\n').some((line) => /ERROR(?!.*OFLAG_COPIED)/.test(line));
      const told = found.some(({ severity }) => severity !== 'note' || !serious);
      if (!told) {
        writeFileSync(join(scratch.path, 'missed.qcow2'), mutant);
        expect.fail(
          `mutant ${i} (byte ${at}): qemu-img says ${peer.stdout}${peer.stderr}; we ${JSON.stringify(found)}`,
        );
      }
    }
    expect(corrupt).toBeGreaterThan(20);
  });
});

describePeers('QCOW2 and a machine', { peers: ['qemu-img', 'qemu-io', 'qemu-system-x86_64'] }, () => {
  const scratch = scratchFolder('peers-qcow2-vm');

  it('tells a snapshot with memory, whose state is no part of the disk', async () => {
    const image = join(scratch.path, 'disk.qcow2');
    run('qemu-img', ['create', '-q', '-f', 'qcow2', image, '8M']);
    run('qemu-io', ['-f', 'qcow2', '-c', 'write -P 9 1M 1M', image]);
    const machine = ['-S', '-accel', 'tcg', '-display', 'none', '-nodefaults', '-m', '16', '-monitor', 'stdio'];
    run('qemu-system-x86_64', [...machine, '-drive', `file=${image},if=virtio,format=qcow2`], {
      input: 'savevm with-memory\nquit\n',
    });
    const raw = join(scratch.path, 'disk.raw');
    run('qemu-img', ['convert', '-O', 'raw', image, raw]);
    const layer = await openLayer(image, new Confinement(scratch.path));
    const [snapshot] = layer.snapshots!;
    await layer.close();
    expect(snapshot).toMatchObject({ id: '1', name: 'with-memory', virtualSize: 8 * MIB });
    expect(snapshot!.stateBytes).toBeGreaterThan(10_000);
    expect(await hashChain(snapshotPath(image, '1'), scratch.path)).toBe(sha256File(raw));
    expect(await verify(image, scratch.path)).toEqual([]);
    expect(await verify(snapshotPath(image, '1'), scratch.path)).toEqual([]);
  });
});

/** A small image with some of everything that its sub-format can hold. */
function zooImage(
  clusterBits: number,
  options: {
    version?: 2;
    zstd?: boolean;
    refcountOrder?: number;
    dataFirst?: boolean;
    extendedL2?: boolean;
    snapshots?: boolean;
    plain?: boolean;
  },
): Qcow2Options {
  const { snapshots, plain, ...rest } = options;
  const size = 2 ** clusterBits;
  const bytes = (n: number) => pattern(n, size);
  const shared = bytes(1);
  const clusters = new Map<number, Cluster>([
    [0, bytes(0)],
    [1, shared],
    [90, bytes(90)],
    [99, bytes(99)],
  ]);
  if (!plain) for (const n of [4, 5, 6, 80]) clusters.set(n, { packed: bytes(n) });
  if (options.version !== 2) clusters.set(8, 'zero').set(9, 'zero-allocated');
  if (options.extendedL2) {
    const part = (n: number) => pattern(n, size / 32);
    clusters.set(
      12,
      Array.from({ length: 32 }, (_, i) => (i % 2 === 0 ? part(i) : i % 3 === 0 ? 'zero' : 'absent')),
    );
  }
  const state = { size: 100 * size - (clusterBits > 9 ? 1024 : 0), clusters };
  if (!snapshots) return { ...state, ...rest, clusterBits };
  const then = new Map<number, Cluster>([
    [1, shared],
    [3, bytes(30)],
    [70, { packed: bytes(31) }],
  ]);
  return {
    ...state,
    ...rest,
    clusterBits,
    snapshots: [
      { id: '1', name: 'before', size: state.size, clusters: then },
      { id: '2', name: 'small', size: 80 * size, clusters: new Map([[1, shared]]), stateBytes: 0 },
    ],
  };
}
