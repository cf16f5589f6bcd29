/** What is left of an image: nothing, a byte, a header, a footer; a header and noise; and an image cut off at each of its structures. */
import { copyFileSync, cpSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openChain } from '../../../main/engine/chain/open.ts';
import { verifyChain } from '../../../main/engine/chain/verify.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { randomFrom } from '../../support/random.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { buildTar } from '../../support/tar-builder.ts';
import { attack, refusal, scan, withinBounds } from './attack.ts';
import {
  type Fixture,
  fresh,
  gzipped,
  ova,
  structured,
  vdiDynamic,
  vhdDifferencing,
  vhdDynamic,
  xva,
} from './fixtures.ts';

const ROUNDS = 200;

/** Bytes of a fixture's header, which random bytes follow. */
function headerLength({ edges }: { edges: Readonly<Record<string, number>> }): number {
  const [, second] = Object.values(edges).sort((a, b) => a - b);
  return Math.max(4, Math.min(second ?? 512, 4096));
}

function noise(random: () => number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 0; i + 4 <= length; i += 4) bytes.writeUInt32LE(Math.floor(random() * 2 ** 32), i);
  return bytes;
}

/** Opens, reads what the model has, and verifies. What was read, where it was read without an error. */
async function look(folder: string, leaf: string, length: number): Promise<Buffer | undefined> {
  let bytes: Buffer | undefined;
  await refusal(async () => {
    const confinement = new Confinement(folder, { synchronous: true });
    try {
      const disk = await openChain(leaf, confinement, { synchronous: true });
      try {
        bytes = Buffer.from(await disk.read(0, Math.min(length, disk.size)));
        await disk.runs(0, Math.min(disk.size, 64 << 20));
      } finally {
        await disk.close();
      }
    } finally {
      await confinement.close();
    }
  });
  const confinement = new Confinement(folder, { synchronous: true });
  let count = 0;
  for await (const _ of verifyChain(leaf, confinement)) if (++count > 500) break;
  await confinement.close();
  return bytes;
}

describe.each(structured.map((fixture) => [fixture.name, fixture] as const))('%s', (_name, fixture) => {
  const scratch = scratchFolder('fragments');

  /** The image with its attacked file replaced. */
  function broken(change: (bytes: Buffer) => Buffer): { folder: string; leaf: string } {
    const folder = fresh(scratch.path);
    const { leaf, file } = fixture.write(folder);
    writeFileSync(join(folder, file), change(readFileSync(join(folder, file))));
    return { folder, leaf };
  }

  it.each<[string, (bytes: Buffer, header: number) => Buffer]>([
    ['nothing', () => Buffer.alloc(0)],
    ['one byte', (bytes) => bytes.subarray(0, 1)],
    ['one byte of zero', () => Buffer.alloc(1)],
    ['its first 8 bytes', (bytes) => bytes.subarray(0, 8)],
    ['its header only', (bytes, header) => bytes.subarray(0, header)],
    ['its last 512 bytes only', (bytes) => bytes.subarray(-512)],
    ['its last 511 bytes only', (bytes) => bytes.subarray(-511)],
    ['its last 1,536 bytes only', (bytes) => bytes.subarray(-1536)],
    ['its first and its last sector', (bytes) => Buffer.concat([bytes.subarray(0, 512), bytes.subarray(-512)])],
    ['its header twice', (bytes, header) => Buffer.concat([bytes.subarray(0, header), bytes.subarray(0, header)])],
    ['zeros of its length', (bytes) => Buffer.alloc(bytes.length)],
    ['0xff of its length', (bytes) => Buffer.alloc(bytes.length, 0xff)],
  ])('%s is refused', async (_what, change) => {
    const sample = fresh(scratch.path);
    const written = fixture.write(sample);
    const { model } = written;
    const header = headerLength(written);
    const { folder, leaf } = broken((bytes) => change(bytes, header));
    const { error, bytes, size, findings } = await attack(folder, leaf);
    if (error === undefined) {
      // In place of a flat extent they are the disk: nothing in it says otherwise. A .hdd without its magic number is a raw disk, as
      // other programs keep them.
      expect(['VMDK monolithicFlat', 'Parallels expanding']).toContain(fixture.name);
      expect(size).toBeLessThanOrEqual(model.length + 1024);
      expect(bytes.length).toBe(size);
    } else {
      expect(error.kind).toMatch(/^(corrupt|unsupported|not-found|io)$/);
      expect(findings.some(({ severity }) => severity !== 'note')).toBe(true);
    }
  });

  it(`its header and noise, ${ROUNDS} times`, { timeout: 120_000 }, async () => {
    const folder = fresh(scratch.path);
    const written = fixture.write(folder);
    const path = join(folder, written.file);
    const original = readFileSync(path);
    const header = headerLength(written);
    const random = randomFrom(fixture.name.length * 7919);
    await withinBounds(
      folder,
      async () => {
        for (let round = 0; round < ROUNDS; round++) {
          // As long as the image, or shorter; the noise begins behind the header or at one of its structures.
          const edges = Object.values(written.edges).filter((edge) => edge >= header);
          const from = round % 2 === 0 ? header : edges[Math.floor(random() * edges.length)]!;
          const to = round % 4 < 2 ? Math.min(original.length, from + 65_536) : from + Math.floor(random() * 8192);
          const end = Math.min(original.length, Math.max(from, to));
          const keepTail = round % 3 === 0;
          writeFileSync(
            path,
            Buffer.concat([
              original.subarray(0, from),
              noise(random, end - from),
              keepTail ? original.subarray(end) : Buffer.alloc(0),
            ]),
          );
          await look(folder, written.leaf, written.model.length);
        }
      },
      // What 200 images leave as garbage.
      256 << 20,
    ).catch((error) => {
      // 200 images may take longer than one.
      if (!/seconds/.test(String(error))) throw error;
      expect(Number(/expected ([\d.]+)/.exec(String(error))?.[1])).toBeLessThan(ROUNDS * 0.25);
    });
  });

  it('cut off at each of its structures: its data, or an error', async () => {
    const folder = fresh(scratch.path);
    const written = fixture.write(folder);
    const path = join(folder, written.file);
    const whole = join(scratch.path, `whole-${basename(folder)}`);
    copyFileSync(path, whole);
    const { length } = readFileSync(whole);
    let errors = 0;
    for (const [name, edge] of Object.entries(written.edges)) {
      for (const size of new Set([edge - 512, edge - 1, edge, edge + 1, edge + 511, edge + 512, edge + 4096])) {
        if (size < 0 || size >= length) continue;
        cpSync(whole, path);
        truncateSync(path, size);
        const bytes = await look(folder, written.leaf, written.model.length);
        if (bytes === undefined) {
          errors++;
          continue;
        }
        expect(bytes.equals(written.model), `cut at ${size}, by ${name}: other data`).toBe(true);
      }
    }
    expect(errors).toBeGreaterThan(3);
    cpSync(whole, path);
    truncateSync(path, Math.floor(length / 2));
    await scan(folder);
  });
});

describe('cut off inside what compresses or packs', () => {
  const scratch = scratchFolder('fragments-packed');
  it.each([gzipped, ova, xva].map((fixture: Fixture) => [fixture.name, fixture] as const))(
    '%s, at every 509th byte of its first 16 KiB and its last 4',
    async (_name, fixture) => {
      const folder = fresh(scratch.path);
      const written = fixture.write(folder);
      const path = join(folder, written.file);
      const original = readFileSync(path);
      const cuts: number[] = [];
      for (let at = 1; at < Math.min(16_384, original.length); at += 509) cuts.push(at);
      for (let at = Math.max(0, original.length - 4096); at < original.length; at += 509) cuts.push(at);
      for (const size of cuts) {
        writeFileSync(path, original.subarray(0, size));
        const bytes = await look(folder, written.leaf, written.model.length);
        if (bytes !== undefined) expect(bytes.equals(written.model), `cut at ${size}`).toBe(true);
      }
    },
  );
});

describe('an archive that is cut off inside a description', () => {
  const scratch = scratchFolder('fragments-described');
  it.each([
    ['web.ovf', '<Envelope>'],
    ['web.vmx', 'displayName = "web"\n'],
    ['web.vmsd', 'snapshot.numSnapshots = "1"\n'],
    ['web.vmsn', 'x'],
    ['web.vmdk', '# Disk DescriptorFile\n'],
    ['web.vbox', '<VirtualBox>'],
    ['web.xml', '<domain>'],
    ['snapshot.xml', '<domainsnapshot>'],
    ['Virtual Machines/0BADCAFE-0000-4000-8000-000000000001.xml', '<configuration>'],
    ['Virtual Machines/0BADCAFE-0000-4000-8000-000000000001.vmcx', 'x'],
    ['ova.xml', '<value>'],
    ['web.mf', 'SHA256(web.ovf)= 00'],
    ['disk.hdd/DiskDescriptor.xml', '<Parallels_disk_image>'],
    ['disk.qcow2', 'QFI\xfb'],
    ['disk.vhdx', 'vhdxfile'],
    ['disk.raw', 'x'],
    ['disk.vmdk.gz', '\x1f\x8b'],
    ['inner.ova', 'x'],
  ])('%s: the scan goes on', async (name, text) => {
    const folder = fresh(scratch.path);
    vdiDynamic.write(folder);
    for (const [archive, before] of [
      ['first.ova', []],
      ['second.xva', [{ name: 'other.txt', content: Buffer.from('x') }]],
    ] as const) {
      const tar = buildTar([...before, { name, content: Buffer.from(text.padEnd(4000, ' '), 'latin1') }]);
      const head = tar.indexOf(text) + text.length;
      writeFileSync(join(folder, archive), tar.subarray(0, Math.max(512, head)));
    }
    const { vms, findings } = await scan(folder);
    expect(
      vms.map(({ points }) => points.flatMap(({ disks }) => disks.map((disk) => disk.chain)).join()),
    ).toContainEqual(expect.stringContaining('disk.vdi'));
    // Told of the folder, or of the VM that is in the archive.
    expect([...findings, ...vms.flatMap((vm) => vm.findings)].map(({ code }) => code)).toContain(
      'archive-member-cut-off',
    );
  });
});

describe('VHD with one of its two footers', () => {
  const scratch = scratchFolder('fragments-vhd');
  it.each([vhdDynamic, vhdDifferencing].map((fixture) => [fixture.name, fixture] as const))(
    '%s reads by the copy, and by the last alone',
    async (_name, fixture) => {
      for (const change of [
        (bytes: Buffer) => bytes.subarray(0, bytes.length - 512),
        (bytes: Buffer) => bytes.fill(0xc7, bytes.length - 512),
        (bytes: Buffer) => bytes.fill(0, 0, 512),
      ]) {
        const folder = fresh(scratch.path);
        const { leaf, file, model } = fixture.write(folder);
        writeFileSync(join(folder, file), change(readFileSync(join(folder, file))));
        const { error, bytes, findings } = await attack(folder, leaf);
        expect(error).toBeUndefined();
        expect(bytes.equals(model)).toBe(true);
        expect(findings.some(({ code }) => code.startsWith('footer-copy'))).toBe(true);
      }
    },
  );
});
