import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { ServiceError } from './errors.js';
import type { Position } from './pages.js';
import { type Answer, errorOf, PROTOCOLS, type Service, serviceError } from './protocols.js';
import type { Input, OperationSchema } from './schema.js';
import { Queue } from './sqs.js';
import type { Fault, FaultKind, Operation, RateState, RegionState, RoleState, State } from './state.js';

const CALLS_KEPT_MAX = 100_000;
const CREDENTIAL =
  /Credential=([^/,\s]+)\/[0-9]{8}\/([a-z0-9-]+)\/(lambda|ec2|tagging|sqs|sts)\/aws4_request/;

/** One request as a handler sees it. */
export interface Call {
  readonly accountId: string;
  readonly region: string;
  readonly input: Input;
  readonly position: Position;
  /** What the account holds in this region. */
  readonly known: RegionState;
  readonly fault: FaultKind | undefined;
  readonly ec2PageItemsMax: number;
  /** The queue of a URL, if the caller's account has it. */
  readonly queueOf: (url: string) => Queue | undefined;
  readonly roleOf: (accountId: string, name: string) => RoleState | undefined;
  /** Makes keys for a role of an account; gives their id. */
  readonly openSession: (accountId: string, role: RoleState) => string;
}

export interface Handler {
  readonly operation: Operation;
  readonly schema: OperationSchema;
  readonly positionOf: (input: Input) => Position;
  readonly answer: (call: Call) => object | Promise<object>;
}

/** One answered request: `outcome` is `ok`, `cut`, or the error's code. */
export interface LoggedCall {
  readonly operation: Operation;
  readonly accountId: string;
  readonly region: string;
  readonly page: number;
  readonly outcome: string;
}

export interface EndpointOptions {
  readonly state: State;
  readonly host?: string;
  /** 0 or absent: any free port. */
  readonly port?: number;
  /** Items in one page of EC2, where AWS gives as many as MaxResults asks for, or fewer. */
  readonly ec2PageItemsMax?: number;
}

export interface AwsEndpoint {
  /** For `AWS_ENDPOINT_URL`. */
  readonly url: string;
  readonly calls: readonly LoggedCall[];
  /** Replaces all state, and the faults by the state's own. */
  setState(state: State): void;
  /** Adds a fault behind those that stand; the first that matches strikes. */
  inject(fault: Fault): void;
  clearFaults(): void;
  forgetCalls(): void;
  close(): Promise<void>;
}

/** Whose keys signed. */
interface Owner {
  readonly accountId: string;
  /** Absent: everything. */
  readonly allow?: readonly Operation[] | undefined;
}

interface Caller extends Owner {
  readonly service: Service;
  readonly region: string;
}

/** Whose fault a call meets, with how often it still strikes. */
class Faults {
  #standing: { readonly fault: Fault; left: number }[] = [];

  add(fault: Fault): void {
    this.#standing.push({ fault, left: fault.times ?? Infinity });
  }

  clear(): void {
    this.#standing = [];
  }

  take(operation: Operation, page: number, caller: Caller): FaultKind | undefined {
    const found = this.#standing.find(
      ({ fault, left }) =>
        left > 0 &&
        fault.operation === operation &&
        (fault.page ?? page) === page &&
        (fault.accountId ?? caller.accountId) === caller.accountId &&
        (fault.region ?? caller.region) === caller.region,
    );
    if (found === undefined) return undefined;
    found.left--;
    return found.fault.kind;
  }
}

/** Token buckets, one for each service, account and region. */
class Rates {
  readonly #fullAtMs = new Map<string, number>();

  /** Whether the rate permits one more call now. */
  take(key: string, { perSecond, burst }: RateState): boolean {
    const nowMs = performance.now();
    const fullAtMs = Math.max(nowMs, this.#fullAtMs.get(key) ?? 0) + 1000 / perSecond;
    if (fullAtMs - nowMs > (1000 * burst) / perSecond) return false;
    this.#fullAtMs.set(key, fullAtMs);
    return true;
  }
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

class Endpoint {
  readonly faults = new Faults();
  calls: LoggedCall[] = [];
  readonly #ec2PageItemsMax: number;
  readonly #rates = new Rates();
  readonly #queues = new Map<string, Queue>();
  readonly #sessions = new Map<string, Owner>();
  #state: State;

  constructor(options: EndpointOptions) {
    this.#ec2PageItemsMax = options.ec2PageItemsMax ?? Infinity;
    this.#state = options.state;
    this.setState(options.state);
  }

  /** Queues keep their messages. */
  setState(state: State): void {
    this.#state = state;
    this.faults.clear();
    for (const fault of state.faults ?? []) this.faults.add(fault);
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await bodyOf(request);
    const caller = this.#callerOf(request);
    const protocol = PROTOCOLS[caller.service];
    const requestId = randomUUID();
    let answer: Answer;
    let cut = false;
    try {
      if (caller.accountId === '') throw serviceError(caller.service, 'stranger');
      const target = String(request.headers['x-amz-target'] ?? '');
      const url = new URL(request.url!, 'http://endpoint');
      const { handler, input } = protocol.route({ url, target, body });
      const position = handler.positionOf(input);
      const fault = this.faults.take(handler.operation, position.page, caller);
      cut = fault === 'cut';
      const outcome = await this.#outcome(caller, handler, input, position, fault);
      answer =
        outcome instanceof ServiceError
          ? protocol.error(outcome, requestId)
          : protocol.ok(handler, outcome, requestId);
      const word = outcome instanceof ServiceError ? outcome.code : cut ? 'cut' : 'ok';
      this.#log({ operation: handler.operation, page: position.page, outcome: word, ...caller });
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error;
      answer = protocol.error(error, requestId);
    }
    send(response, answer, cut);
  }

  #callerOf(request: IncomingMessage): Caller {
    const match = CREDENTIAL.exec(request.headers.authorization ?? '');
    const [, accessKeyId = '', region = '', service = 'lambda'] = match ?? [];
    const account = this.#state.accounts.find(({ accessKeyIds }) => accessKeyIds.includes(accessKeyId));
    const owner =
      account === undefined ? this.#sessions.get(accessKeyId) : { ...account, accountId: account.id };
    return { service: service as Service, accountId: owner?.accountId ?? '', region, allow: owner?.allow };
  }

  async #outcome(
    { accountId, region, service, allow }: Caller,
    handler: Handler,
    input: Input,
    position: Position,
    fault: FaultKind | undefined,
  ): Promise<object | ServiceError> {
    const { operation } = handler;
    const [api] = operation.split(':') as [keyof NonNullable<State['rates']>];
    const rate = this.#state.rates?.[api];
    if (rate !== undefined && !this.#rates.take(`${api} ${accountId} ${region}`, rate))
      return serviceError(service, 'throttle');
    if (allow?.includes(operation) === false) return serviceError(service, 'deny', accountId, operation);
    const error = errorOf(fault, service, accountId, operation);
    if (error !== undefined) return error;
    const known = this.#account(accountId)?.regions[region] ?? {};
    const call: Call = {
      ...{ accountId, region, input, position, known, fault, ec2PageItemsMax: this.#ec2PageItemsMax },
      queueOf: (url) => this.#queueOf(accountId, region, url),
      roleOf: (id, name) => this.#account(id)?.roles?.find((role) => role.name === name),
      openSession: (id, { allow }) => {
        const accessKeyId = `ASIA${randomUUID().replaceAll('-', '').slice(0, 16).toUpperCase()}`;
        this.#sessions.set(accessKeyId, { accountId: id, allow });
        return accessKeyId;
      },
    };
    try {
      return await handler.answer(call);
    } catch (caught) {
      if (caught instanceof ServiceError) return caught;
      throw caught;
    }
  }

  #account(accountId: string) {
    return this.#state.accounts.find(({ id }) => id === accountId);
  }

  #queueOf(accountId: string, region: string, url: string): Queue | undefined {
    const [name, owner] = url.split('/').reverse();
    const known = this.#account(accountId)?.regions[region]?.queues?.find((queue) => queue.name === name);
    if (known === undefined || owner !== accountId) return undefined;
    const key = `${accountId} ${region} ${name}`;
    const queue = this.#queues.get(key) ?? new Queue(known.visibilityMs);
    this.#queues.set(key, queue);
    return queue;
  }

  #log({ operation, accountId, region, page, outcome }: LoggedCall): void {
    if (this.calls.length === CALLS_KEPT_MAX) this.calls.shift();
    this.calls.push({ operation, accountId, region, page, outcome });
  }
}

function send(response: ServerResponse, answer: Answer, cut: boolean): void {
  const bytes = typeof answer.body === 'string' ? Buffer.from(answer.body) : answer.body;
  response.writeHead(answer.status, { ...answer.headers, 'content-length': bytes.length });
  if (!cut) {
    response.end(bytes);
    return;
  }
  response.write(bytes.subarray(0, bytes.length >> 1), () => response.destroy());
}

/**
 * Starts an HTTP server that answers the SDK's clients of Lambda, EC2, tagging, SQS and STS from plain state. Who calls is told by
 * the access key id of the signature, which is not verified. Requests and answers go by the Smithy schemas
 * that the clients export.
 */
export async function startAwsEndpoint(options: EndpointOptions): Promise<AwsEndpoint> {
  const endpoint = new Endpoint(options);
  const server = createServer((request, response) => {
    endpoint.answer(request, response).catch((error: unknown) => {
      process.stderr.write(`aws endpoint: ${error instanceof Error ? error.stack : String(error)}\n`);
      response.destroy();
    });
  });
  const host = options.host ?? '127.0.0.1';
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port ?? 0, host, resolve);
  });
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${port}`,
    get calls() {
      return endpoint.calls;
    },
    setState: (state) => endpoint.setState(state),
    inject: (fault) => endpoint.faults.add(fault),
    clearFaults: () => endpoint.faults.clear(),
    forgetCalls: () => {
      endpoint.calls = [];
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
