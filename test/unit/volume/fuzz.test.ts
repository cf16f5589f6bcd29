/** Seeded damage to partition tables: whatever the bytes say, volumes lie on the disk and nothing hangs or grows. */
import { expect, it } from 'vitest';
import { MemorySource } from '../../../main/engine/storage/byte-source.ts';
import { openVolumes } from '../../../main/engine/volume/volumes.ts';
import {
  efiGuid,
  linuxGuid,
  signGptHeader,
  writeExtended,
  writeGpt,
  writeMbr,
} from '../../support/partition-builder.ts';
import { randomFrom } from '../../support/random.ts';

const MiB = 1 << 20;

function mbrDisk(): { disk: Uint8Array; hot: number[] } {
  const disk = new Uint8Array(4 * MiB);
  writeMbr(disk, [
    { type: 0x83, start: 64, sectors: 100 },
    { type: 0x05, start: 1000, sectors: 6000 },
  ]);
  writeExtended(
    disk,
    1000,
    [0, 1, 2, 3].map((i) => ({ record: 1000 + i * 500, part: { type: 0x83, start: 1, sectors: 400 } })),
  );
  return { disk, hot: [0, 1000, 1500, 2000, 2500].map((sector) => sector * 512 + 440) };
}

function gptDisk(): { disk: Uint8Array; hot: number[] } {
  const disk = new Uint8Array(4 * MiB);
  writeGpt(disk, [
    { number: 1, type: efiGuid, first: 64, last: 127 },
    { number: 2, type: linuxGuid, first: 128, last: 4000 },
  ]);
  return { disk, hot: [440, 512, 560, 1024, 1152, 4 * MiB - 512, 4 * MiB - 33 * 512] };
}

it.each([
  ['MBR', mbrDisk],
  ['GPT', gptDisk],
])(
  '%s: 1,500 damaged disks each give volumes within the disk',
  async (_, make) => {
    const next = randomFrom(0x5eed);
    const { disk: sound, hot } = make();
    const started = performance.now();
    for (let round = 0; round < 1500; round++) {
      const disk = Uint8Array.from(sound);
      const changes = 1 + Math.floor(next() * 6);
      for (let i = 0; i < changes; i++) {
        const at = hot[Math.floor(next() * hot.length)]! + Math.floor(next() * 72);
        disk[Math.min(at, disk.length - 1)] = next() < 0.3 ? 0xff : Math.floor(next() * 256);
      }
      // Half of the damaged headers are signed again, so that what stands behind the checksum is reached.
      if (make === gptDisk && next() < 0.5) {
        new DataView(disk.buffer).setUint32(512 + 12, 92, true);
        signGptHeader(disk, 512);
      }
      const size = next() < 0.2 ? Math.floor(next() * disk.length) : disk.length;
      const set = await openVolumes([{ index: 0, source: new MemorySource(disk.subarray(0, size)) }]);
      expect(set.warnings.length).toBeLessThanOrEqual(101);
      for (const volume of set.volumes) {
        expect(volume.start).toBeGreaterThanOrEqual(0);
        expect(volume.start + volume.size).toBeLessThanOrEqual(size);
        expect(volume.size > 0 || volume.scheme === 'none').toBe(true);
      }
      expect(new Set(set.volumes.map((v) => v.name)).size).toBe(set.volumes.length);
    }
    expect(performance.now() - started).toBeLessThan(60_000);
  },
  90_000,
);
