/** Reads VHD and VHDX through libvhdi (Debian python3-libvhdi), a reader that is not ours. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** Debian's own interpreter, whose modules it is among. */
const PYTHON = '/usr/bin/python3';

const READER = `
import sys, pyvhdi
files = []
for path in sys.argv[2:]:
    files.append(pyvhdi.file())
    files[-1].open(path)
for child, parent in zip(files, files[1:]):
    child.set_parent(parent)
size = files[0].get_media_size()
with open(sys.argv[1], 'wb') as out:
    at = 0
    while at < size:
        count = min(1 << 20, size - at)
        out.write(files[0].read_buffer_at_offset(count, at))
        at += count
`;

/** Why libvhdi can't be used here, or undefined when it can. */
export function missingLibvhdi(): string | undefined {
  const { status } = spawnSync(PYTHON, ['-c', 'import pyvhdi']);
  return status === 0 ? undefined : 'pyvhdi is not installed (Debian package python3-libvhdi)';
}

/** The disk that a chain reads as. @param chain paths from the leaf to the base. @param raw a file to write on the way. */
export function readWithLibvhdi(chain: readonly string[], raw: string): Buffer {
  const { status, stderr } = spawnSync(PYTHON, ['-c', READER, raw, ...chain], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`libvhdi does not read ${chain[0]}: ${stderr}`);
  return readFileSync(raw);
}
