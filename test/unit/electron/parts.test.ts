/** The small parts of the desktop shell: command line, window bounds, page address, menu, drag icon. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { inflateSync } from 'node:zlib';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { sourceOf } from '../../../main/electron/command-line.ts';
import { dragIcon } from '../../../main/electron/drag-icon.ts';
import { menuTemplate } from '../../../main/electron/menu.ts';
import { isOfPage, pageAddress } from '../../../main/electron/page.ts';
import { loadBounds, placeWindow, saveBounds } from '../../../main/electron/window-bounds.ts';
import { scratchFolder } from '../../support/scratch.ts';

vi.mock('electron', () => import('./fake-electron.ts'));

describe('the command line of the desktop shell', () => {
  it.each<[string[], boolean, string | undefined]>([
    [['chainlift'], true, undefined],
    [['chainlift', '/b'], true, '/b'],
    [['chainlift', 'web01'], true, '/work/web01'],
    [['chainlift', '.'], true, '/work'],
    [['chainlift', '--no-sandbox', '--ozone-platform=x11', '../b', '/c'], true, '/b'],
    [['chainlift', '--', '--odd'], true, '/work/--odd'],
    [['chainlift', '--', '--'], true, '/work/--'],
    [['chainlift', ''], true, undefined],
    [['chainlift', 'a\0b'], true, undefined],
    [['electron', '.'], false, undefined],
    [['electron', '.', '/b'], false, '/b'],
    [['electron', '--inspect=0', '/app', '--x', '/b'], false, '/b'],
    [['electron'], false, undefined],
  ])('%j (packaged: %s) opens %j', (argv, packaged, source) => {
    expect(sourceOf(argv, '/work', packaged)).toBe(source);
  });
});

describe('where the window opens', () => {
  const scratch = scratchFolder('bounds');
  const screens = [
    { x: 0, y: 25, width: 1920, height: 1055 },
    { x: 1920, y: 0, width: 1280, height: 1024 },
  ];
  const bounds = { x: 100, y: 100, width: 1000, height: 700, maximized: false };
  afterEach(() => vi.restoreAllMocks());

  it.each([
    ['where it was', bounds, { x: 100, y: 100, width: 1000, height: 700 }],
    ['on the second screen', { ...bounds, x: 2000 }, { x: 2000, y: 100, width: 1000, height: 700 }],
    ['across both', { ...bounds, x: 1700 }, { x: 1700, y: 100, width: 1000, height: 700 }],
    ['elsewhere when its screen is gone', { ...bounds, x: 4000 }, { width: 1000, height: 700 }],
    ['elsewhere when only an edge would show', { ...bounds, x: -950 }, { width: 1000, height: 700 }],
    ['elsewhere when its title is above the screen', { ...bounds, y: -300 }, { width: 1000, height: 700 }],
    ['elsewhere when its title is below the screen', { ...bounds, y: 1050 }, { width: 1000, height: 700 }],
    ['no larger than a screen', { ...bounds, x: 9000, width: 5000, height: 5000 }, { width: 1920, height: 1055 }],
    ['no smaller than can be used', { ...bounds, width: 10, height: 10 }, { x: 100, y: 100, width: 860, height: 560 }],
    ['in its default size at first', undefined, { width: 1280, height: 820 }],
  ])('%s', (_, was, place) => {
    expect(placeWindow(was, screens)).toEqual(place);
  });

  it('is kept in a file, and a file that makes no sense is the default', () => {
    const said = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
    const file = join(scratch.path, 'window.json');
    expect(loadBounds(file)).toBeUndefined();
    expect(said).not.toHaveBeenCalled();
    saveBounds(file, bounds);
    expect(loadBounds(file)).toEqual(bounds);
    for (const text of [
      '',
      '{}',
      'null',
      '{"x":1e99,"y":0,"width":1,"height":1,"maximized":false}',
      `${JSON.stringify(bounds)}x`,
    ]) {
      writeFileSync(file, text);
      expect(loadBounds(file), text).toBeUndefined();
    }
    expect(said).toHaveBeenCalledTimes(5);
    mkdirSync(join(scratch.path, 'folder'));
    expect(loadBounds(join(scratch.path, 'folder'))).toBeUndefined();
    saveBounds(join(scratch.path, 'absent', 'window.json'), bounds);
    expect(said).toHaveBeenCalledTimes(7);
  });
});

describe('the page', () => {
  it('is electron-vite’s only in development on this computer', () => {
    const of = (url: string | undefined, packaged = false) =>
      pageAddress(packaged, url === undefined ? {} : { ELECTRON_RENDERER_URL: url });
    expect(of('http://localhost:5173')).toBe('http://localhost:5173/');
    expect(of('http://127.0.0.1:5173/')).toBe('http://127.0.0.1:5173/');
    for (const url of [undefined, 'http://example.org/', 'https://localhost/', 'file:///a', 'nonsense'])
      expect(of(url)).toBe('chainlift://app/');
    expect(of('http://localhost:5173', true)).toBe('chainlift://app/');
  });

  it('is recognised by scheme, host and port', () => {
    expect(isOfPage('chainlift://app/index.html#x', 'chainlift://app/')).toBe(true);
    for (const url of [
      'chainlift://app:80/',
      'chainlift://app.evil/',
      'chainlift://a@app/',
      'http://app/',
      'chainlift:app',
      '',
      'about:blank',
    ]) {
      expect(isOfPage(url, 'chainlift://app/'), url).toBe(false);
    }
    expect(isOfPage('http://localhost:5174/', 'http://localhost:5173/')).toBe(false);
  });
});

describe('the menu', () => {
  it('has what each system expects, and developer tools in development only', () => {
    const roles = (platform: NodeJS.Platform, development: boolean): string[] =>
      menuTemplate(platform, development, { openFolder: () => undefined }).flatMap((item) => [
        item.role ?? '',
        ...(Array.isArray(item.submenu) ? item.submenu.map((inner) => inner.role ?? inner.id ?? '') : []),
      ]);
    for (const platform of ['linux', 'win32', 'darwin'] as const) {
      expect(roles(platform, false)).toEqual(
        expect.arrayContaining(['open-folder', 'editMenu', 'windowMenu', 'zoomIn', 'togglefullscreen']),
      );
      expect(roles(platform, false)).not.toEqual(expect.arrayContaining(['toggleDevTools']));
      expect(roles(platform, true)).toEqual(expect.arrayContaining(['toggleDevTools', 'reload']));
    }
    expect(roles('darwin', false)).toEqual(expect.arrayContaining(['appMenu', 'recentDocuments', 'close']));
    expect(roles('linux', false)).toEqual(expect.arrayContaining(['quit', 'about']));
  });
});

describe('the icons', () => {
  /** Rows of a PNG as they were compressed: what compresses differs between versions of zlib, what was compressed does not. */
  function rows(png: Buffer): Buffer {
    const at = png.indexOf('IDAT');
    return inflateSync(png.subarray(at + 4, at + 4 + png.readUInt32BE(at - 4)));
  }

  it('are what their generator draws', async () => {
    const folder = join(import.meta.dirname, '..', '..', '..', 'build');
    const icons = (await import(join(folder, 'make-icons.mjs'))) as {
      drawIcon(size: number): Buffer;
      encodePng(pixels: Buffer, size: number): Buffer;
      readonly iconSize: number;
      readonly dragIconSize: number;
    };
    const draw = (size: number): Buffer => icons.encodePng(icons.drawIcon(size), size);
    expect(rows(readFileSync(join(folder, 'icon.png'))).equals(rows(draw(icons.iconSize)))).toBe(true);
    const prefix = 'data:image/png;base64,';
    expect(dragIcon.startsWith(prefix)).toBe(true);
    const drag = Buffer.from(dragIcon.slice(prefix.length), 'base64');
    expect(rows(drag).equals(rows(draw(icons.dragIconSize)))).toBe(true);
  });
});
