import type { Appended, Output } from '../queue.js';
import type { TlsParts } from './stream.js';

export interface KafkaOptions {
  readonly brokers: readonly string[];
  readonly topic: string;
  readonly clientId: string;
  readonly tls?: TlsParts | undefined;
  readonly sasl?:
    | { readonly mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512'; username: string; password: string }
    | undefined;
}

const TIMEOUT_MS = 10_000;
type Producer = ReturnType<InstanceType<typeof import('kafkajs')['Kafka']>['producer']>;

/** A message a record, written when all replicas in sync have it. A batch that half succeeded comes again whole. */
export class KafkaOutput implements Output {
  readonly #options: KafkaOptions;
  #producer: Producer | undefined;

  constructor(options: KafkaOptions) {
    this.#options = options;
  }

  async append(items: readonly string[]): Promise<Appended> {
    try {
      const producer = this.#producer ?? (await this.#connect());
      await producer.send({
        topic: this.#options.topic,
        acks: -1,
        messages: items.map((value) => ({ value })),
      });
      return { written: items.length };
    } catch (error) {
      await this.close();
      const isTooLarge = (error as { type?: string }).type === 'MESSAGE_TOO_LARGE';
      return { written: 0, ...(isTooLarge && { refused: items.length }), error };
    }
  }

  async close(): Promise<void> {
    const producer = this.#producer;
    this.#producer = undefined;
    await producer?.disconnect().catch(() => undefined);
  }

  async #connect(): Promise<Producer> {
    const { brokers, clientId, tls, sasl } = this.#options;
    // Loaded late: the privileged process loads little.
    const { Kafka, logLevel, Partitioners } = (await import('kafkajs')).default;
    const kafka = new Kafka({
      brokers: [...brokers],
      clientId,
      ...(tls !== undefined && { ssl: { ...tls } }),
      ...(sasl !== undefined && { sasl: sasl as never }),
      connectionTimeout: TIMEOUT_MS,
      requestTimeout: TIMEOUT_MS,
      logLevel: logLevel.NOTHING,
      // The queue tries again.
      retry: { retries: 0 },
    });
    const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });
    await producer.connect();
    this.#producer = producer;
    return producer;
  }
}
