/** Electron's ports as a carrier of the contract. */
import type { MessagePortMain } from 'electron';
import { type Channel, portChannel } from '../../preload/rpc.ts';

/** A channel over a port of the main process or of the engine process. */
export function electronChannel(port: MessagePortMain): Channel {
  return portChannel({
    postMessage: (message) => port.postMessage(message),
    start: () => port.start(),
    close: () => port.close(),
    // Electron types its listeners per event; the channel takes what each event brings.
    on: (type, listener) => port.on(type as 'message', listener as (event: unknown) => void),
  });
}
