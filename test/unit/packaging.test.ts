/** electron-builder.yml against electron-builder's own schema, and against what the build makes. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, matchesGlob } from 'node:path';
import { inflateSync } from 'node:zlib';
import { Ajv } from 'ajv';
import { describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '..', '..');
const read = (path: string): string => readFileSync(join(root, path), 'utf8');

interface Configuration {
  appId: string;
  directories: { buildResources: string; output: string };
  icon: string;
  files: string[];
  asar: boolean;
  asarUnpack: string[];
  electronFuses: Record<string, boolean>;
  linux: Record<string, unknown>;
  win: Record<string, unknown>;
  mac: Record<string, unknown>;
  extraMetadata: Record<string, unknown>;
}

const required = createRequire(import.meta.url);
const builder = required.resolve('app-builder-lib/package.json');
// The YAML parser that electron-builder itself reads the file with.
const yaml = createRequire(builder)('js-yaml') as { load(text: string): unknown };
const configuration = yaml.load(read('electron-builder.yml')) as Configuration;
const schema = JSON.parse(readFileSync(join(builder, '..', 'scheme.json'), 'utf8')) as object;
const validate = new Ajv({ strict: false, allErrors: true }).compile(schema);

const manifest = JSON.parse(read('package.json')) as {
  main: string;
  type: string;
  author: string;
  homepage: string;
  description: string;
  dependencies?: Record<string, string>;
  devDependencies: Record<string, string>;
};

describe('electron-builder.yml', () => {
  it('is what electron-builder’s schema allows', () => {
    expect(validate(configuration), JSON.stringify(validate.errors)).toBe(true);
  });

  it.each<[string, object]>([
    ['an unknown option', { ...configuration, asarUnpacked: [] }],
    ['an unknown fuse', { ...configuration, electronFuses: { runAsNodes: false } }],
    ['a wrong type', { ...configuration, asarUnpack: 7 }],
    ['an unknown option of a system', { ...configuration, linux: { ...configuration.linux, categorie: 'System' } }],
  ])('would not pass with %s', (_, changed) => {
    expect(validate(changed)).toBe(false);
  });

  it('makes AppImage and deb, nsis and dmg', () => {
    expect(configuration.linux).toMatchObject({ target: ['AppImage', 'deb'], category: 'System' });
    expect(configuration.linux.maintainer).toMatch(/^.+ <.+@.+>$/);
    expect(configuration.linux.synopsis).toBeTruthy();
    expect(configuration.win.target).toEqual(['nsis']);
    expect(configuration.mac).toMatchObject({
      target: ['dmg'],
      hardenedRuntime: true,
      category: expect.stringContaining('public.app-category.'),
    });
    // What fpm and the installers take from package.json.
    expect(manifest.author).toMatch(/^.+ <.+@.+>$/);
    expect(manifest.homepage).toBeTruthy();
    expect(manifest.description.length).toBeGreaterThan(20);
  });

  it('burns in every fuse that keeps other code out', () => {
    expect(configuration.electronFuses).toEqual({
      runAsNode: false,
      enableCookieEncryption: true,
      enableNodeOptionsEnvironmentVariable: false,
      enableNodeCliInspectArguments: false,
      enableEmbeddedAsarIntegrityValidation: true,
      onlyLoadAppFromAsar: true,
      grantFileProtocolExtraPrivileges: false,
    });
    // Without an archive the last two would leave a program that does not start.
    expect(configuration.asar).toBe(true);
  });

  it('names the application as the program names itself', () => {
    expect(read('main/electron/desktop.ts')).toContain(`'${configuration.appId}'`);
  });

  it('has an icon large enough for every system', () => {
    const png = readFileSync(join(root, configuration.icon));
    expect(configuration.icon.startsWith(`${configuration.directories.buildResources}/`)).toBe(true);
    expect(png.subarray(1, 4).toString('latin1')).toBe('PNG');
    expect(png.subarray(12, 16).toString('latin1')).toBe('IHDR');
    const [width, height] = [png.readUInt32BE(16), png.readUInt32BE(20)];
    expect([width, height]).toEqual([1024, 1024]);
    const length = png.readUInt32BE(33);
    expect(inflateSync(png.subarray(41, 41 + length)).length).toBe(height * (width * 4 + 1));
  });
});

describe('what is packaged', () => {
  const build = read('electron.vite.config.ts');
  /** Entry name -> source, as the build configuration has them. */
  const entries = new Map(
    [...build.matchAll(/^\s*'?([\w-]+)'?: at\('(main\/[^']+\.ts)'\),?$/gm)].map((match) => [
      match[1] ?? '',
      match[2] ?? '',
    ]),
  );
  const outputs = [...entries.keys()].map((name) => `out/main/${name}.js`);

  it('knows the build’s entries', () => {
    expect(build).toContain("entryFileNames: '[name].js'");
    expect(build).toContain("outDir: 'out/main'");
    expect(entries.get('electron')).toBe('main/electron/electron.ts');
    expect(entries.get('engine-process')).toBe('main/electron/engine-process.ts');
    for (const source of entries.values())
      if (source.startsWith('main/electron/')) expect(existsSync(join(root, source)), source).toBe(true);
  });

  it('is what was built, the demo and package.json, whose entry is built', () => {
    expect(configuration.files.filter((pattern) => !pattern.startsWith('!'))).toEqual([
      'out/**/*',
      'package.json',
      'resources/demo/*.gz',
    ]);
    expect(readdirSync(join(root, 'resources', 'demo')).filter((name) => name.endsWith('.gz')).length).toBeGreaterThan(
      0,
    );
    expect(outputs).toContain(manifest.main);
    for (const output of outputs) expect(matchesGlob(output, 'out/**/*'), output).toBe(true);
  });

  it('has the workers outside the archive with all that they need', () => {
    const { asarUnpack } = configuration;
    for (const pattern of asarUnpack.filter((one) => one.startsWith('out/main/') && !one.includes('*'))) {
      expect(outputs, pattern).toContain(pattern);
    }
    expect(asarUnpack).toContain('out/main/data-worker.js');
    expect(asarUnpack).toContain('out/main/disk-worker.js');
    // Their imports, and the "type" that makes it an ES module.
    const chunks = /chunkFileNames: '([^']+)'/.exec(build)?.[1]?.replace(/\[\w+\]/g, 'x');
    expect(chunks).toBeDefined();
    expect(asarUnpack.some((pattern) => matchesGlob(`out/main/${chunks}`, pattern))).toBe(true);
    expect(manifest.type).toBe('module');
    expect(asarUnpack).toContain('package.json');
    expect(asarUnpack.some((pattern) => matchesGlob('out/main/decompress.wasm', pattern))).toBe(true);
  });

  it('has the preload script where the window looks for it', () => {
    expect(build).toContain("outDir: 'out/preload'");
    expect(build).toMatch(/format: 'cjs', entryFileNames: '\[name\]\.cjs'/);
    expect(build).toMatch(/input: \{ bridge: at\('preload\/bridge\/bridge\.ts'\) \}/);
    expect(read('main/electron/desktop.ts')).toContain("'preload', 'bridge.cjs'");
  });

  it('needs nothing of node_modules, and pins Electron exactly', () => {
    expect(manifest.dependencies ?? {}).toEqual({});
    expect(manifest.devDependencies.electron).toMatch(/^\d+\.\d+\.\d+$/);
    const lock = JSON.parse(read('package-lock.json')) as { packages: Record<string, { version: string }> };
    expect(lock.packages['node_modules/electron']?.version).toBe(manifest.devDependencies.electron);
  });
});
