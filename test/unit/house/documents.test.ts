import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { fileSystemTypes } from '../../../main/engine/filesystem/file-systems.ts';
import { imageFormats } from '../../../main/engine/image/formats.ts';

const root = resolve(import.meta.dirname, '..', '..', '..');
const text = (path: string): string => readFileSync(join(root, path), 'utf8');
const manifest = JSON.parse(text('package.json')) as {
  version: string;
  devDependencies: Record<string, string>;
  engines: { node: string };
};

/** First column of the table below a heading. */
function firstColumn(document: string, heading: string): string[] {
  const part = document.split(`## ${heading}\n`)[1]!.split('\n## ')[0]!;
  const rows = part.split('\n').filter((line) => line.startsWith('|'));
  return rows.slice(2).map((line) => line.split('|')[1]!.trim());
}

describe('the documents', () => {
  it('list the formats that the registries have, in docs/formats.md', () => {
    const formats = text('docs/formats.md');
    expect(firstColumn(formats, 'Disk images')).toEqual(imageFormats.map(({ name }) => name));
    expect(firstColumn(formats, 'File systems')).toEqual(fileSystemTypes.map(({ name }) => name));
  });

  it('agree on the version', () => {
    expect(/^## (\d+\.\d+\.\d+)/m.exec(text('CHANGELOG.md'))?.[1]).toBe(manifest.version);
  });

  it('name every command of the command line in the README', () => {
    const commands = [...text('main/cli/cli.ts').matchAll(/(?:onSource\(\s*'|\.command\(')([a-z]+)/g)].map(
      (match) => match[1]!,
    );
    expect(commands.length).toBeGreaterThan(10);
    const readme = text('README.md');
    for (const command of commands) expect(readme).toMatch(new RegExp(`chainlift ${command}\\b`));
  });

  it('describe every method of the contract', () => {
    const api = text('preload/api.ts');
    const lines = api
      .slice(api.indexOf('export interface ChainliftApi'), api.indexOf('export interface ShellApi'))
      .split('\n');
    const methods = lines.map((line, at) => ({ name: /^ {2}([a-zA-Z]+)\(/.exec(line)?.[1], above: lines[at - 1]! }));
    const named = methods.filter(({ name }) => name !== undefined);
    expect(named.length).toBeGreaterThan(20);
    for (const { name, above } of named)
      expect({ name, above }).toMatchObject({ above: expect.stringMatching(/\*\/$/) });
  });

  it('pin Electron exactly, and ask for the Node that is tested', () => {
    expect(manifest.devDependencies.electron).toMatch(/^\d+\.\d+\.\d+$/);
    expect(manifest.engines.node).toBe('>=20.19');
  });
});
