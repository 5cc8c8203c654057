import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { EC2 } from './ec2.js';
import { invalid, ServiceError } from './errors.js';
import { LAMBDA } from './lambda.js';
import type { Position } from './pages.js';
import {
  decodeQuery,
  decodeRest,
  encodeJson,
  encodeXml,
  httpOf,
  type Input,
  type OperationSchema,
} from './schema.js';
import type { Fault, FaultKind, Operation, RegionState, State } from './state.js';

const EC2_VERSION = '2016-11-15';
const CALLS_KEPT_MAX = 100_000;
const CREDENTIAL = /Credential=([^/,\s]+)\/[0-9]{8}\/([a-z0-9-]+)\/(lambda|ec2)\/aws4_request/;

type Service = 'lambda' | 'ec2';

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
}

export interface Handler {
  readonly operation: Operation;
  readonly schema: OperationSchema;
  readonly positionOf: (input: Input) => Position;
  readonly answer: (call: Call) => object;
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

interface Caller {
  readonly service: Service;
  readonly accountId: string;
  readonly region: string;
}

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | Uint8Array;
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

const escapeXml = (text: string) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);

function errorAnswer(service: Service, error: ServiceError, requestId: string): Answer {
  if (service === 'lambda') {
    const reason = error.status === 429 ? { Reason: 'CallerRateLimitExceeded' } : {};
    return {
      status: error.status,
      headers: {
        'content-type': 'application/json',
        'x-amzn-requestid': requestId,
        'x-amzn-errortype': error.code,
      },
      body: JSON.stringify({
        Type: error.status < 500 ? 'User' : 'Service',
        message: error.message,
        Message: error.message,
        ...reason,
      }),
    };
  }
  return {
    status: error.status,
    headers: { 'content-type': 'text/xml;charset=UTF-8', 'x-amzn-requestid': requestId },
    body:
      `<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error><Code>${error.code}</Code>` +
      `<Message>${escapeXml(error.message)}</Message></Error></Errors>` +
      `<RequestID>${requestId}</RequestID></Response>`,
  };
}

function okAnswer(service: Service, handler: Handler, output: object, requestId: string): Answer {
  const headers = { 'x-amzn-requestid': requestId };
  return service === 'lambda'
    ? {
        status: httpOf(handler.schema)[2],
        headers: { ...headers, 'content-type': 'application/json' },
        body: encodeJson(handler.schema, output),
      }
    : {
        status: 200,
        headers: { ...headers, 'content-type': 'text/xml;charset=UTF-8' },
        body: encodeXml(handler.schema, output, requestId),
      };
}

/** The error that a fault answers with; undefined for the faults that spoil an answer. */
function errorOf(
  fault: FaultKind | undefined,
  handler: Handler,
  accountId: string,
): ServiceError | undefined {
  const lambda = handler.operation.startsWith('lambda:');
  switch (fault) {
    case 'throttle':
      return lambda
        ? new ServiceError('TooManyRequestsException', 429, 'Rate exceeded')
        : new ServiceError('RequestLimitExceeded', 503, 'Request limit exceeded.');
    case 'deny': {
      const user = `arn:aws:iam::${accountId}:user/test`;
      return lambda
        ? new ServiceError(
            'AccessDeniedException',
            403,
            `User: ${user} is not authorized to perform: ${handler.operation} on resource: *`,
          )
        : new ServiceError('UnauthorizedOperation', 403, 'You are not authorized to perform this operation.');
    }
    case 'fail':
      return lambda
        ? new ServiceError('ServiceException', 500, 'An error occurred and the request cannot be processed.')
        : new ServiceError('InternalError', 500, 'An internal error has occurred');
    case 'cut':
    case 'badMarker':
    case 'loop':
    case 'empty':
    case undefined:
      return undefined;
  }
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

function route(service: Service, url: URL, body: string): { handler: Handler; input: Input } {
  if (service === 'lambda') {
    for (const handler of LAMBDA) {
      const input = decodeRest(handler.schema, url);
      if (input !== undefined) return { handler, input };
    }
    throw new ServiceError('UnknownOperationException', 404, `Cannot answer ${url.pathname}`);
  }
  const { Action, Version, ...parameters } = Object.fromEntries(new URLSearchParams(body));
  if (Action === undefined) throw invalid('MissingAction', 'The request must contain the parameter Action');
  const handler = EC2.find(({ schema }) => schema[2] === Action);
  if (handler === undefined || Version !== EC2_VERSION) {
    throw invalid('InvalidAction', `The action ${Action} is not valid for version ${Version}`);
  }
  return { handler, input: decodeQuery(handler.schema, Object.entries(parameters)) };
}

function callerOf(request: IncomingMessage, state: State): Caller {
  const match = CREDENTIAL.exec(request.headers.authorization ?? '');
  const [, accessKeyId = '', region = '', service = 'lambda'] = match ?? [];
  const account = state.accounts.find(({ accessKeyIds }) => accessKeyIds.includes(accessKeyId));
  return { service: service as Service, accountId: account?.id ?? '', region };
}

class Endpoint {
  readonly faults = new Faults();
  calls: LoggedCall[] = [];
  readonly #ec2PageItemsMax: number;
  #state: State;

  constructor(options: EndpointOptions) {
    this.#ec2PageItemsMax = options.ec2PageItemsMax ?? Infinity;
    this.#state = options.state;
    this.setState(options.state);
  }

  setState(state: State): void {
    this.#state = state;
    this.faults.clear();
    for (const fault of state.faults ?? []) this.faults.add(fault);
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await bodyOf(request);
    const caller = callerOf(request, this.#state);
    const requestId = randomUUID();
    let answer: Answer;
    let cut = false;
    try {
      const { handler, input } = this.#admit(caller, new URL(request.url!, 'http://endpoint'), body);
      const position = handler.positionOf(input);
      const fault = this.faults.take(handler.operation, position.page, caller);
      cut = fault === 'cut';
      const outcome = this.#outcome(caller, handler, input, position, fault);
      answer =
        outcome instanceof ServiceError
          ? errorAnswer(caller.service, outcome, requestId)
          : okAnswer(caller.service, handler, outcome, requestId);
      const word = outcome instanceof ServiceError ? outcome.code : cut ? 'cut' : 'ok';
      this.#log({ operation: handler.operation, page: position.page, outcome: word, ...caller });
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error;
      answer = errorAnswer(caller.service, error, requestId);
    }
    send(response, answer, cut);
  }

  #admit(caller: Caller, url: URL, body: string): { handler: Handler; input: Input } {
    if (caller.accountId === '') {
      throw caller.service === 'lambda'
        ? new ServiceError(
            'UnrecognizedClientException',
            403,
            'The security token included in the request is invalid.',
          )
        : new ServiceError(
            'AuthFailure',
            401,
            'AWS was not able to validate the provided access credentials',
          );
    }
    return route(caller.service, url, body);
  }

  #outcome(
    { accountId, region }: Caller,
    handler: Handler,
    input: Input,
    position: Position,
    fault: FaultKind | undefined,
  ): object | ServiceError {
    const error = errorOf(fault, handler, accountId);
    if (error !== undefined) return error;
    const known = this.#state.accounts.find(({ id }) => id === accountId)?.regions[region] ?? {};
    const call: Call = {
      accountId,
      region,
      input,
      position,
      known,
      fault,
      ec2PageItemsMax: this.#ec2PageItemsMax,
    };
    try {
      return handler.answer(call);
    } catch (caught) {
      if (caught instanceof ServiceError) return caught;
      throw caught;
    }
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
 * Starts an HTTP server that answers the SDK's Lambda and EC2 clients from plain state. Who calls is told by
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
