/** Commands that attach or copy an export, ready to paste. */
import type { ServerAddress } from './uri.ts';

/** An export as a client sees it. */
export type ServedExport = { readonly uri: string; readonly name: string } & ServerAddress;

export interface ExportCommand {
  readonly title: string;
  readonly command: string;
}

/** A word for a POSIX shell, quoted only where it must be. */
export function shellQuote(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

function shell(...words: string[]): string {
  return words.map(shellQuote).join(' ');
}

/** A value inside a QEMU option list, where a comma ends it unless doubled. */
function qemuValue(value: string): string {
  return value.replaceAll(',', ',,');
}

/** Commands ready to paste into a POSIX shell, for the programs people attach and copy disks with. All of them only read. */
export function exportCommands(address: ServedExport): ExportCommand[] {
  const { uri, name } = address;
  const server =
    'socket' in address
      ? `server.type=unix,server.path=${qemuValue(address.socket)}`
      : `server.type=inet,server.host=${qemuValue(address.host)},server.port=${address.port}`;
  const blockdev = `driver=nbd,node-name=backup,read-only=on,${server},export=${qemuValue(name)}`;
  const client =
    'socket' in address
      ? ['nbd-client', '-unix', address.socket, '/dev/nbd0', '-name', name, '-readonly']
      : ['nbd-client', address.host, String(address.port), '/dev/nbd0', '-name', name, '-readonly'];
  return [
    {
      title: 'Boot a copy in QEMU (its writes are thrown away)',
      command: shell(
        'qemu-system-x86_64',
        '-m',
        '2048',
        '-drive',
        `file=${qemuValue(uri)},format=raw,if=virtio,snapshot=on`,
      ),
    },
    {
      title: 'Attach to a QEMU machine as a read-only disk',
      command: shell('qemu-system-x86_64', '-blockdev', blockdev, '-device', 'virtio-blk-pci,drive=backup'),
    },
    { title: 'Attach as /dev/nbd0 on Linux', command: shell('sudo', ...client) },
    { title: 'Detach /dev/nbd0', command: shell('sudo', 'nbd-client', '-d', '/dev/nbd0') },
    { title: 'Copy to a raw image', command: shell('nbdcopy', uri, 'disk.img') },
    { title: 'Convert to QCOW2', command: shell('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', uri, 'disk.qcow2') },
    { title: 'Show what is served', command: shell('nbdinfo', uri) },
  ];
}
