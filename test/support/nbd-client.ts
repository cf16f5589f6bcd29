/** A plain NBD client over a socket, for tests that need to misbehave. */
import { connect, type Socket } from 'node:net';
import type { ServerAddress } from '../../main/engine/nbd/uri.ts';
import { CLIENT_FLAGS, infoData, option } from './nbd-wire.ts';

export class WireClient {
  readonly socket: Socket;
  #received: Buffer[] = [];
  #length = 0;
  #wake: (() => void) | undefined;
  closed = false;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#received.push(chunk);
      this.#length += chunk.length;
      this.#wake?.();
    });
    const gone = (): void => {
      this.closed = true;
      this.#wake?.();
    };
    socket.on('end', gone);
    socket.on('close', gone);
    // A reset is one of the ways a server may end us; `closed` says so.
    socket.on('error', gone);
  }

  static connect(address: ServerAddress): Promise<WireClient> {
    return new Promise((resolve, reject) => {
      const socket = 'socket' in address ? connect({ path: address.socket }) : connect(address);
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(new WireClient(socket));
      });
    });
  }

  /** Exactly `length` bytes; throws when the server closes before. */
  async read(length: number): Promise<Buffer> {
    while (this.#length < length) {
      if (this.closed) throw new Error(`the server closed after ${this.#length} of ${length} bytes`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const all = Buffer.concat(this.#received);
    this.#received = [all.subarray(length)];
    this.#length = all.length - length;
    return all.subarray(0, length);
  }

  /** Waits for the server's end of the connection. */
  async untilClosed(): Promise<void> {
    while (!this.closed) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  write(bytes: Uint8Array): void {
    this.socket.write(bytes);
  }

  /** Simple replies, no contexts. Returns the export's size. */
  async go(name = ''): Promise<number> {
    await this.read(18);
    this.write(Buffer.concat([CLIENT_FLAGS, option(7, infoData(name))]));
    const info = await this.read(20 + 12);
    await this.read(20);
    return Number(info.readBigUInt64BE(22));
  }
}
