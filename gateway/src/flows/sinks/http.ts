import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import type { Dispatcher } from 'undici';
import type { Appended, Output } from '../queue.js';
import type { TlsParts } from './stream.js';

const compress = promisify(gzip);
const TIMEOUT_MS = 10_000;
/** Read of an answer, for its reason and for what it says of the records. */
const ANSWER_BYTES_MAX = 64 << 10;
/** The request will never be taken, whatever becomes of the receiver. Other errors may pass: a token, a full disk. */
const REFUSED: ReadonlySet<number> = new Set([400, 413, 414, 415, 422]);

/** What one kind of receiver takes. */
export interface HttpBody {
  readonly contentType: string;
  readonly of: (items: readonly string[]) => string;
  /** How many of the records a receiver refused that took the request; none where undefined. */
  readonly refused?: (answer: string) => number;
}

export const LINES: HttpBody = {
  contentType: 'application/x-ndjson',
  of: (items) => `${items.join('\n')}\n`,
};

export interface HttpOptions {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly gzip: boolean;
  readonly tls?: TlsParts | undefined;
  readonly body: HttpBody;
}

/** Posts batches. Any 2xx answer means that it was taken. */
export class HttpOutput implements Output {
  readonly #options: HttpOptions;
  #dispatcher: Dispatcher | undefined;

  constructor(options: HttpOptions) {
    this.#options = options;
  }

  async append(items: readonly string[]): Promise<Appended> {
    const { url, headers, gzip: isCompressed, body } = this.#options;
    const text = body.of(items);
    try {
      const { request, Agent } = await import('undici');
      const { tls = {} } = this.#options;
      this.#dispatcher ??= new Agent({ connect: { timeout: TIMEOUT_MS, ...tls }, connections: 1 });
      const { statusCode, body: stream } = await request(url, {
        method: 'POST',
        dispatcher: this.#dispatcher,
        headersTimeout: TIMEOUT_MS,
        bodyTimeout: TIMEOUT_MS,
        headers: {
          ...headers,
          'content-type': body.contentType,
          ...(isCompressed && { 'content-encoding': 'gzip' }),
        },
        body: isCompressed ? await compress(text) : text,
      });
      return this.#appended(items.length, statusCode, await readSome(stream));
    } catch (error) {
      return { written: 0, error };
    }
  }

  async close(): Promise<void> {
    await this.#dispatcher?.destroy();
  }

  #appended(items: number, status: number, answer: string): Appended {
    const { url, body } = this.#options;
    // Its path, query or user may be a secret of the receiver's.
    const { origin } = new URL(url);
    const failed = () =>
      new Error(`Cannot post flow records to ${origin}: status ${status}, ${answer.slice(0, 200)}`);
    if (status < 200 || status > 299)
      return { written: 0, ...(REFUSED.has(status) && { refused: items }), error: failed() };
    const refused = Math.min(items, body.refused?.(answer) ?? 0);
    return { written: items - refused, ...(refused > 0 && { refused, error: failed() }) };
  }
}

async function readSome(stream: AsyncIterable<Buffer>): Promise<string> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of stream) {
    parts.push(part);
    bytes += part.length;
    if (bytes > ANSWER_BYTES_MAX) break;
  }
  return Buffer.concat(parts).toString('utf8');
}
