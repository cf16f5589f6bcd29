/**
 * One client's connection: a socket, the handshake, then transmission. What a client can make the server hold is bounded here:
 * time for the handshake, output not yet read, requests not yet parsed.
 */
import type { Socket } from 'node:net';
import type { NbdDevice } from './device.ts';
import type { ExportDirectory } from './exports.ts';
import { Handshake } from './handshake.ts';
import type { Slab, SlabPool } from './slabs.ts';
import { type Observer, type Output, Transmission, type TransmissionState } from './transmission.ts';

/** Time a client has from connecting to choosing its export. An idle client after that is welcome for as long as it likes. */
export const HANDSHAKE_MS = 30_000;
/** Output that waits for a client before its further requests are left unread. */
const MAX_QUEUED_BYTES = 2 << 20;
const MAX_QUEUED_SLABS = 8;
/** Time a closing connection has to take what was written to it. */
const LINGER_MS = 1000;

export interface ConnectionHost {
  readonly exports: ExportDirectory;
  readonly devices: readonly NbdDevice[];
  readonly pool: SlabPool;
  /** An export was chosen; the observer is told what happens to it. */
  attached(exportIndex: number): Observer;
  /** The socket is gone. `exportIndex` is undefined when none was chosen; `reason` when the client ended it properly. */
  detached(exportIndex: number | undefined, reason: string | undefined): void;
}

export class Connection implements Output {
  readonly #socket: Socket;
  readonly #host: ConnectionHost;
  #handshake: Handshake | undefined;
  readonly #timer: NodeJS.Timeout;
  #transmission: Transmission | undefined;
  #exportIndex: number | undefined;
  #reason: string | undefined;

  #queuedBytes = 0;
  #queuedSlabs = 0;
  /** Transmission stopped because the output was full. */
  #waiting = false;
  #ended = false;
  /** Nothing more is read or answered; what is written goes out, then the socket goes. */
  #closing = false;

  /** Takes over a socket, which must be made with `allowHalfOpen`: a client may stop talking and still want its replies. */
  constructor(socket: Socket, host: ConnectionHost, handshakeMs = HANDSHAKE_MS) {
    this.#socket = socket;
    this.#host = host;
    this.#handshake = new Handshake(host.exports, (bytes) => {
      socket.write(bytes);
    });
    this.#timer = setTimeout(() => this.#abort(`no export chosen within ${handshakeMs} ms`), handshakeMs);
    socket.on('data', (chunk: Buffer) => this.#received(chunk));
    socket.on('end', () => {
      this.#ended = true;
      if (!this.#waiting) this.close();
    });
    socket.on('error', (error) => {
      this.#reason ??= error.message;
    });
    socket.on('close', () => {
      clearTimeout(this.#timer);
      this.#closing = true;
      this.#transmission = undefined;
      host.detached(this.#exportIndex, this.#reason);
    });
    this.#handshake.greet();
  }

  /** Ends the connection: what is written goes out for at most a second. */
  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#transmission = undefined;
    clearTimeout(this.#timer);
    this.#socket.resume();
    this.#socket.end(() => this.#socket.destroy());
    const linger = setTimeout(() => this.#socket.destroy(), LINGER_MS);
    this.#socket.once('close', () => clearTimeout(linger));
  }

  /** Ends the connection at once. */
  destroy(): void {
    this.#socket.destroy();
  }

  get full(): boolean {
    return this.#queuedBytes >= MAX_QUEUED_BYTES || this.#queuedSlabs >= MAX_QUEUED_SLABS;
  }

  take(): Slab {
    return this.#host.pool.take();
  }

  send(slab: Slab, length: number): void {
    if (length === 0) {
      this.#host.pool.give(slab);
      return;
    }
    this.#queuedBytes += length;
    this.#queuedSlabs++;
    this.#socket.write(slab.bytes.subarray(0, length), () => {
      // Called for failed writes too: in either case the socket no longer looks at the slab.
      this.#queuedBytes -= length;
      this.#queuedSlabs--;
      this.#host.pool.give(slab);
      if (this.#waiting && this.#queuedBytes <= MAX_QUEUED_BYTES / 2 && this.#queuedSlabs <= MAX_QUEUED_SLABS / 2) {
        this.#waiting = false;
        // Not from here: other connections of this worker get their turn between two fills of one client's queue.
        setImmediate(() => this.#resume());
      }
    });
  }

  #received(chunk: Buffer): void {
    if (this.#closing) return;
    if (this.#transmission !== undefined) {
      this.#continue(this.#transmission.receive(chunk));
      return;
    }
    const outcome = this.#handshake!.receive(chunk);
    if (outcome.state === 'more') return;
    if (outcome.state === 'close') {
      this.#reason = outcome.reason;
      this.close();
      return;
    }
    clearTimeout(this.#timer);
    this.#handshake = undefined;
    this.#exportIndex = outcome.exportIndex;
    const device = this.#host.devices[outcome.exportIndex]!;
    this.#transmission = new Transmission(device, outcome, this, this.#host.attached(outcome.exportIndex));
    this.#continue(this.#transmission.receive(outcome.rest));
  }

  #resume(): void {
    if (this.#transmission !== undefined) this.#continue(this.#transmission.resume());
  }

  #continue(state: TransmissionState): void {
    switch (state) {
      case 'more':
        if (this.#ended) this.close();
        else if (this.#socket.isPaused()) this.#socket.resume();
        return;
      case 'full':
        this.#waiting = true;
        this.#socket.pause();
        return;
      case 'done':
        this.close();
        return;
      case 'broken':
        this.#abort(this.#transmission?.reason ?? '');
    }
  }

  #abort(reason: string): void {
    this.#reason ??= reason;
    this.#socket.destroy();
  }
}
