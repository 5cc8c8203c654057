import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import type { Appended } from '../queue.js';

/** How long a connection may take to be made, and a write until the other side has room for it. */
const PATIENCE_MS = 10_000;

/** Certificates in PEM. */
export interface TlsParts {
  readonly ca?: Buffer | undefined;
  readonly cert?: Buffer | undefined;
  readonly key?: Buffer | undefined;
  readonly servername?: string | undefined;
}

/** A TCP or TLS connection, made when it is first needed, and anew after an error. */
export class StreamConnection {
  readonly #host: string;
  readonly #port: number;
  readonly #tls: TlsParts | undefined;
  #socket: Socket | undefined;

  constructor(host: string, port: number, tls?: TlsParts) {
    this.#host = host;
    this.#port = port;
    this.#tls = tls;
  }

  /**
   * Writes bytes that are `items` messages. Written is what the kernel has taken: these protocols have no answer, so what was
   * on its way when a connection broke is lost unseen; a write that failed comes again whole.
   */
  async write(bytes: Uint8Array, items: number): Promise<Appended> {
    try {
      const socket = this.#socket ?? (await this.#open());
      await this.#within(socket, (done) => socket.write(bytes, done));
      return { written: items };
    } catch (error) {
      this.close();
      return { written: 0, error };
    }
  }

  close(): void {
    this.#socket?.destroy();
    this.#socket = undefined;
  }

  async #open(): Promise<Socket> {
    const [host, port] = [this.#host, this.#port];
    const socket =
      this.#tls === undefined ? connect({ host, port }) : connectTls({ host, port, ...this.#tls });
    // Both sides may end it between writes: then the next one begins anew.
    socket.on('close', () => {
      if (this.#socket === socket) this.#socket = undefined;
    });
    socket.resume();
    await this.#within(socket, (done) =>
      socket.once(this.#tls === undefined ? 'connect' : 'secureConnect', done),
    );
    socket.on('error', () => undefined);
    this.#socket = socket;
    return socket;
  }

  async #within(socket: Socket, work: (done: (error?: Error | null) => void) => void): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const late = () => reject(new Error(`Cannot write: ${this.#host} took nothing for ${PATIENCE_MS} ms`));
    const closed = () => reject(new Error(`Cannot write: ${this.#host} closed the connection`));
    const timer = setTimeout(late, PATIENCE_MS);
    socket.once('error', reject);
    socket.once('close', closed);
    work((error) => (error ? reject(error) : resolve()));
    try {
      await promise;
    } catch (error) {
      socket.on('error', () => undefined);
      socket.destroy();
      throw error;
    } finally {
      clearTimeout(timer);
      socket.off('error', reject);
      socket.off('close', closed);
    }
  }
}
