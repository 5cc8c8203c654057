import { setTimeout as delay } from 'node:timers/promises';
import {
  DeleteMessageBatchCommand,
  type Message,
  ReceiveMessageCommand,
  type SQSClient,
} from '@aws-sdk/client-sqs';
import type { Log } from 'sluice-gateway/log.js';
import { changesOf } from './events.js';
import { call } from './pages.js';
import type { Change } from './target.js';

/** The most that SQS gives at once, and holds a request for. */
const messagesMax = 10;
const waitSeconds = 20;
const retryMsMin = 1_000;
const retryMsMax = 60_000;
const droppedTellMs = 60_000;

export interface QueueOptions {
  readonly client: SQSClient;
  readonly url: string;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** Whether an account and region are ours. */
  readonly covers: (change: Change) => boolean;
  /** Resolves when the changes are known; what it rejects with keeps their messages in the queue. */
  readonly handle: (changes: readonly Change[]) => Promise<void>;
}

/**
 * Follows a queue of CloudTrail events: a message is deleted when what it tells of is known, and comes again
 * when that failed. Messages that are no such event, or of other accounts, are dropped, counted and told.
 */
export class EventQueue {
  readonly #options: QueueOptions;
  #told = '';
  #dropped = 0;
  #droppedToldMs = -Infinity;

  constructor(options: QueueOptions) {
    this.#options = options;
  }

  /** Runs until the signal aborts; trouble with the queue is told, and tried again ever less often. */
  async run(): Promise<void> {
    const { signal, log } = this.#options;
    let retryMs = retryMsMin;
    while (!signal.aborted) {
      try {
        await this.#round();
        retryMs = retryMsMin;
      } catch (error) {
        if (signal.aborted) return;
        const { message } = error as Error;
        if (message !== this.#told)
          log.warn('events can not be followed, full refreshes go on', { reason: message });
        this.#told = message;
        await delay(retryMs, undefined, { signal }).catch(() => undefined);
        retryMs = Math.min(retryMs * 2, retryMsMax);
      }
    }
  }

  async #round(): Promise<void> {
    const { client, url, signal, log } = this.#options;
    // After trouble at once, so that its end is told.
    const WaitTimeSeconds = this.#told === '' ? waitSeconds : 0;
    const input = { QueueUrl: url, MaxNumberOfMessages: messagesMax, WaitTimeSeconds };
    const { Messages = [] } = await call('sqs:ReceiveMessage', () =>
      client.send(new ReceiveMessageCommand(input), { abortSignal: signal }),
    );
    if (this.#told !== '') log.info('the queue of events is followed again');
    this.#told = '';
    if (Messages.length === 0) return;
    await this.#options.handle(this.#changes(Messages));
    const Entries = Messages.map(({ ReceiptHandle }, index) => ({ Id: String(index), ReceiptHandle }));
    const { Failed = [] } = await call('sqs:DeleteMessage', () =>
      client.send(new DeleteMessageBatchCommand({ QueueUrl: url, Entries }), { abortSignal: signal }),
    );
    if (Failed[0] !== undefined)
      throw new Error(`sqs:DeleteMessage failed with ${Failed[0].Code}: ${Failed[0].Message}`);
  }

  #changes(messages: readonly Message[]): Change[] {
    const changes = new Map<string, Change>();
    for (const { Body = '' } of messages) {
      const told = changesOf(Body);
      if (told === undefined || !told.every((change) => this.#options.covers(change))) this.#drop();
      else for (const change of told) changes.set(JSON.stringify(change), change);
    }
    return [...changes.values()];
  }

  #drop(): void {
    this.#dropped++;
    const nowMs = performance.now();
    if (nowMs - this.#droppedToldMs < droppedTellMs) return;
    this.#droppedToldMs = nowMs;
    this.#options.log.warn('messages of the queue are no events of ours and were dropped', {
      dropped: this.#dropped,
    });
  }
}
