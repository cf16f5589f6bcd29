/** XML that costs more than it weighs, wherever a description of a VM or of a disk is read. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseXml } from '../../../main/engine/xml.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { buildTar } from '../../support/tar-builder.ts';
import { attack, refusal, scan, withinBounds } from './attack.ts';
import { fresh, vdiDynamic } from './fixtures.ts';

const MILLION = 1_000_000;

const laughs = (root: string): string => {
  const entities = Array.from({ length: 9 }, (_, i) => {
    const body = i === 0 ? 'lol' : `&l${i - 1};`.repeat(10);
    return `<!ENTITY l${i} "${body}">`;
  });
  return `<?xml version="1.0"?><!DOCTYPE ${root} [${entities.join('')}]><${root}>&l8;</${root}>`;
};
const external = (root: string): string =>
  `<?xml version="1.0"?><!DOCTYPE ${root} [<!ENTITY x SYSTEM "file:///etc/passwd">]><${root}>&x;</${root}>`;

/** [attack, document with this root element, kind of the error]. */
const BOMBS: readonly (readonly [string, (root: string) => string, 'corrupt' | 'unsupported'])[] = [
  ['a billion laughs', laughs, 'unsupported'],
  ['an entity of another file', external, 'unsupported'],
  [
    '1,000,000 elements within each other',
    (root) => `<${root}>${'<a>'.repeat(MILLION)}${'</a>'.repeat(MILLION)}</${root}>`,
    'corrupt',
  ],
  [
    '30,000 elements within each other',
    (root) => `<${root}>${'<a>'.repeat(30_000)}${'</a>'.repeat(30_000)}</${root}>`,
    'corrupt',
  ],
  ['an attribute of 100 MB', (root) => `<${root} a="${'x'.repeat(100 * MILLION)}"/>`, 'corrupt'],
  ['an attribute of 3.5 MB', (root) => `<${root} a="${'x'.repeat(3.5 * MILLION)}"/>`, 'corrupt'],
  ['text of 3.5 MB', (root) => `<${root}>${'x'.repeat(3.5 * MILLION)}</${root}>`, 'corrupt'],
  ['900,000 empty elements', (root) => `<${root}>${'<a/>'.repeat(900_000)}</${root}>`, 'corrupt'],
  [
    '200,000 attributes',
    (root) => `<${root} ${Array.from({ length: 200_000 }, (_, i) => `a${i}="1"`).join(' ')}/>`,
    'corrupt',
  ],
  ['a million attributes without a value', (root) => `<${root} ${'b '.repeat(MILLION)}/>`, 'corrupt'],
  ['two million NULs, and more behind them', (root) => `<${root}>${'\0'.repeat(2 * MILLION)}</${root}>`, 'corrupt'],
  ['800,000 comments', (root) => `<${root}>${'<!---->'.repeat(500_000)}</${root}>`, 'corrupt'],
  ['600,000 instructions', (root) => `<${root}>${'<?a?>'.repeat(600_000)}</${root}>`, 'corrupt'],
  ['comments that never end', (root) => `<${root}>${'<!--'.repeat(800_000)}`, 'corrupt'],
  ['sections that never end', (root) => `<${root}>${'<![CDATA['.repeat(400_000)}`, 'corrupt'],
  ['tags that never end', (root) => `<${root}${' <a'.repeat(MILLION)}`, 'corrupt'],
  ['two roots', (root) => `<${root}/><${root}/>`, 'corrupt'],
  ['a name that means something to JavaScript', (root) => `<${root}><__proto__><x/></__proto__></${root}>`, 'corrupt'],
];

/** [what reads it, the file, its root element]; files beside it make it one of a VM. */
const PLACES: readonly (readonly [string, string, string])[] = [
  ['an OVF descriptor', 'web.ovf', 'Envelope'],
  ['VirtualBox settings', 'web/web.vbox', 'VirtualBox'],
  ['a libvirt domain', 'web.xml', 'domain'],
  ['a libvirt snapshot', 'snapshot.xml', 'domainsnapshot'],
  ['a Hyper-V configuration', 'Virtual Machines/0BADCAFE-0000-4000-8000-000000000001.xml', 'configuration'],
];

describe.each(BOMBS)('%s', (_bomb, document, kind) => {
  const scratch = scratchFolder('xml');

  it('by itself', async () => {
    const text = document('a');
    await withinBounds(fresh(scratch.path), async () => {
      const error = await refusal(async () => parseXml(text, 'Description', 'web.xml'));
      expect(error).toMatchObject({ kind, details: { source: 'web.xml' } });
    });
  });

  it.each(PLACES)('in %s: told of, and the images beside it are still found', async (_what, file, root) => {
    const folder = fresh(scratch.path);
    const path = join(folder, file);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, document(root));
    mkdirSync(join(folder, 'other'));
    vdiDynamic.write(join(folder, 'other'));
    const { vms, orphans, findings } = await scan(folder);
    const all = [...findings, ...vms.flatMap((vm) => vm.findings)];
    // Where any XML may lie, one with a document type is not known to be a VM's.
    const anybodys = kind === 'unsupported' && /\.xml$/.test(file);
    if (!anybodys) {
      expect(all.map(({ source, severity }) => [source, severity])).toContainEqual([
        file,
        expect.stringMatching(/damaged|suspicious/),
      ]);
    }
    const images = JSON.stringify([vms, orphans]);
    expect(images).toContain('other/disk.vdi');
  });

  it('in ova.xml of an XVA', async () => {
    const folder = fresh(scratch.path);
    const chunk = { name: 'Ref:1/00000000', content: Buffer.alloc(512, 1) };
    const members = [{ name: 'ova.xml', content: Buffer.from(document('value')) }, chunk];
    writeFileSync(join(folder, 'web.xva'), buildTar(members));
    const { error } = await attack(folder, 'web.xva/Ref:1');
    expect(error?.kind).toBe(kind);
    expect(error?.details.source).toBe('web.xva/ova.xml');
  });

  it('in DiskDescriptor.xml', async () => {
    const folder = fresh(scratch.path);
    mkdirSync(join(folder, 'disk.hdd'));
    writeFileSync(join(folder, 'disk.hdd/DiskDescriptor.xml'), document('Parallels_disk_image'));
    const { error } = await attack(folder, 'disk.hdd/DiskDescriptor.xml');
    expect(error?.kind).toBe(kind);
  });
});

describe('a document as large as is read', () => {
  const scratch = scratchFolder('xml-most');
  it.each([
    ['elements', `<a>${'<b/>'.repeat(299_000)}</a>`],
    ['elements with text', `<a>${'<b>c</b>'.repeat(149_000)}</a>`],
    ['attributes', `<a>${'<b c="1" d="2"/>'.repeat(99_000)}</a>`],
    ['text', `<a>${`<b>${'x'.repeat(1.9 * MILLION)}</b>`.repeat(4)}</a>`],
  ])('of %s costs no more than may be', async (_what, text) => {
    await withinBounds(
      fresh(scratch.path),
      async () => void expect(parseXml(text, 'Description', 'web.xml').children.length).toBeGreaterThan(3),
      256 << 20,
    );
  });

  it('with the NULs of its last sector is read', () => {
    expect(parseXml(`<a><b/></a>${'\0'.repeat(501)}`, 'Description', 'web.xml').children).toHaveLength(1);
  });
  it('with long comments and sections is read', () => {
    const text = `<a><!-- ${'<b '.repeat(10_000)} --><c><![CDATA[${'<d>'.repeat(10_000)}]]></c></a>`;
    expect(parseXml(text, 'Description', 'web.xml').children).toHaveLength(1);
  });
});
