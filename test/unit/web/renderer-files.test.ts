import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { IoError } from '../../../main/engine/errors.ts';
import { contentSecurityPolicy, RendererFiles } from '../../../main/web/renderer-files.ts';
import { scratchFolder } from '../../support/scratch.ts';

describe('the window’s files', () => {
  const scratch = scratchFolder('renderer-files');
  let files: RendererFiles;
  beforeAll(() => {
    const root = join(scratch.path, 'renderer');
    mkdirSync(join(root, 'assets'), { recursive: true });
    writeFileSync(join(scratch.path, 'secret.js'), 'secret');
    writeFileSync(join(root, 'index.html'), '<html></html>');
    writeFileSync(join(root, '.env'), 'secret');
    writeFileSync(join(root, '.hidden.js'), 'secret');
    writeFileSync(join(root, 'program.exe'), 'MZ');
    writeFileSync(join(root, 'assets', 'index-a1.js'), 'run()');
    writeFileSync(join(root, 'assets', 'ü b.css'), 'a{}');
    symlinkSync(join(scratch.path, 'secret.js'), join(root, 'assets', 'link.js'));
    symlinkSync(scratch.path, join(root, 'up'));
    files = new RendererFiles(root);
  });

  it('answers with what was built and its type', async () => {
    expect((await files.get('/'))?.type).toBe('text/html; charset=utf-8');
    expect((await files.get('/index.html'))?.type).toBe('text/html; charset=utf-8');
    const script = await files.get('/assets/index-a1.js');
    expect(script?.type).toBe('text/javascript; charset=utf-8');
    expect(Buffer.from(script?.bytes ?? []).toString()).toBe('run()');
    expect((await files.get('/assets/%C3%BC%20b.css'))?.type).toBe('text/css; charset=utf-8');
  });

  it.each([
    '/../secret.js',
    '/%2e%2e/secret.js',
    '/..%2fsecret.js',
    '/assets/..%2F..%2Fsecret.js',
    '/assets\\..\\..\\secret.js',
    '/assets/%00index-a1.js',
    '/assets/index-a1.js%00.css',
    '//index.html',
    '/assets/../index.html',
    '/assets/',
    '/assets',
    '/assets/link.js',
    '/up/secret.js',
    '/.env',
    '/.hidden.js',
    '/program.exe',
    '/%',
    '/%ff',
    '',
    'index.html',
    '/__proto__',
    '/etc/passwd',
    '/C:/Windows/win.ini',
  ])('has nothing at %j', async (path) => {
    expect(await files.get(path)).toBeUndefined();
  });

  it('refuses a folder that is not there or was not built', () => {
    expect(() => new RendererFiles(join(scratch.path, 'absent'))).toThrow(IoError);
    mkdirSync(join(scratch.path, 'empty'));
    expect(() => new RendererFiles(join(scratch.path, 'empty'))).toThrow(/has not been built/);
  });
});

describe('the policy of the page', () => {
  it('allows own content only, and no inline script, evaluation, frame, form or plug-in', () => {
    const policy = new Map(
      contentSecurityPolicy(['ws://127.0.0.1:1'])
        .split('; ')
        .map((directive) => [directive.slice(0, directive.indexOf(' ')), directive.slice(directive.indexOf(' ') + 1)]),
    );
    expect(policy.get('default-src')).toBe("'none'");
    expect(policy.get('script-src')).toBe("'self'");
    expect(policy.get('style-src')).toBe("'self'");
    expect(policy.get('img-src')).toBe("'self' blob:");
    expect(policy.get('connect-src')).toBe("'self' ws://127.0.0.1:1");
    for (const name of ['base-uri', 'form-action', 'frame-ancestors']) expect(policy.get(name)).toBe("'none'");
    expect([...policy.values()].join(' ')).not.toMatch(/unsafe|\*|data:|http/);
    expect(contentSecurityPolicy()).toContain("connect-src 'self';");
  });
});
