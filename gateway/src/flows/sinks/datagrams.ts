import { createSocket, type Socket } from 'node:dgram';
import { lookup } from 'node:dns/promises';
import { once } from 'node:events';
import type { Appended } from '../queue.js';

/** A connected UDP socket, opened when it is first needed, and anew after an error. */
export class Datagrams {
  readonly #host: string;
  readonly #port: number;
  #socket: Socket | undefined;

  constructor(host: string, port: number) {
    this.#host = host;
    this.#port = port;
  }

  /** Whether the next `send` opens a socket. */
  get isNew(): boolean {
    return this.#socket === undefined;
  }

  /** Sends one after another; one that is larger than a datagram can be is refused. */
  async send(datagrams: readonly Uint8Array[]): Promise<Appended> {
    let written = 0;
    try {
      for (const datagram of datagrams) {
        const socket = this.#socket ?? (await this.#open());
        await new Promise<void>((resolve, reject) => {
          socket.send(datagram, (error) => (error === null ? resolve() : reject(error)));
        });
        written++;
      }
      return { written };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EMSGSIZE') return { written, refused: 1, error };
      this.close();
      return { written, error };
    }
  }

  close(): void {
    this.#socket?.close();
    this.#socket = undefined;
  }

  async #open(): Promise<Socket> {
    const { address, family } = await lookup(this.#host);
    const socket = createSocket(family === 6 ? 'udp6' : 'udp4');
    // The kernel's word that nobody listened to an earlier one; the next send tells.
    socket.on('error', () => undefined);
    socket.connect(this.#port, address);
    await once(socket, 'connect');
    this.#socket = socket;
    return socket;
  }
}
