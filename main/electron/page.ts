/**
 * The window's page: where it comes from, and who may claim to be it.
 *
 * It is served by our own scheme `chainlift://app/`, never from `file:`, which has privileges a page must not have. In
 * development alone, electron-vite's server takes its place.
 */
import { protocol, type Session } from 'electron';
import { IoError } from '../engine/errors.ts';
import { contentSecurityPolicy, RendererFiles } from '../web/renderer-files.ts';
import { warn } from './log.ts';

export const scheme = 'chainlift';
export const pageUrl = `${scheme}://app/`;

/**
 * The address of the page: our own, or electron-vite's server when this is not a packaged program and that server is on
 * this computer.
 */
export function pageAddress(packaged: boolean, env: NodeJS.ProcessEnv): string {
  const development = env.ELECTRON_RENDERER_URL;
  if (packaged || development === undefined || !URL.canParse(development)) return pageUrl;
  const url = new URL(development);
  const local = url.hostname === 'localhost' || url.hostname === '127.0.0.1' || url.hostname === '[::1]';
  return url.protocol === 'http:' && local ? url.href : pageUrl;
}

/** Whether `url` is of the page at `page`: same scheme, host and port. */
export function isOfPage(url: string, page: string): boolean {
  if (!URL.canParse(url)) return false;
  const one = new URL(url);
  const other = new URL(page);
  // `origin` is "null" for schemes that Node's URL does not know, so it can't be compared.
  return one.protocol === other.protocol && one.host === other.host && one.username === '' && one.password === '';
}

/** Announces the scheme to Chromium. Must be called before the app is ready. */
export function registerScheme(): void {
  protocol.registerSchemesAsPrivileged([
    { scheme, privileges: { standard: true, secure: true, supportFetchAPI: true } },
  ]);
}

/** Serves the built window at `chainlift://app/`. @throws IoError when the window has not been built. */
export function servePage(session: Session, rendererFolder: string): void {
  const files = new RendererFiles(rendererFolder);
  session.protocol.handle(scheme, (request) => answerPage(files, request));
}

const headers = {
  'Content-Security-Policy': contentSecurityPolicy(),
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cache-Control': 'no-store',
};

/** Answers a request of the page's scheme. Nothing but GET of a file of the build has an answer. */
export async function answerPage(
  files: RendererFiles,
  request: { readonly method: string; readonly url: string },
): Promise<Response> {
  const refuse = (status: number): Response => new Response(null, { status, headers });
  if (request.method !== 'GET') return refuse(405);
  if (!isOfPage(request.url, pageUrl)) return refuse(404);
  try {
    const file = await files.get(new URL(request.url).pathname);
    if (file === undefined) return refuse(404);
    return new Response(file.bytes, { headers: { ...headers, 'Content-Type': file.type } });
  } catch (error) {
    if (!(error instanceof IoError)) throw error;
    warn(error.message);
    return refuse(500);
  }
}
