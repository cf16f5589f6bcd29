/** `ls /sda1/` as a whole process, on a chain whose ext4 holds 100,000 files, against Node's own start and `7z l`. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cli, fixture, hasPeer, run, timeCommands } from './tools.mjs';

const FILES = 100_000;
const DEPTH = 3;

function makeFixture(folder) {
  mkdirSync(folder);
  const raw = join(folder, 'files.raw');
  run('truncate', ['-s', '513M', raw]);
  run('sfdisk', ['--quiet', raw], { input: 'label: dos\nstart=2048, type=83\n', stdio: ['pipe', 'pipe', 'pipe'] });
  run('mke2fs', ['-q', '-F', '-t', 'ext4', '-b', '4096', '-N', '120000', '-E', `offset=${1 << 20}`, raw, '512M']);
  // The kernel fills it: mke2fs -d takes time that grows with the square of a folder's entries.
  const mount = join(folder, 'mnt');
  mkdirSync(mount);
  run('mount', ['-o', `loop,offset=${1 << 20}`, raw, mount]);
  try {
    for (let i = 0; i < FILES; i++) writeFileSync(join(mount, `document-${String(i).padStart(6, '0')}.txt`), '');
  } finally {
    run('umount', [mount]);
  }
  rmSync(mount, { recursive: true });
  // 7z lists a file system, not what lies behind a partition table.
  run('dd', ['if=files.raw', 'of=files.ext4', 'bs=1M', 'skip=1', 'count=512', 'conv=sparse', 'status=none'], {
    cwd: folder,
  });
  run('qemu-img', ['convert', '-f', 'raw', '-O', 'vmdk', raw, join(folder, 'files.vmdk')]);
  let parent = 'files.vmdk';
  for (let i = 1; i <= DEPTH; i++) {
    const name = `files-${String(i).padStart(6, '0')}.vmdk`;
    run('qemu-img', ['create', '-q', '-f', 'vmdk', '-F', 'vmdk', '-b', parent, name], { cwd: folder });
    parent = name;
  }
}

export async function listing() {
  for (const peer of ['mke2fs', 'sfdisk', 'qemu-img', 'mount'])
    if (!hasPeer(peer)) return [{ what: 'ls of 100,000 files', skipped: `${peer} is not installed` }];
  if (process.getuid?.() !== 0)
    return [{ what: 'ls of 100,000 files', skipped: 'its fixture is made on a loop mount, which needs root' }];
  const folder = fixture('listing', makeFixture);
  const leaf = join(folder, `files-${String(DEPTH).padStart(6, '0')}.vmdk`);
  const names = run(process.execPath, [cli, 'ls', leaf, '/sda1/']).trim().split('\n');
  if (names.filter((name) => name.startsWith('document-')).length !== FILES)
    throw new Error(`listed ${names.length} names`);
  const commands = {
    ours: [process.execPath, cli, 'ls', leaf, '/sda1/'],
    node: [process.execPath, '-e', '0'],
    ...(hasPeer('7z') ? { '7z': ['7z', 'l', join(folder, 'files.ext4')] } : {}),
  };
  const { ours, node, '7z': seven } = timeCommands(commands, 9);
  return [
    {
      what: '`ls` of 100,000 files, whole process, time',
      against: '`node -e 0`',
      ratio: ours.seconds / node.seconds,
      bar: 4,
      better: 'lower',
    },
    ...(seven === undefined
      ? [{ what: '`ls` of 100,000 files, time', skipped: '7z is not installed' }]
      : [
          {
            what: '`ls` of 100,000 files, time',
            against: '`7z l` of the raw equivalent',
            ratio: ours.seconds / seven.seconds,
            bar: 0.5,
            better: 'lower',
          },
        ]),
    {
      what: '`ls` of 100,000 files, peak memory',
      against: '150 MB',
      ratio: (ours.peakKiB * 1024) / 150e6,
      bar: 1,
      better: 'lower',
    },
  ];
}
