/**
 * The preload script of the Electron window. It runs sandboxed, in its own context, and gives the page named functions only:
 * no channel name and no IPC object ever reaches the page.
 *
 * Channels, and what the main process does with each (it checks the sender's frame on every one, and the arguments with
 * `targetSchema` and friends of `schemas.ts`):
 *
 *   chainlift:initial-source  sendSync  -> returnValue: string | undefined    the source to open first
 *   chainlift:choose-folder   invoke    ('open' | 'copy-to' | 'locate') -> string | undefined
 *   chainlift:start-drag      invoke    (target: Target, paths: string[])     stages, then webContents.startDrag -> DragOutcome
 *   chainlift:reveal          invoke    (path: string)                        shell.showItemInFolder
 *   chainlift:port            send      ()                                    asks for a port to the engine, at first and
 *                                                                             after the engine was lost
 *   chainlift:port            <- webContents.postMessage('chainlift:port', null, [port]) (or senderFrame.postMessage)
 *                                                                             the answer
 *
 * Every `invoke` is answered with `Outcome`, data whether it went well or not.
 */
import { contextBridge, ipcRenderer } from 'electron';
import type { DragOutcome, WireError } from '../api.ts';
import type { BridgeApi } from './bridge-api.ts';
import { PORT_MESSAGE } from './bridge-api.ts';

ipcRenderer.on('chainlift:port', (event) => {
  // A port can't cross the context bridge, only be transferred to the page's own window. The page's origin is `null` under
  // file:, which no target origin but `*` matches; the receiver is this very window.
  window.postMessage(PORT_MESSAGE, '*', [...event.ports]);
});

/** What the main process answers with: errors come as data, for Electron carries only an error's message. */
type Outcome<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: WireError };

/** Invokes the main process. Rejects with a `WireError`: a plain object, the one kind of rejection that crosses the context bridge whole. */
async function ask<T>(channel: string, ...args: unknown[]): Promise<T> {
  const outcome = (await ipcRenderer.invoke(channel, ...args)) as Outcome<T>;
  return outcome.ok ? outcome.value : Promise.reject(outcome.error);
}

const bridge = {
  kind: 'electron',
  platform: process.platform,
  initialSource: ipcRenderer.sendSync('chainlift:initial-source') as string | undefined,
  chooseFolder: (purpose) => ask<string | undefined>('chainlift:choose-folder', purpose),
  startDrag: (target, paths) => ask<DragOutcome>('chainlift:start-drag', target, paths),
  reveal: (path) => ask<void>('chainlift:reveal', path),
  connect: () => ipcRenderer.send('chainlift:port'),
} satisfies BridgeApi;

contextBridge.exposeInMainWorld('chainlift', bridge);
