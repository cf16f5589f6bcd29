/**
 * A virtual machine with Debian's kernel that attaches an NBD export with the kernel's client, hashes it and tries to write to it.
 * It is made of nothing but the installed kernel, its modules, busybox and nbd-client, packed into an initramfs.
 */
import { spawn } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { run } from './peers.ts';

const MODULES = ['virtio_pci', 'virtio_net', 'nbd'];
const CLIENT = '/usr/sbin/nbd-client';
const BUSYBOX = '/bin/busybox';

/** The newest installed kernel whose modules are here too. */
function kernel(): { image: string; modules: string } | undefined {
  const versions = existsSync('/boot') ? readdirSync('/boot').filter((name) => name.startsWith('vmlinuz-')) : [];
  for (const name of versions.sort().reverse()) {
    const modules = `/lib/modules/${name.slice('vmlinuz-'.length)}`;
    if (existsSync(join(modules, 'modules.dep'))) return { image: join('/boot', name), modules };
  }
  return undefined;
}

/** Why no such machine can be made here, or undefined when it can. */
export function missingGuest(): string | undefined {
  if (kernel() === undefined)
    return 'there is no kernel with modules in /boot (Debian package linux-image-cloud-amd64)';
  if (!existsSync(CLIENT)) return 'nbd-client is not installed (Debian package nbd-client)';
  return undefined;
}

/** Paths of the modules and all they need, in the order they are to be loaded. */
function moduleFiles(folder: string): string[] {
  const needs = new Map<string, { path: string; needs: string[] }>();
  for (const line of readFileSync(join(folder, 'modules.dep'), 'utf8').split('\n')) {
    const [path, rest] = line.split(':');
    if (path === undefined || rest === undefined) continue;
    needs.set(
      basename(path)
        .replace(/\.ko.*$/, '')
        .replaceAll('-', '_'),
      { path, needs: rest.split(' ').filter(Boolean) },
    );
  }
  const order: string[] = [];
  for (const name of MODULES) {
    const module = needs.get(name);
    // Built into the kernel when it is not a module.
    if (module === undefined) continue;
    // modules.dep lists everything that is needed, the deepest last.
    for (const path of [...module.needs.reverse(), module.path]) if (!order.includes(path)) order.push(path);
  }
  return order.map((path) => join(folder, path));
}

/** Packs an initramfs whose init runs `script`; returns its path. */
function pack(work: string, modules: string, script: string): string {
  const root = join(work, 'root');
  for (const folder of ['bin', 'dev', 'proc', 'sys', 'modules']) mkdirSync(join(root, folder), { recursive: true });
  copyFileSync(BUSYBOX, join(root, 'bin/busybox'));
  const put = (path: string): void => {
    const to = join(root, path);
    mkdirSync(dirname(to), { recursive: true });
    copyFileSync(realpathSync(path), to);
    chmodSync(to, 0o755);
  };
  put(CLIENT);
  for (const [, library] of run('ldd', [CLIENT]).matchAll(/(\/\S+) \(0x/g)) put(library!);
  const files = moduleFiles(modules);
  for (const file of files) copyFileSync(file, join(root, 'modules', basename(file)));
  const load = files.map((file) => `insmod /modules/${basename(file)}`).join('\n');
  const init = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/sbin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
${load}
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
${script}
poweroff -f
`;
  writeFileSync(join(root, 'init'), init, { mode: 0o755 });
  const archive = join(work, 'initramfs');
  run('sh', ['-c', 'cd "$1" && find . | cpio -o -H newc --quiet > "$2"', 'sh', root, archive]);
  return archive;
}

export interface GuestReport {
  readonly size: number;
  readonly readOnly: boolean;
  readonly sha256: string;
  /** What `dd` said when it wrote to the device although it is read-only. */
  readonly write: string;
  readonly console: string;
}

/** Boots the machine, which attaches `name` from this computer's TCP `port`, and returns what it found. */
export async function readInGuest(work: string, port: number, name: string): Promise<GuestReport> {
  const { image, modules } = kernel()!;
  const script = `
nbd-client 10.0.2.2 ${port} /dev/nbd0 -name ${name}
echo "@size $(blockdev --getsize64 /dev/nbd0)"
echo "@ro $(blockdev --getro /dev/nbd0)"
echo "@sha256 $(sha256sum < /dev/nbd0)"
blockdev --setrw /dev/nbd0
echo "@write $(dd if=/dev/zero of=/dev/nbd0 bs=4096 count=1 conv=fsync 2>&1 | tr '\\n' ' ')"
echo "@again $(sha256sum < /dev/nbd0)"
`;
  const initramfs = pack(work, modules, script);
  // biome-ignore format: one option and its value a line
  const args = [
    '-accel', 'tcg', '-m', '256', '-nographic', '-no-reboot', '-nodefaults', '-serial', 'stdio',
    '-kernel', image, '-initrd', initramfs, '-append', 'console=ttyS0 quiet panic=-1',
    '-netdev', 'user,id=n', '-device', 'virtio-net-pci,netdev=n,romfile=',
  ];
  const text = await new Promise<string>((resolve, reject) => {
    const guest = spawn('qemu-system-x86_64', args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    guest.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString('utf8');
    });
    guest.stderr.on('data', (chunk: Buffer) => {
      output += chunk.toString('utf8');
    });
    const late = setTimeout(() => guest.kill('SIGKILL'), 120_000);
    guest.once('error', reject);
    guest.once('close', () => {
      clearTimeout(late);
      resolve(output);
    });
  });
  const field = (key: string): string => {
    const found = new RegExp(`^@${key} (.*?)\\s*$`, 'm').exec(text)?.[1];
    if (found === undefined) throw new Error(`the guest did not say ${key}:\n${text}`);
    return found;
  };
  const sha256 = field('sha256').split(' ')[0]!;
  if (field('again').split(' ')[0] !== sha256) throw new Error(`the guest's second look differs:\n${text}`);
  return { size: Number(field('size')), readOnly: field('ro') === '1', sha256, write: field('write'), console: text };
}
