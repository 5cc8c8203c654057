import type { Appended, Output } from '../queue.js';

/** A stream of this process. Its reader may be slow (the queue fills) or gone (every write fails). */
export class StreamOutput implements Output {
  readonly #stream: NodeJS.WritableStream;

  constructor(stream: NodeJS.WritableStream) {
    this.#stream = stream;
    // Each write is told of its own failure.
    stream.on('error', () => undefined);
  }

  append(items: readonly string[]): Promise<Appended> {
    return new Promise((resolve) => {
      this.#stream.write(`${items.join('\n')}\n`, (error) => {
        resolve(error ? { written: 0, error } : { written: items.length });
      });
    });
  }

  async close(): Promise<void> {}
}
