/** The golden OVAs, XenServer exports and gzip files; see `ova-xva-gzip.sh`. */
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { manifestOf, ovfDescriptor } from '../../support/ova-builder.ts';
import { buildXva, CHUNK, type XvaDisk } from '../../support/xva-builder.ts';
import { type Entry, KIB, MIB, qemuTruth, run, scattered, text, withScratch, writeGolden } from './golden-writer.ts';

const out = process.argv[2]!;

/** A stream-optimized VMDK of `disk`, as ovftool puts them into an OVA. */
function streamOptimized(disk: Buffer, folder: string, image: string): Buffer {
  const raw = join(folder, 'disk.raw');
  writeFileSync(raw, disk);
  run('qemu-img', 'convert', '-f', 'raw', '-O', 'vmdk', '-o', 'subformat=streamOptimized', raw, image);
  if (!qemuTruth('vmdk', image, folder).equals(disk)) throw new Error('qemu-img does not give back what it was given');
  return readFileSync(image);
}

interface OvaPlan {
  title: string;
  tarOptions: string[];
  /** Folder of the disk inside the OVA. */
  below?: string;
  algorithm: string;
  /** The disk is compressed inside the OVA. */
  packed?: boolean;
  /** The OVA is compressed. */
  whole?: boolean;
}

function ova(plan: OvaPlan): Entry {
  return withScratch((folder) => {
    const disk = scattered(plan.title.length, 3 * MIB, 70);
    const place = join(folder, 'package');
    const name = `${plan.below === undefined ? '' : `${plan.below}/`}web01-disk1.vmdk`;
    mkdirSync(dirname(join(place, name)), { recursive: true });
    streamOptimized(disk, folder, join(place, name));
    let stored = name;
    if (plan.packed) {
      run('gzip', '-9', '-n', join(place, name));
      stored += '.gz';
    }
    const file = { name: stored, bytes: readFileSync(join(place, stored)) };
    const inside = { ...file, capacity: disk.length, ...(plan.packed ? { compression: 'gzip' } : {}) };
    const descriptor = Buffer.from(ovfDescriptor('web01', [inside]));
    writeFileSync(join(place, 'web01.ovf'), descriptor);
    writeFileSync(join(place, 'web01.mf'), manifestOf([{ name: 'web01.ovf', bytes: descriptor }, file], plan.algorithm));
    const archive = join(folder, 'web01.ova');
    const options = [...plan.tarOptions, '--mtime=@1700000000', '--owner=0', '--group=0'];
    run('tar', '-C', place, ...options, '-cf', archive, 'web01.ovf', 'web01.mf', stored);
    let leaf = `web01.ova/${stored}`;
    if (plan.packed) leaf += `/${name.slice(name.lastIndexOf('/') + 1)}`;
    let saved = 'web01.ova';
    if (plan.whole) {
      run('gzip', '-6', '-n', archive);
      saved += '.gz';
      leaf = leaf.replace('web01.ova', saved);
    }
    const made = [
      'qemu-img 7.2 convert -O vmdk -o subformat=streamOptimized',
      ...(plan.packed ? ['gzip -9'] : []),
      `tar ${plan.tarOptions.join(' ')} -cf web01.ova web01.ovf web01.mf ${stored.length > 60 ? '...' : stored}`,
      ...(plan.whole ? ['gzip -6'] : []),
    ];
    return {
      title: plan.title,
      made: `${made.join('; ')}; descriptor and manifest by test/support/ova-builder.ts after DMTF DSP0243; truth: qemu-img convert`,
      files: { [saved]: readFileSync(join(folder, saved)) },
      leaf,
      disk,
    };
  });
}

const XVA = 'test/support/xva-builder.ts after XAPI, "The XenServer VM import/format" and stream_vdi.ml; truth: what the builder put in';

/** A disk of chunks: text at the beginning of some, zeros in the others. */
function chunky(size: number, chunks: readonly number[]): Buffer {
  const disk = Buffer.alloc(size);
  for (const chunk of chunks) text(chunk, chunk * CHUNK, 9 * KIB).copy(disk, chunk * CHUNK + 5000);
  return disk;
}

function xva(title: string, disk: XvaDisk, packed = false): Entry {
  return withScratch((folder) => {
    const other: XvaDisk = { id: 'Ref:31', content: chunky(2 * MIB, [1]) };
    const bytes = buildXva([disk, other]);
    const path = join(folder, 'web01.xva');
    writeFileSync(path, bytes);
    if (packed) {
      run('gzip', '-n', path);
      run('mv', `${path}.gz`, path);
    }
    return {
      title,
      made: packed ? `${XVA}; gzip` : XVA,
      files: { 'web01.xva': readFileSync(path) },
      leaf: `web01.xva/${disk.id}`,
      disk: Buffer.from(disk.content),
    };
  });
}

/** A raw disk compressed by a program that reads `disk` and writes `disk.gz`. */
function gzip(title: string, made: string, disk: Buffer, body: (folder: string) => void): Entry {
  return withScratch((folder) => {
    writeFileSync(join(folder, 'disk'), disk);
    body(folder);
    const sum = createHash('sha256').update(disk).digest('hex');
    run('sh', '-c', `test "$(gunzip -c '${join(folder, 'disk.gz')}' | sha256sum | cut -c-64)" = ${sum}`);
    const files = { 'web01.raw.gz': readFileSync(join(folder, 'disk.gz')) };
    return { title, made: `${made}; truth: gunzip -c`, files, leaf: 'web01.raw.gz/web01.raw', disk };
  });
}

const shell = (folder: string, command: string): void => run('sh', '-c', `cd '${folder}' && ${command}`);
const plain = scattered(4, 6 * MIB + 512, 55);

writeGolden(
  'ova',
  [
    ova({ title: 'ustar, SHA-256', tarOptions: ['--format=ustar'], algorithm: 'SHA256' }),
    ova({ title: 'GNU tar, long names, SHA-1', tarOptions: ['--format=gnu'], algorithm: 'SHA1', below: `vm/${'long-folder-name-'.repeat(8)}/disks` }),
    ova({ title: 'pax, long names, SHA-512', tarOptions: ['--format=pax'], algorithm: 'SHA512', below: `vm/${'ünïcode-ordner-'.repeat(8)}/disks` }),
    ova({ title: 'V7', tarOptions: ['--format=v7'], algorithm: 'SHA256' }),
    ova({ title: 'a compressed disk inside', tarOptions: ['--format=ustar'], algorithm: 'SHA256', packed: true }),
    ova({ title: 'compressed as a whole', tarOptions: ['--format=ustar'], algorithm: 'SHA256', whole: true }),
  ],
  out,
);
writeGolden(
  'xva',
  [
    xva('SHA-1 checksums (XenServer to 8.0)', { id: 'Ref:12', content: chunky(9 * MIB, [0, 2, 3, 8]), checksum: 'sha1' }),
    xva('XXH64 checksums (from 8.1), a last chunk that is shorter', { id: 'Ref:4', content: chunky(7 * MIB + 300 * KIB, [2, 5]) }),
    xva('empty chunks that kept the connection open', {
      id: 'Ref:12',
      content: chunky(12 * MIB, [0, 4, 5, 9]),
      idleBefore: [2, 5, 8, 11],
      sendZeros: [7],
    }),
    xva('without checksums', { id: 'Ref:12', content: chunky(4 * MIB, [0, 3]), checksum: 'none' }),
    xva('compressed', { id: 'Ref:12', content: chunky(9 * MIB, [0, 2, 3, 8]) }, true),
  ],
  out,
);
writeGolden(
  'gzip',
  [
    gzip('gzip -1', 'gzip -1', plain, (folder) => shell(folder, 'gzip -1 disk')),
    gzip('gzip -9 with a name', 'gzip -9 -N', plain, (folder) => shell(folder, 'gzip -9 -N disk')),
    gzip('stored blocks', 'python3 gzip, compresslevel=0', scattered(6, MIB, 40), (folder) =>
      shell(folder, `python3 -c "import gzip; gzip.open('disk.gz', 'wb', 0).write(open('disk', 'rb').read())"`),
    ),
    gzip('fixed codes', 'python3 zlib, Z_FIXED', scattered(8, 2 * MIB, 90), (folder) =>
      shell(
        folder,
        `python3 -c "import zlib; c = zlib.compressobj(9, 8, 31, 9, zlib.Z_FIXED); open('disk.gz', 'wb').write(c.compress(open('disk', 'rb').read()) + c.flush())"`,
      ),
    ),
    gzip('files after one another', 'split -b 100000 and gzip each, cat', plain, (folder) =>
      shell(folder, 'split -b 100000 -a 3 -d disk part- && gzip part-* && cat part-*.gz > disk.gz'),
    ),
    gzip('7-Zip', '7z a -tgzip -mx=9', plain, (folder) => shell(folder, '7z a -tgzip -mx=9 -bso0 -bsp0 disk.gz disk')),
    withScratch((folder) => {
      const disk = scattered(2, 2 * MIB, 60);
      const image = join(folder, 'web01.vmdk');
      writeFileSync(join(folder, 'disk.raw'), disk);
      run('qemu-img', 'convert', '-f', 'raw', '-O', 'vmdk', join(folder, 'disk.raw'), image);
      if (!qemuTruth('vmdk', image, folder).equals(disk)) throw new Error('qemu-img does not give back what it was given');
      run('gzip', image);
      const names = readdirSync(folder).filter((name) => name.endsWith('.vmdk.gz'));
      return {
        title: 'a compressed VMDK',
        made: 'qemu-img 7.2 convert -O vmdk; gzip; truth: qemu-img convert',
        files: Object.fromEntries(names.map((name) => [name, readFileSync(join(folder, name))])),
        leaf: 'web01.vmdk.gz/web01.vmdk',
        disk,
      };
    }),
  ],
  out,
);
