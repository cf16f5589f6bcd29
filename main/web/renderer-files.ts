/**
 * The window's built files (out/renderer) for both shells, and the Content-Security-Policy they run under.
 *
 * Confinement is by construction: the folder is listed once, and a request is answered only when its path is, character
 * for character, one that the listing made. No request ever becomes a path of the file system, so there is nothing for
 * `..`, encoded separators, drive letters or symbolic links to act on.
 */
import { readdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { IoError } from '../engine/errors.ts';

/** What the build can put into out/renderer. A file with another ending is not served. */
const mimeTypes: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.jpg': 'image/jpeg',
  '.webp': 'image/webp',
  '.ico': 'image/x-icon',
  '.woff2': 'font/woff2',
  '.woff': 'font/woff',
  '.wasm': 'application/wasm',
  '.txt': 'text/plain; charset=utf-8',
};

const maxDepth = 8;
const maxFiles = 10_000;

export interface RendererFile {
  readonly type: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** The policy of the page. `connect` are the sources it may talk to besides its own origin. */
export function contentSecurityPolicy(connect: readonly string[] = []): string {
  return [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' blob:",
    "font-src 'self'",
    ["connect-src 'self'", ...connect].join(' '),
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join('; ');
}

export class RendererFiles {
  readonly #files = new Map<string, { path: string; type: string }>();

  /** Lists `folder`. @throws IoError when it can't be read or has no index.html (it was not built). */
  constructor(folder: string) {
    try {
      this.#add(folder, '', 0);
    } catch (error) {
      throw new IoError('The window’s files cannot be read', { folder }, error);
    }
    if (!this.#files.has('/index.html')) {
      throw new IoError('The window has not been built (npm run build makes it)', { folder });
    }
  }

  #add(folder: string, url: string, depth: number): void {
    if (depth > maxDepth) return;
    // Not `recursive: true`: inside an asar archive Electron answers plain listings only.
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      if (entry.name.startsWith('.')) continue;
      const path = join(folder, entry.name);
      if (entry.isDirectory()) {
        this.#add(path, `${url}/${entry.name}`, depth + 1);
      } else if (entry.isFile() && this.#files.size < maxFiles) {
        const type = mimeTypes[extname(entry.name).toLowerCase()];
        if (type !== undefined) this.#files.set(`${url}/${entry.name}`, { path, type });
      }
    }
  }

  /**
   * The file that a URL's path (percent-encoded, as `URL.pathname` has it) names; `/` is index.html. Undefined when there is none.
   * @throws IoError when it is there and can't be read.
   */
  async get(pathname: string): Promise<RendererFile | undefined> {
    let name: string;
    try {
      name = decodeURIComponent(pathname);
    } catch {
      return undefined; // Not valid percent-encoding: no file has such a name.
    }
    const file = this.#files.get(name === '/' ? '/index.html' : name);
    if (file === undefined) return undefined;
    try {
      return { type: file.type, bytes: new Uint8Array(await readFile(file.path)) };
    } catch (error) {
      throw new IoError('A file of the window cannot be read', { file: name }, error);
    }
  }
}
