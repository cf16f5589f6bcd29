import { type SpawnOptions, spawn } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { DeniedError } from '../../../main/engine/errors.ts';
import { browserCommand, openBrowser } from '../../../main/web/open-browser.ts';

const url = 'http://127.0.0.1:4711/?token=abc_-9';
const display = { DISPLAY: ':0' };

/** A `spawn` that runs a Node program in place of the system's, and notes what it was asked to run. */
function stand(program: string): {
  spawn: typeof spawn;
  calls: { file: string; args: readonly string[]; options: SpawnOptions }[];
} {
  const calls: { file: string; args: readonly string[]; options: SpawnOptions }[] = [];
  const fake = (file: string, args: readonly string[], options: SpawnOptions) => {
    calls.push({ file, args, options });
    return spawn(process.execPath, ['-e', program], { ...options, detached: false });
  };
  return { spawn: fake as unknown as typeof spawn, calls };
}

describe('opening the browser', () => {
  it('runs the system’s opener with the address as one argument and no shell', async () => {
    const { spawn: fake, calls } = stand('process.exit(0)');
    expect(await openBrowser(url, { platform: 'linux', env: display, spawn: fake, patience: 20_000 })).toEqual({
      opened: true,
    });
    expect(calls).toEqual([
      { file: 'xdg-open', args: [url], options: { detached: true, stdio: 'ignore', shell: false, windowsHide: true } },
    ]);
  });

  it('knows the opener of each system', () => {
    expect(browserCommand(url, 'darwin', {})).toEqual({ program: '/usr/bin/open', args: [url] });
    expect(browserCommand(url, 'win32', {})).toEqual({
      program: 'rundll32.exe',
      args: ['url.dll,FileProtocolHandler', url],
    });
    expect(browserCommand('http://[::1]:80/', 'linux', { WAYLAND_DISPLAY: 'wayland-0' })).toEqual({
      program: 'xdg-open',
      args: ['http://[::1]:80/'],
    });
  });

  it('says why none was opened', async () => {
    expect(await openBrowser(url, { platform: 'linux', env: {} })).toEqual({
      opened: false,
      reason: 'there is no display',
    });
    const failing = await openBrowser(url, {
      platform: 'linux',
      env: display,
      spawn: stand('process.exit(3)').spawn,
      patience: 20_000,
    });
    expect(failing).toEqual({ opened: false, reason: 'xdg-open found no browser' });
    const absent = ((_: string, __: string[], options: SpawnOptions) =>
      spawn('/nonexistent/opener', [], options)) as unknown as typeof spawn;
    expect(await openBrowser(url, { platform: 'linux', env: display, spawn: absent })).toEqual({
      opened: false,
      reason: 'xdg-open is not installed',
    });
  });

  it('takes an opener that stays for one that opened', async () => {
    let child: ReturnType<typeof spawn> | undefined;
    const staying = ((_: string, __: string[], options: SpawnOptions) => {
      child = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 60000)'], options);
      return child;
    }) as unknown as typeof spawn;
    expect(await openBrowser(url, { platform: 'linux', env: display, spawn: staying, patience: 50 })).toEqual({
      opened: true,
    });
    child?.kill();
  });

  it.each([
    'https://example.org/',
    'http://127.0.0.1:80@example.org/',
    'http://localhost:80/',
    'http://127.0.0.1:80/other',
    'http://127.0.0.1:80/?token=a b',
    'http://127.0.0.1:80/?token=a&calc.exe',
    'http://127.0.0.1:99999/',
    'file:///etc/passwd',
    '--version',
    'http://127.0.0.1:80/\n',
  ])('refuses %j', async (address) => {
    await expect(openBrowser(address, { platform: 'linux', env: display })).rejects.toThrow(DeniedError);
  });
});
