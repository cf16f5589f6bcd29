import type { ShellApi } from '../api.ts';

/** What the preload script puts on `window.chainlift` in Electron. */
export interface BridgeApi extends ShellApi {
  readonly kind: 'electron';
  /**
   * Asks the shell for a fresh MessagePort to the engine. It arrives as a `message` event of the window whose data is
   * `PORT_MESSAGE` and whose only port is the channel for `portChannel`.
   */
  readonly connect: () => void;
}

/** Data of the window's `message` event that brings the port. */
export const PORT_MESSAGE = 'chainlift:port';
