/**
 * What any web content of this program may never do, whatever runs in it: leave its page, open windows, embed others, use
 * devices, load from the network, save files by itself. Docs: https://www.electronjs.org/docs/latest/tutorial/security
 */
import type { App, Session, WebContents } from 'electron';
import { isOfPage, scheme } from './page.ts';

/** Applies to every web content from its creation on. */
export function hardenContents(app: App, page: string): void {
  app.on('web-contents-created', (_event, contents: WebContents) => {
    contents.setWindowOpenHandler(() => ({ action: 'deny' }));
    // electron-vite reloads its page by a navigation to itself; the built page never navigates.
    const mayNavigate = (url: string): boolean => page.startsWith('http:') && isOfPage(url, page);
    contents.on('will-navigate', (event) => {
      if (!mayNavigate(event.url)) event.preventDefault();
    });
    contents.on('will-frame-navigate', (event) => {
      if (!event.isMainFrame || !mayNavigate(event.url)) event.preventDefault();
    });
    contents.on('will-redirect', (event) => event.preventDefault());
    contents.on('will-attach-webview', (event) => event.preventDefault());
  });
}

/** Schemes whose requests the page may make besides its own: what it made itself, and Chromium's developer tools. */
const internalSchemes = new Set(['blob:', 'data:', 'devtools:', 'chrome-extension:']);

/** Denies a session every permission, device, download and network request that the window has no use for. */
export function hardenSession(session: Session, page: string): void {
  // Copying an NBD address to the clipboard is the one permission that the window uses; writing text is all it allows.
  const allowed = (permission: string, url: string): boolean =>
    permission === 'clipboard-sanitized-write' && isOfPage(url, page);
  session.setPermissionRequestHandler((_contents, permission, callback, details) =>
    callback(details.isMainFrame && allowed(permission, details.requestingUrl)),
  );
  session.setPermissionCheckHandler((_contents, permission, origin, details) =>
    details.isMainFrame ? allowed(permission, details.requestingUrl ?? origin) : false,
  );
  session.setDevicePermissionHandler(() => false);
  session.on('will-download', (event) => event.preventDefault());
  session.webRequest.onBeforeRequest((details, callback) => {
    const own = URL.canParse(details.url) ? new URL(details.url) : undefined;
    const cancel =
      own === undefined ||
      !(
        own.protocol === `${scheme}:` ||
        internalSchemes.has(own.protocol) ||
        // In development: electron-vite's server and its WebSocket.
        (page.startsWith('http:') && own.host === new URL(page).host)
      );
    callback({ cancel });
  });
}
