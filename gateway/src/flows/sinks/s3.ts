import { randomUUID } from 'node:crypto';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import type { Appended, Output } from '../queue.js';

const compress = promisify(gzip);

export interface S3Options {
  readonly bucket: string;
  readonly prefix: string;
  readonly gateway: string;
  readonly region?: string | undefined;
  readonly endpoint?: string | undefined;
}

type Client = InstanceType<typeof import('@aws-sdk/client-s3')['S3Client']>;

/** `PREFIX2026/01/02/03/gw-a-20260102T030405Z-UUID.jsonl.gz`, as tools that partition by time expect. */
function objectKey({ prefix, gateway }: Pick<S3Options, 'prefix' | 'gateway'>, now: Date): string {
  const time = now.toISOString();
  const folder = time.slice(0, 13).replaceAll(/[-T]/g, '/');
  const name = gateway.replaceAll(/[^\w.-]/g, '_');
  return `${prefix}${folder}/${name}-${time.slice(0, 19).replaceAll(/[-:]/g, '')}Z-${randomUUID()}.jsonl.gz`;
}

/** A gzip object a batch, by the SDK's usual chain of credentials. */
export class S3Output implements Output {
  readonly #options: S3Options;
  #client: Client | undefined;
  readonly #closing = new AbortController();

  constructor(options: S3Options) {
    this.#options = options;
  }

  async append(items: readonly string[]): Promise<Appended> {
    const { bucket, region, endpoint } = this.#options;
    try {
      // Loaded late: the privileged process loads little.
      const { S3Client, PutObjectCommand } = await import('@aws-sdk/client-s3');
      this.#client ??= new S3Client({
        ...(region !== undefined && { region }),
        ...(endpoint !== undefined && { endpoint, forcePathStyle: true }),
      });
      await this.#client.send(
        new PutObjectCommand({
          Bucket: bucket,
          Key: objectKey(this.#options, new Date()),
          Body: await compress(`${items.join('\n')}\n`),
          ContentType: 'application/x-ndjson',
          ContentEncoding: 'gzip',
        }),
        { abortSignal: this.#closing.signal },
      );
      return { written: items.length };
    } catch (error) {
      return { written: 0, error };
    }
  }

  async close(): Promise<void> {
    // Else the SDK tries again what the queue keeps for the next process.
    this.#closing.abort();
    this.#client?.destroy();
  }
}
