import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { detectFormat, imageFormats, openLayer } from '../../../main/engine/image/formats.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { buildCowd, buildSparse, descriptorText } from '../../support/vmdk-builder.ts';

const scratch = scratchFolder('formats');
const sparse = () => buildSparse({ capacitySectors: 128, grains: new Map() }).bytes;
const cowd = () => buildCowd({ capacitySectors: 128, grains: new Map() }).bytes;
const text = Buffer.from(descriptorText({ createType: 'vmfs', extents: ['RW 1 VMFS "a-flat.vmdk"'] }));
const magic = (content: string | Buffer, at = 0) => {
  const bytes = Buffer.alloc(1 << 17);
  bytes.set(Buffer.from(content as string, 'latin1'), at);
  return bytes;
};
const zeros = Buffer.alloc(4096);

async function detect(name: string, content: Buffer): Promise<string | undefined> {
  const folder = join(scratch.path, 'detect');
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, name), content);
  return (await detectFormat(name, new Confinement(folder)))?.name;
}

describe('image formats', () => {
  it('are listed in probe order, raw last', () => {
    expect(imageFormats.map(({ name }) => name)).toEqual([
      'parallels',
      'vhd',
      'vmdk',
      'vdi',
      'vhdx',
      'qcow2',
      'qcow',
      'xva',
      'raw',
    ]);
  });

  it.each([
    ['a.vmdk', sparse(), 'vmdk'],
    ['a.img', sparse(), 'vmdk'],
    ['noname', sparse(), 'vmdk'],
    ['a-delta.vmdk', cowd(), 'vmdk'],
    ['a.vmdk.REDO_abc123', cowd(), 'vmdk'],
    ['a.vmdk', text, 'vmdk'],
    ['a.vmdk.REDO_abc123', text, 'vmdk'],
    ['a.vmdk', zeros, 'vmdk'],
    ['a.vmdk', Buffer.alloc(0), 'vmdk'],
    ['a-flat.vmdk', zeros, 'raw'],
    ['a-f001.vmdk', zeros, 'raw'],
    // The guest writes the first bytes of a flat extent; it must not become a descriptor by that.
    ['a-flat.vmdk', Buffer.concat([text, Buffer.alloc(1 << 16)]), 'raw'],
    ['a-flat.vmdk', sparse(), 'raw'],
    ['a.raw', text, 'raw'],
    ['a.img', text, 'raw'],
    // A machine called "a-flat": this small file is its descriptor.
    ['a-flat.vmdk', text, 'vmdk'],
    ['a-ctk.vmdk', zeros, undefined],
    ['a.img', zeros, 'raw'],
    ['a.iso', zeros, 'raw'],
    ['a.dd', zeros, 'raw'],
    ['a.bin', zeros, 'raw'],
    ['a.vmx', Buffer.from('.encoding = "UTF-8"\nconfig.version = "8"\n'), undefined],
    ['a.nvram', zeros, undefined],
    ['a.txt', Buffer.from('version=1\n'), undefined],
    ['A.class', Buffer.from('cafebabe00000000', 'hex'), undefined],
    ['a.img', magic('QFI\xfb'), 'qcow2'],
    ['a.img', magic('QFI\xfb\0\0\0\x01'), 'qcow'],
    ['a.raw', magic('QFI\xfb\0\0\0\x03'), 'raw'],
    ['a.qcow2', zeros, 'qcow2'],
    ['a.qcow', zeros, 'qcow'],
    ['a', magic('vhdxfile'), 'vhdx'],
    ['a.avhdx', zeros, 'vhdx'],
    ['a.VHDX', Buffer.alloc(0), 'vhdx'],
    ['a.raw', magic('vhdxfile'), 'raw'],
    ['a.vhd', zeros, 'vhd'],
    ['a', magic('conectix'), 'vhd'],
    ['a', magic('\x7f\x10\xda\xbe', 64), 'vdi'],
    ['a.hds', magic('WithouFreSpacExt'), 'parallels'],
    ['a.E01', magic('EVF\x09\x0d\x0a\xff\x00'), 'ewf'],
    ['a.vma', magic('VMA\0'), 'vma'],
    ['a.asif', magic('shdw'), 'asif'],
    ['a.dmg', magic('x'), 'dmg'],
    ['a.vbk', magic('\x0d\0\0\0'), 'vbk'],
  ])('%s is told by name and content (%#)', async (name, content, expected) => {
    expect(await detect(name, content)).toBe(expected);
  });

  it.each([
    ['a.qcow2', magic('QFI\xfb\0\0\0\x04'), 'QCOW version 4'],
    [
      'a-sesparse.vmdk',
      magic(Buffer.from('bebafeca00000000', 'hex').toString('latin1')),
      'an seSparse extent opened by itself; open its descriptor (the small text file that names it) instead',
    ],
    ['a-rdm.vmdk', zeros, 'VMDK raw device mapping'],
    ['a-ctk.vmdk', magic('\xa2\x72\x19\xf6'), 'a change tracking file (-ctk.vmdk), which holds no disk'],
  ])('%s is refused by name', async (name, content, feature) => {
    writeFileSync(join(scratch.path, name), content);
    await expect(openLayer(name, new Confinement(scratch.path))).rejects.toMatchObject({
      kind: 'unsupported',
      details: { feature, source: name },
    });
  });

  it('calls a ruined VMDK damaged', async () => {
    for (const content of [zeros, Buffer.alloc(0), Buffer.from('KDM?')]) {
      writeFileSync(join(scratch.path, 'bad.vmdk'), content);
      await expect(openLayer('bad.vmdk', new Confinement(scratch.path))).rejects.toMatchObject({ kind: 'corrupt' });
    }
  });

  it('opens anything as raw when asked for it, and unknown files unasked', async () => {
    const folder = new Confinement(scratch.path);
    writeFileSync(join(scratch.path, 'b.vmdk'), text);
    writeFileSync(join(scratch.path, 'disk.data'), zeros);
    for (const [name, format] of [
      ['b.vmdk', 'raw'],
      ['disk.data', undefined],
    ] as const) {
      const layer = await openLayer(name, folder, format);
      expect(layer).toMatchObject({ format: 'raw', variant: 'raw', parent: undefined, id: undefined });
      await layer.close();
    }
    await expect(openLayer('b.vmdk', folder, 'nope')).rejects.toMatchObject({ kind: 'usage' });
  });
});
