/**
 * Opens the system's browser on the browser shell. Only a URL of our own shape is ever handed to another program, as one
 * argument and never through a command interpreter.
 */
import { spawn } from 'node:child_process';
import { DeniedError } from '../engine/errors.ts';

export interface BrowserLaunch {
  readonly opened: boolean;
  /** Why no browser was opened, as a clause. */
  readonly reason?: string;
}

/** What the launch depends on; the defaults are this process's. */
export interface LaunchContext {
  readonly platform?: NodeJS.Platform;
  readonly env?: NodeJS.ProcessEnv;
  readonly spawn?: typeof spawn;
  /** Milliseconds after which a program that still runs counts as having opened a browser. */
  readonly patience?: number;
}

const launchPatience = 2_000;

/** `http://127.0.0.1:PORT/` or `http://[::1]:PORT/`, with nothing but a token. */
const ownUrl = /^http:\/\/(127(\.\d{1,3}){3}|\[::1\]):\d{1,5}\/(\?token=[A-Za-z0-9_-]+)?$/;

/** The program and its arguments that open `url`, or why there is none. */
export function browserCommand(
  url: string,
  platform: NodeJS.Platform,
  env: NodeJS.ProcessEnv,
): { program: string; args: string[] } | { reason: string } {
  if (!ownUrl.test(url) || !URL.canParse(url)) {
    throw new DeniedError('Opening a browser', 'the address is not one of this program', {});
  }
  // `start` is a word of cmd.exe, which would read the address as a command line; this is what it does underneath.
  if (platform === 'win32') return { program: 'rundll32.exe', args: ['url.dll,FileProtocolHandler', url] };
  if (platform === 'darwin') return { program: '/usr/bin/open', args: [url] };
  if (!env.DISPLAY && !env.WAYLAND_DISPLAY) return { reason: 'there is no display' };
  return { program: 'xdg-open', args: [url] };
}

/**
 * Opens `url` in the system's browser and does not wait for it to be closed.
 * @returns whether a browser program could be started. @throws DeniedError for any address but the browser shell's own.
 */
export async function openBrowser(url: string, context: LaunchContext = {}): Promise<BrowserLaunch> {
  const command = browserCommand(url, context.platform ?? process.platform, context.env ?? process.env);
  if ('reason' in command) return { opened: false, reason: command.reason };
  const start = context.spawn ?? spawn;
  return new Promise((resolve) => {
    const child = start(command.program, command.args, {
      detached: true,
      stdio: 'ignore',
      shell: false,
      windowsHide: true,
    });
    // These programs end as soon as a browser has been told, or (xdg-open with some browsers) stay until it is closed.
    const stays = setTimeout(() => settle({ opened: true }), context.patience ?? launchPatience);
    const settle = (launch: BrowserLaunch): void => {
      clearTimeout(stays);
      child.unref();
      resolve(launch);
    };
    child.once('error', (error: NodeJS.ErrnoException) => {
      settle({
        opened: false,
        reason: error.code === 'ENOENT' ? `${command.program} is not installed` : error.message,
      });
    });
    child.once('exit', (code) => {
      settle(code === 0 ? { opened: true } : { opened: false, reason: `${command.program} found no browser` });
    });
  });
}
