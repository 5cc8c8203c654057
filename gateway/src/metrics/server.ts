import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type Address, printAddress, readAddress } from '../net/address.js';
import { printableJson } from '../text.js';
import type { Metrics } from './metrics.js';

export interface Listen {
  readonly address: Address;
  /** 0: the system chooses. */
  readonly port: number;
}

/** Whether the wanted program is in the kernel, and a line about why or why not. */
export interface Readiness {
  readonly ready: boolean;
  readonly reason: string;
}

export interface MetricsServer {
  /** Where it listens, `127.0.0.1:9464`. */
  readonly listen: string;
  /** Ends at once, connections included. */
  close(): Promise<void>;
}

const CONNECTIONS_MAX = 64;
const REQUEST_MS = 5_000;
const METHODS = ['GET', 'HEAD'];
const JSON_TYPE = 'application/json; charset=utf-8';

const listenError = (text: string, what: string) =>
  new SyntaxError(`Cannot parse listen address: ${JSON.stringify(text)} ${what}`);

/** Reads `127.0.0.1:9464` or `[::1]:9464`. Throws SyntaxError with what was expected. */
export function parseListen(text: string): Listen {
  const parts = /^(?:\[([^\]]*)\]|([^:]*)):([^:]*)$/.exec(text);
  if (parts === null) {
    const hint =
      readAddress(text)?.family === 6 ? `has no port, write [${text}]:9464` : 'is not ADDRESS:PORT';
    throw listenError(text, `${hint}, as 127.0.0.1:9464 or [::1]:9464`);
  }
  const [, host6, host4, portText] = parts;
  const address = readAddress(host6 ?? host4!);
  if (address === undefined || address.family !== (host6 === undefined ? 4 : 6)) {
    throw listenError(text, 'should start with an IPv4 address or an IPv6 address in brackets');
  }
  const port = /^(?:0|[1-9][0-9]{0,4})$/.test(portText!) ? Number(portText) : Number.NaN;
  if (!(port <= 65_535)) throw listenError(text, 'should end in a port from 0 to 65535');
  return { address, port };
}

function printListen(address: Address, port: number): string {
  return address.family === 6 ? `[${printAddress(address)}]:${port}` : `${printAddress(address)}:${port}`;
}

function answer(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body) });
  response.end(response.req.method === 'HEAD' ? undefined : body);
}

const answerJson = (response: ServerResponse, status: number, value: unknown) =>
  answer(response, status, JSON_TYPE, `${printableJson(value)}\n`);

type Page = (response: ServerResponse) => void | Promise<void>;

function pages(metrics: Metrics, readiness: () => Readiness): ReadonlyMap<string, Page> {
  return new Map<string, Page>([
    ['/metrics', async (response) => answer(response, 200, metrics.contentType, await metrics.scrape())],
    ['/healthz', (response) => answerJson(response, 200, { alive: true, reason: 'the process answers' })],
    [
      '/readyz',
      (response) => {
        const { ready, reason } = readiness();
        answerJson(response, ready ? 200 : 503, { ready, reason });
      },
    ],
  ]);
}

/**
 * Serves `/metrics`, `/healthz` and `/readyz` to GET and HEAD. Rejects when the address can't be listened on.
 * Anyone who reaches the address can read the names of rules and groups: listen on loopback or a management
 * network.
 */
export async function serveMetrics(
  listen: Listen,
  metrics: Metrics,
  readiness: () => Readiness,
): Promise<MetricsServer> {
  const known = pages(metrics, readiness);

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const page = known.get(request.url!.split('?', 1)[0]!);
    if (page === undefined)
      return answerJson(response, 404, { error: 'not found', pages: [...known.keys()] });
    if (!METHODS.includes(request.method!)) {
      response.setHeader('allow', METHODS.join(', '));
      return answerJson(response, 405, { error: 'method not allowed', methods: METHODS });
    }
    try {
      await page(response);
    } catch (error) {
      answerJson(response, 500, { error: error instanceof Error ? error.message : String(error) });
    }
  }

  const options = {
    headersTimeout: REQUEST_MS,
    requestTimeout: REQUEST_MS,
    connectionsCheckingInterval: REQUEST_MS,
  };
  const server = createServer(options, (request, response) => void handle(request, response));
  server.maxConnections = CONNECTIONS_MAX;
  const wanted = printListen(listen.address, listen.port);
  await new Promise<void>((resolve, reject) => {
    server.on('error', (cause) => {
      reject(new Error(`Cannot serve metrics: listening on ${wanted} failed, ${cause.message}`, { cause }));
    });
    server.listen(listen.port, printAddress(listen.address), resolve);
  });
  const { port } = server.address() as AddressInfo;
  return {
    listen: printListen(listen.address, port),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
