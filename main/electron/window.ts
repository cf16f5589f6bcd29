/** The one window. */
import { BrowserWindow, screen } from 'electron';
import { loadBounds, minimumSize, placeWindow, saveBounds } from './window-bounds.ts';

export interface WindowOptions {
  /** Address of the page. */
  readonly page: string;
  /** The built preload script. */
  readonly preload: string;
  readonly boundsFile: string;
  readonly developerTools: boolean;
  /** Asked when the window is about to close; false keeps it open. */
  readonly mayClose: () => boolean;
}

/** Makes the window, which shows itself when its page has been drawn. */
export function createWindow(options: WindowOptions): BrowserWindow {
  const bounds = loadBounds(options.boundsFile);
  const window = new BrowserWindow({
    ...placeWindow(
      bounds,
      screen.getAllDisplays().map((display) => display.workArea),
    ),
    minWidth: minimumSize.width,
    minHeight: minimumSize.height,
    show: false,
    title: 'Chainlift',
    webPreferences: {
      preload: options.preload,
      contextIsolation: true,
      sandbox: true,
      nodeIntegration: false,
      nodeIntegrationInWorker: false,
      nodeIntegrationInSubFrames: false,
      webSecurity: true,
      allowRunningInsecureContent: false,
      experimentalFeatures: false,
      webviewTag: false,
      navigateOnDragDrop: false,
      safeDialogs: true,
      spellcheck: false,
      devTools: options.developerTools,
    },
  });
  window.once('ready-to-show', () => {
    if (bounds?.maximized === true) window.maximize();
    else window.show();
  });
  window.on('close', (event) => {
    if (!options.mayClose()) {
      event.preventDefault();
      return;
    }
    // Normal bounds: those it goes back to when it is maximised or full screen now.
    saveBounds(options.boundsFile, { ...window.getNormalBounds(), maximized: window.isMaximized() });
  });
  return window;
}
