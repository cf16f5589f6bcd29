/** Whole disks restored to every kind of image, judged by QEMU; and the command line's conversions killed, resumed, without room. */
import { spawn } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { expect, it } from 'vitest';
import { targetVariants } from '../../main/engine/convert/plan.ts';
import { chainlift } from '../support/cli.ts';
import { convertImage, leftovers, writeSparse } from '../support/convert.ts';
import { describePeers, missingLoopMounts, run, tryRun } from '../support/peers.ts';
import { leavesUntouched, scratchFolder } from '../support/scratch.ts';

const MiB = 1 << 20;
const GiB = 1 << 30;
const program = resolve(import.meta.dirname, '..', '..', 'out', 'main', 'cli.cjs');

const targets = (Object.keys(targetVariants) as (keyof typeof targetVariants)[]).flatMap((format) =>
  targetVariants[format].map((variant) => ({ format, variant })),
);

/** What QEMU says of two images; throws when they differ. */
function expectEqual(aFormat: string, a: string, bFormat: string, b: string): void {
  expect(run('qemu-img', ['compare', '-f', aFormat, '-F', bFormat, a, b])).toContain('Images are identical');
}

function expectClean(format: string, image: string): void {
  if (format === 'raw') return;
  const { code, stdout, stderr } = tryRun('qemu-img', ['check', '-f', format, image]);
  // QEMU has no check for flat extents.
  if (stderr.includes('does not support checks')) return;
  expect({ code, stdout, stderr }).toMatchObject({ code: 0, stdout: expect.stringContaining('No errors were found') });
}

const allocated = (files: readonly string[]) => files.reduce((sum, file) => sum + statSync(file).blocks * 512, 0);

describePeers('conversion and QEMU', { peers: ['qemu-img', 'qemu-io'] }, () => {
  const scratch = scratchFolder('peers-convert');
  let number = 0;
  const fresh = () => {
    const folder = join(scratch.path, `case-${number++}`);
    mkdirSync(join(folder, 'from'), { recursive: true });
    mkdirSync(join(folder, 'to'));
    return { source: join(folder, 'from'), to: (name: string) => join(folder, 'to', name) };
  };

  interface Source {
    readonly title: string;
    readonly format: string;
    /** Bytes that a sparse image of it takes at most, besides tables. */
    readonly data: number;
    make(folder: string): string;
  }
  const chain =
    (format: string, size: number, more: readonly string[] = []) =>
    (folder: string) => {
      const at = (i: number) => join(folder, `disk-${i}.${format}`);
      run('qemu-img', ['create', '-q', '-f', format, ...more, at(0), String(size)]);
      const write = (i: number, ...commands: string[]) =>
        run('qemu-io', ['-f', format, ...commands.flatMap((command) => ['-c', command]), at(i)]);
      write(
        0,
        'write -P 1 0 3M',
        `write -P 2 ${size - 70_144} 70144`,
        `write -P 3 ${Math.floor(size / 2 / MiB) * MiB} 2M`,
      );
      const link = (i: number) =>
        run('qemu-img', ['create', '-q', '-f', format, ...more, '-F', format, '-b', `disk-${i - 1}.${format}`, at(i)]);
      // Data that the top hides with zeros, and zeros that are stored as data.
      link(1);
      write(1, 'write -P 4 1M 64k', 'write -P 5 10M 512', 'write -P 0 1536k 64k');
      link(2);
      write(2, `write -P 6 ${size - 512} 512`, 'write -z 2M 64k', 'write -P 0 2560k 128k');
      return at(2);
    };
  const ZEROED = ['-o', 'zeroed_grain=on'];
  const sources: readonly Source[] = [
    {
      title: 'a chain of three VMDKs',
      format: 'vmdk',
      data: 6 * MiB,
      make: chain('vmdk', 100 * MiB + 512, ZEROED),
    },
    { title: 'a chain of three QCOW2s', format: 'qcow2', data: 6 * MiB, make: chain('qcow2', 700 * MiB + 4096) },
    { title: 'a chain of more than 4 GiB', format: 'vmdk', data: 6 * MiB, make: chain('vmdk', 9 * GiB + 512, ZEROED) },
    {
      title: 'a raw disk of 1000 bytes',
      format: 'raw',
      data: 4096,
      make: (folder) => {
        writeFileSync(join(folder, 'disk.raw'), Buffer.alloc(1000, 9));
        return join(folder, 'disk.raw');
      },
    },
    {
      title: 'a raw disk of random bytes and zeros',
      format: 'raw',
      data: 20 * MiB,
      make: (folder) => {
        const path = join(folder, 'disk.raw');
        const piece = (length: number) => randomFillSync(Buffer.alloc(length));
        writeSparse(
          path,
          131 * MiB + 7 * 512,
          new Map([
            [0, piece(9 * MiB + 5)],
            [64 * MiB - 9, piece(10 * MiB)],
          ]),
        );
        return path;
      },
    },
  ];

  it.each(
    sources.flatMap((source) =>
      targets.map((target) => [source.title, target.format, target.variant, source] as const),
    ),
  )('%s as %s %s', async (_, format, variant, source) => {
    const { source: folder, to } = fresh();
    const leaf = source.make(folder);
    await leavesUntouched(folder, async () => {
      const image = to(`disk.${format}`);
      const { files, size } = await convertImage(leaf, image, { format, variant, verify: true });
      expectEqual(source.format, leaf, format, image);
      expectClean(format, image);
      expect(allocated(files)).toBeLessThan(source.data + 4 * MiB);
      const info = JSON.parse(run('qemu-img', ['info', '--output=json', '-f', format, image])) as {
        'virtual-size': number;
      };
      expect(info['virtual-size']).toBe(Math.ceil(size / 512) * 512);
      expect(readdirSync(to('')).sort()).toEqual(files.map((file) => file.slice(to('').length + 1)).sort());
    });
  });

  it('gives each image an identity of its own', async () => {
    const { source, to } = fresh();
    const leaf = sources[0]!.make(source);
    for (const name of ['a', 'b']) await convertImage(leaf, to(`${name}.vmdk`), { format: 'vmdk' });
    const [a, b] = ['a', 'b'].map((name) => /^CID=(\w{8})$/m.exec(readFileSync(to(`${name}.vmdk`), 'latin1'))?.[1]);
    expect(a).toBeDefined();
    expect(a).not.toBe(b);
    // A snapshot on top of it is what shows that it can be a parent.
    run('qemu-img', ['create', '-q', '-f', 'vmdk', '-F', 'vmdk', '-b', 'a.vmdk', to('child.vmdk')]);
    expectEqual('vmdk', leaf, 'vmdk', to('child.vmdk'));
  });

  it.each(['qcow2', 'vhdx', 'vmdk'] as const)('writes a %s that QEMU can write to', async (format) => {
    const { source, to } = fresh();
    const leaf = sources[0]!.make(source);
    const image = to(`disk.${format}`);
    await convertImage(leaf, image, { format });
    run('qemu-io', ['-f', format, '-c', 'write -P 9 50M 1M', '-c', 'read -P 9 50M 1M', '-c', 'read -P 1 0 1M', image]);
    expectClean(format, image);
  });

  it.each([
    ['qcow2', 'qcow2', []],
    ['vmdk', 'vmdk', ['--variant', 'streamOptimized']],
  ] as const)('goes on after kill -9: %s', async (format, qemu, more) => {
    const { source, to } = fresh();
    const leaf = join(source, 'disk.raw');
    // Enough to be killed in the middle: bytes that do not compress, and zeros that must be looked at.
    const block = randomFillSync(Buffer.alloc(MiB));
    const dense = format === 'qcow2' ? 100 : 600;
    const pieces = new Map(Array.from({ length: dense }, (_, i) => [i * MiB, block] as const));
    const size = format === 'qcow2' ? 24 * GiB : 700 * MiB;
    writeSparse(leaf, size, pieces.set(size - 3 * MiB, block));
    const image = to(`disk.${format}`);
    const args = ['convert', leaf, image, ...more, '--json'];
    const child = spawn(process.execPath, [program, ...args, '--no-verify'], { stdio: 'ignore' });
    const ended = new Promise<NodeJS.Signals | null>((done) => child.once('exit', (_, signal) => done(signal)));
    const noted = () => {
      const name = leftovers(image).find((one) => one.endsWith('.journal'));
      return name === undefined ? 0 : readFileSync(to(name), 'utf8').split('\n').length - 2;
    };
    while (noted() < 1 && child.exitCode === null) await new Promise((resume) => setTimeout(resume, 10));
    child.kill('SIGKILL');
    expect(await ended).toBe('SIGKILL');
    expect(existsSync(image)).toBe(false);
    expect(leftovers(image)).toHaveLength(2);

    const again = chainlift(...args, '--resume');
    expect(again).toMatchObject({ code: 0, stderr: '' });
    const result = JSON.parse(again.stdout) as { resumedBytes: number; dataBytes: number; verified: boolean };
    expect(result.resumedBytes).toBeGreaterThan(0);
    expect(result.resumedBytes).toBeLessThanOrEqual(result.dataBytes);
    expect(result.verified).toBe(true);
    expect(leftovers(image)).toEqual([]);
    expectEqual('raw', leaf, qemu, image);
    expectClean(qemu, image);
  });

  it('is a command with a contract', () => {
    const { source, to } = fresh();
    const leaf = sources[0]!.make(source);
    expect(chainlift('convert', leaf, to('disk.xyz'))).toMatchObject({ code: 2, stdout: '' });
    expect(chainlift('convert', leaf, to('none/disk.raw'))).toMatchObject({ code: 1, stdout: '' });
    const first = chainlift('convert', leaf, to('disk.raw'));
    expect(first).toMatchObject({ code: 0, stderr: '', stdout: expect.stringContaining('read back and equal') });
    const second = chainlift('convert', leaf, to('disk.raw'));
    expect(second).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('denied') });
    expect(chainlift('convert', leaf, to('disk.raw'), '--replace', '--no-verify').stdout).toContain('not read back');
    const resumed = chainlift('convert', leaf, to('disk.raw'), '--replace', '--resume');
    expect(resumed).toMatchObject({ code: 0, stderr: expect.stringContaining('begun anew') });
    // The backup's own files stay, whatever is asked.
    expect(chainlift('convert', leaf, join(source, 'disk-0.vmdk'), '--replace')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('part of the backup'),
    });
    expectEqual('vmdk', leaf, 'raw', to('disk.raw'));
  });

  it('needs memory that does not grow with the disk', () => {
    const { source, to } = fresh();
    const leaf = join(source, 'disk.vmdk');
    run('qemu-img', ['create', '-q', '-f', 'vmdk', leaf, '2T']);
    const writes = Array.from({ length: 400 }, (_, i) => ['-c', `write -q -P ${1 + (i % 250)} ${i * 5}G 1M`]).flat();
    run('qemu-io', ['-f', 'vmdk', ...writes, leaf]);
    const peak = join(source, 'peak.cjs');
    writeFileSync(peak, "process.on('exit', () => process._rawDebug('PEAK ' + process.resourceUsage().maxRSS));");
    for (const { format, variant } of targets.filter((target) => !['raw', 'monolithicFlat'].includes(target.variant))) {
      const image = to(`${variant}.${format}`);
      const kind = format === 'vmdk' ? ['--variant', variant] : [];
      const measured = tryRun(process.execPath, ['-r', peak, program, 'convert', leaf, image, '--no-verify', ...kind]);
      expect(measured.code).toBe(0);
      const kib = Number(/PEAK (\d+)/.exec(measured.stderr)?.[1]);
      // Node itself with its threads takes about 100 MiB; a worker that compresses holds a stretch.
      expect(kib).toBeLessThan((variant === 'streamOptimized' ? 384 : 256) * 1024);
      expectClean(format, image);
    }
  });
});

describePeers('conversion without room', { peers: ['qemu-img', 'qemu-io'], reasons: [missingLoopMounts()] }, () => {
  const scratch = scratchFolder('peers-convert-full');

  it('says so, before or while it writes, and leaves nothing', async () => {
    const mount = join(scratch.path, 'small');
    mkdirSync(mount);
    run('mount', ['-t', 'tmpfs', '-o', 'size=32M', 'tmpfs', mount]);
    try {
      // A raw disk may be anything: found out in writing.
      const raw = join(scratch.path, 'disk.raw');
      writeFileSync(raw, randomFillSync(Buffer.alloc(64 * MiB)));
      for (const { format, variant } of targets) {
        await expect(convertImage(raw, join(mount, 'out'), { format, variant })).rejects.toMatchObject({
          kind: 'io',
          details: { code: 'ENOSPC' },
        });
        expect(readdirSync(mount)).toEqual([]);
      }
      // Of a sparse one the map tells.
      const vmdk = join(scratch.path, 'disk.vmdk');
      run('qemu-img', ['create', '-q', '-f', 'vmdk', vmdk, '1G']);
      run('qemu-io', ['-f', 'vmdk', '-c', 'write -P 1 0 64M', vmdk]);
      await expect(convertImage(vmdk, join(mount, 'out'), { format: 'raw' })).rejects.toMatchObject({
        kind: 'io',
        message: expect.stringContaining('not enough room'),
        details: { code: 'ENOSPC', needed: 64 * MiB },
      });
      expect(readdirSync(mount)).toEqual([]);
      // What compresses may fit all the same.
      await convertImage(vmdk, join(mount, 'out.vmdk'), { format: 'vmdk', variant: 'streamOptimized' });
      expectEqual('vmdk', vmdk, 'vmdk', join(mount, 'out.vmdk'));
    } finally {
      run('umount', [mount]);
    }
  });
});
