import { createHash, randomUUID } from 'node:crypto';
import { DeleteMessageBatch$, ReceiveMessage$, SendMessage$ } from '@aws-sdk/client-sqs';
import { invalid } from './errors.js';
import { FIRST } from './pages.js';
import type { OperationSchema } from './schema.js';
import type { Call, Handler } from './server.js';
import type { Operation } from './state.js';

const MESSAGES_MAX = 10;
const WAIT_SECONDS_MAX = 20;
const VISIBILITY_MS = 30_000;

interface Stored {
  readonly id: string;
  readonly body: string;
  receipt: string;
  visibleAtMs: number;
}

/** A standard queue: what was received and not deleted comes again. */
export class Queue {
  readonly #messages: Stored[] = [];
  readonly #waiting = new Set<() => void>();
  readonly #visibilityMs: number;

  constructor(visibilityMs = VISIBILITY_MS) {
    this.#visibilityMs = visibilityMs;
  }

  /** Messages that are not deleted. */
  get length(): number {
    return this.#messages.length;
  }

  send(body: string): string {
    const id = randomUUID();
    this.#messages.push({ id, body, receipt: '', visibleAtMs: 0 });
    for (const wake of this.#waiting) wake();
    return id;
  }

  async receive(messagesMax: number, waitMs: number): Promise<readonly Stored[]> {
    const untilMs = performance.now() + waitMs;
    for (;;) {
      const nowMs = performance.now();
      const found = this.#messages.filter(({ visibleAtMs }) => visibleAtMs <= nowMs).slice(0, messagesMax);
      if (found.length > 0 || nowMs >= untilMs) {
        for (const message of found) {
          message.receipt = randomUUID();
          message.visibleAtMs = nowMs + this.#visibilityMs;
        }
        return found;
      }
      const nextMs = Math.min(untilMs, ...this.#messages.map(({ visibleAtMs }) => visibleAtMs));
      await new Promise<void>((resolve) => {
        const wake = () => {
          clearTimeout(timer);
          this.#waiting.delete(wake);
          resolve();
        };
        const timer = setTimeout(wake, Math.max(1, nextMs - nowMs));
        timer.unref();
        this.#waiting.add(wake);
      });
    }
  }

  delete(receipt: string): void {
    const at = this.#messages.findIndex((message) => message.receipt === receipt);
    if (at >= 0) this.#messages.splice(at, 1);
  }
}

function queueOf(call: Call): Queue {
  const queue = call.queueOf((call.input as { QueueUrl: string }).QueueUrl);
  if (queue === undefined)
    throw invalid('QueueDoesNotExist', 'The specified queue does not exist for this wsdl version.');
  return queue;
}

async function receive(call: Call): Promise<object> {
  const { MaxNumberOfMessages = 1, WaitTimeSeconds = 0 } = call.input as Record<string, number | undefined>;
  if (MaxNumberOfMessages < 1 || MaxNumberOfMessages > MESSAGES_MAX || WaitTimeSeconds > WAIT_SECONDS_MAX)
    throw invalid('InvalidParameterValue', 'A parameter is out of its bounds');
  const messages = await queueOf(call).receive(MaxNumberOfMessages, WaitTimeSeconds * 1000);
  if (messages.length === 0) return {};
  return {
    Messages: messages.map(({ id, body, receipt }) => ({
      MessageId: id,
      ReceiptHandle: receipt,
      MD5OfBody: md5(body),
      Body: body,
    })),
  };
}

const md5 = (text: string) => createHash('md5').update(text).digest('hex');

function deleteBatch(call: Call): object {
  const { Entries } = call.input as { Entries: readonly { Id: string; ReceiptHandle: string }[] };
  for (const { ReceiptHandle } of Entries) queueOf(call).delete(ReceiptHandle);
  return { Successful: Entries.map(({ Id }) => ({ Id })), Failed: [] };
}

function send(call: Call): object {
  const { MessageBody } = call.input as { MessageBody: string };
  return { MessageId: queueOf(call).send(MessageBody), MD5OfMessageBody: md5(MessageBody) };
}

const handler = (operation: Operation, schema: unknown, answer: Handler['answer']): Handler => ({
  operation,
  schema: schema as OperationSchema,
  positionOf: () => FIRST,
  answer,
});

/** The permission to delete many is that to delete one. */
export const SQS: readonly Handler[] = [
  handler('sqs:ReceiveMessage', ReceiveMessage$, receive),
  handler('sqs:DeleteMessage', DeleteMessageBatch$, deleteBatch),
  handler('sqs:SendMessage', SendMessage$, send),
];
