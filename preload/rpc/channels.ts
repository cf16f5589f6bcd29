/** Carriers: a MessagePort of any of the four kinds there are, and a WebSocket of a browser or of the `ws` package. */
import type { Channel } from './protocol.ts';
import { MAX_MESSAGE_CHARACTERS } from './protocol.ts';

/** Takes a message's event; of a close event nothing is looked at. */
type Listener = (event: { readonly data: unknown }) => void;

/** A DOM MessagePort, or Node's from `worker_threads`. */
interface TargetPort {
  postMessage(message: unknown): void;
  start?(): void;
  close(): void;
  addEventListener(type: string, listener: (event: { readonly data: unknown }) => void): void;
}
/** Electron's MessagePortMain, in the main process and in utility processes. */
interface EmitterPort {
  postMessage(message: unknown): void;
  start(): void;
  close(): void;
  on(type: string, listener: (event: { readonly data: unknown }) => void): unknown;
}
export type PortLike = TargetPort | EmitterPort;

/** What is common to a browser's WebSocket and that of `ws`. It must be open already. */
export interface SocketLike {
  send(text: string): void;
  close(code?: number, reason?: string): void;
  addEventListener(type: 'message' | 'close', listener: (event: { readonly data: unknown }) => void): void;
}

/** State shared by the carriers: one message handler, and a close that is told once. */
class Ends {
  closed = false;
  handler: ((message: unknown) => void) | undefined;
  private readonly onClose: (() => void)[] = [];

  deliver(message: unknown): void {
    if (!this.closed) this.handler?.(message);
  }

  whenClosed(handler: () => void): void {
    if (this.closed) handler();
    else this.onClose.push(handler);
  }

  end(): void {
    if (this.closed) return;
    this.closed = true;
    for (const handler of this.onClose.splice(0)) handler();
  }
}

/** A channel over a MessagePort. Values cross by structured clone, bytes as they are. */
export function portChannel(port: PortLike): Channel {
  const ends = new Ends();
  const onMessage: Listener = (event) => ends.deliver(event.data);
  const onClose = () => ends.end();
  if ('addEventListener' in port) {
    port.addEventListener('message', onMessage);
    port.addEventListener('close', onClose);
  } else {
    port.on('message', onMessage);
    port.on('close', onClose);
  }
  return {
    send(message) {
      if (!ends.closed) port.postMessage(message);
    },
    onMessage(handler) {
      ends.handler = handler;
      port.start?.();
    },
    onClose: (handler) => ends.whenClosed(handler),
    close() {
      port.close();
      ends.end();
    },
  };
}

/** WebSocket close codes of RFC 6455 section 7.4.1. */
const UNACCEPTABLE_DATA = 1003;
const MESSAGE_TOO_BIG = 1009;

/**
 * A channel over an open WebSocket. Messages are JSON text; bytes occur only as an item of a stream and travel as
 * `{"$bytes": base64}`. A message that is too long, binary or not JSON closes the socket: the other side is not ours.
 */
export function jsonChannel(socket: SocketLike): Channel {
  const ends = new Ends();
  const refuse = (code: number, reason: string) => {
    socket.close(code, reason);
    ends.end();
  };
  const onMessage: Listener = ({ data }) => {
    if (ends.closed) return;
    if (typeof data !== 'string') return refuse(UNACCEPTABLE_DATA, 'text only');
    if (data.length > MAX_MESSAGE_CHARACTERS) return refuse(MESSAGE_TOO_BIG, 'message too long');
    let message: unknown;
    try {
      message = decode(data);
    } catch {
      return refuse(UNACCEPTABLE_DATA, 'not JSON');
    }
    ends.deliver(message);
  };
  socket.addEventListener('message', onMessage);
  socket.addEventListener('close', () => ends.end());
  return {
    send(message) {
      if (ends.closed) return;
      const text = encode(message);
      if (text.length > MAX_MESSAGE_CHARACTERS)
        throw new RangeError(`A message of ${text.length} characters is too long`);
      socket.send(text);
    },
    onMessage(handler) {
      ends.handler = handler;
    },
    onClose: (handler) => ends.whenClosed(handler),
    close() {
      socket.close();
      ends.end();
    },
  };
}

function encode(message: unknown): string {
  if (isItem(message) && message.value instanceof Uint8Array) {
    return JSON.stringify({ ...message, value: { $bytes: toBase64(message.value) } });
  }
  return JSON.stringify(message);
}

function decode(text: string): unknown {
  const message: unknown = JSON.parse(text);
  if (isItem(message)) {
    const bytes = (message.value as { $bytes?: unknown } | null)?.$bytes;
    if (typeof bytes === 'string') return { ...message, value: fromBase64(bytes) };
  }
  return message;
}

function isItem(message: unknown): message is { readonly t: 'item'; readonly value: unknown } {
  return typeof message === 'object' && message !== null && (message as { t?: unknown }).t === 'item';
}

/** Base64 of bytes, in pieces that fit the argument list of `fromCharCode`. Runs in browsers and in Node. */
export function toBase64(bytes: Uint8Array): string {
  let binary = '';
  for (let at = 0; at < bytes.length; at += 8192) binary += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(binary);
}

/** Bytes of a Base64 text; throws where it is none. */
export function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < binary.length; at++) bytes[at] = binary.charCodeAt(at);
  return bytes;
}
