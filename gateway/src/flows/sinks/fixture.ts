import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { createServer as createHttpServer, type IncomingMessage } from 'node:http';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { createServer as createTlsServer, type TlsOptions } from 'node:tls';
import { gunzipSync } from 'node:zlib';
import type { FlowRecord } from '../record.js';
import type { SinkInput } from './config.js';
import { decodeIpfix } from './ipfix.fixture.js';
import { guardBroker, LOGIN } from './kafka.fixture.js';

/** A record that its source port tells from others. */
export const numbered = (port: number): FlowRecord => ({
  schema: 'sluice.flow/1',
  time: '2026-01-02T03:04:05.678Z',
  event: 'deny',
  verdict: 'DENY',
  enforced: true,
  reason: 'rule',
  rule: { name: 'no-telnet', priority: 5 },
  gateway: 'gw-a',
  src: { ip: '10.0.0.5', port, functions: [], groups: [] },
  dst: { ip: '10.20.0.9', port: 23, groups: [] },
  protocol: 'TCP',
});

/** What a receiver has received: source ports in order. */
export interface Receiver {
  readonly port: number;
  readonly ports: number[];
  close(): Promise<void>;
}

/** A kind of sink before a receiver of its own. */
export interface Stand {
  readonly name: string;
  /** False: what is sent while nobody receives is lost, and nobody knows. */
  readonly isReliable: boolean;
  readonly keepsOrder: boolean;
  readonly config: (port: number) => SinkInput;
  /** On a port that an earlier one had, where it is given. Undefined where this machine has no such receiver. */
  readonly receive: (port?: number) => Promise<Receiver | undefined>;
}

const portsOf = (lines: readonly string[]) =>
  lines.map((line) => (JSON.parse(line) as FlowRecord).src!.port!);
const linesOf = (text: string) => text.split('\n').filter((line) => line !== '');

/** Version 1, of RFC 5424's grammar; throws for anything else, and gives the message. */
export function parseSyslog(text: string): string {
  const found =
    /^<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z) ([\x21-\x7e]{1,255}) ([\x21-\x7e]{1,48}) ([\x21-\x7e]{1,128}) ([\x21-\x7e]{1,32}) (?:-|\[[^\]]+\]) (.*)$/s.exec(
      text,
    );
  if (found === null || Number(found[1]) > 191) throw new Error(`not RFC 5424: ${text}`);
  return found[7]!;
}

/** A server whose connections end with it. */
async function listening(server: Server, port: number, ports: number[]): Promise<Receiver> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined).on('close', () => sockets.delete(socket));
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    ports,
    close: async () => {
      server.close();
      for (const socket of sockets) socket.destroy();
      await once(server, 'close');
    },
  };
}

/** `LENGTH SP MESSAGE`, again and again. */
function unframe(ports: number[]) {
  return (socket: Socket) => {
    let text = '';
    socket.setEncoding('latin1').on('data', (part: string) => {
      text += part;
      for (let found = /^(\d+) /.exec(text); found !== null; found = /^(\d+) /.exec(text)) {
        const end = found[0].length + Number(found[1]);
        if (text.length < end) return;
        ports.push(...portsOf([parseSyslog(text.slice(found[0].length, end))]));
        text = text.slice(end);
      }
    });
  };
}

async function datagrams(port: number, read: (bytes: Buffer) => number[]): Promise<Receiver> {
  const socket = createSocket({ type: 'udp4', recvBufferSize: 4 << 20 });
  const ports: number[] = [];
  socket.on('message', (bytes) => ports.push(...read(bytes))).bind(port, '127.0.0.1');
  await once(socket, 'listening');
  const close = async () => {
    socket.close();
    await once(socket, 'close');
  };
  return { port: socket.address().port, ports, close };
}

async function body(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part);
  const all = Buffer.concat(parts);
  return (request.headers['content-encoding'] === 'gzip' ? gunzipSync(all) : all).toString();
}

function http(port: number, read: (text: string, request: IncomingMessage) => number[]): Promise<Receiver> {
  const ports: number[] = [];
  const server = createHttpServer(async (request, response) => {
    ports.push(...read(await body(request), request));
    response.end();
  });
  return listening(server, port, ports);
}

interface OtlpRequest {
  resourceLogs: {
    scopeLogs: { logRecords: { attributes: { key: string; value: { intValue?: string } }[] }[] }[];
  }[];
}

const otlpPorts = (text: string) =>
  (JSON.parse(text) as OtlpRequest).resourceLogs[0]!.scopeLogs[0]!.logRecords.map(({ attributes }) =>
    Number(attributes.find(({ key }) => key === 'source.port')!.value.intValue),
  );

/** Signed by itself, for 127.0.0.1. */
function certificate(folder: string): { readonly cert: string; readonly key: string } {
  const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
  const words = 'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost';
  if (!existsSync(cert))
    execFileSync(
      'openssl',
      [
        ...words.split(' '),
        '-addext',
        'subjectAltName=DNS:localhost,IP:127.0.0.1',
        '-keyout',
        key,
        '-out',
        cert,
      ],
      { stdio: 'pipe' },
    );
  return { cert, key };
}

/** librdkafka's own mock cluster lives in the kcat that reads from it. */
async function kafka(): Promise<Receiver | undefined> {
  if (spawnSync('kcat', ['-V']).status !== 0) return undefined;
  const ports: number[] = [];
  const words = '-b 127.0.0.1:1 -X test.mock.num.brokers=1 -X debug=mock -C -t flows -o beginning -u';
  const child: ChildProcess = spawn('kcat', words.split(' '), { stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  child.stdout!.setEncoding('utf8').on('data', (part: string) => {
    text += part;
    const lines = text.split('\n');
    text = lines.pop()!;
    ports.push(...portsOf(lines));
  });
  const port = await new Promise<number>((resolve) => {
    let log = '';
    child.stderr!.setEncoding('utf8').on('data', (part: string) => {
      log += part;
      const found = /bootstrap\.servers=127\.0\.0\.1:(\d+)/.exec(log);
      // Consuming before the first record comes: the topic is there.
      if (found !== null && log.includes('ListOffsetsResponse')) resolve(Number(found[1]));
    });
  });
  const close = async () => {
    child.kill('SIGKILL');
    await once(child, 'close');
  };
  return { port, ports, close };
}

async function guardedKafka(secure: TlsOptions): Promise<Receiver | undefined> {
  const broker = await kafka();
  if (broker === undefined) return undefined;
  const guard = await listening(guardBroker(broker.port, secure), 0, broker.ports);
  return {
    ...guard,
    close: async () => {
      await guard.close();
      await broker.close();
    },
  };
}

/** What a broker that asks who is there takes; `username` is ours where it is left out. */
export function guardedKafkaSink(folder: string, port: number, username: string = LOGIN.username): SinkInput {
  process.env.KAFKA_PASSWORD = LOGIN.password;
  return {
    ...{ type: 'kafka', brokers: [`127.0.0.1:${port}`], topic: 'flows' },
    tls: { caFile: certificate(folder).cert, serverName: 'localhost' },
    sasl: { mechanism: 'plain', username, password: { env: 'KAFKA_PASSWORD' } },
  };
}

export function stands(folder: string): readonly Stand[] {
  const file = join(folder, 'flows.jsonl');
  const syslog = (protocol: 'udp' | 'tcp' | 'tls') => (port: number) => ({
    type: 'syslog' as const,
    address: `127.0.0.1:${port}`,
    protocol,
    ...(protocol === 'tls' && { tls: { caFile: certificate(folder).cert, serverName: 'localhost' } }),
  });
  const always = { isReliable: true, keepsOrder: true };
  const secure = () => {
    const { cert, key } = certificate(folder);
    return { cert: readFileSync(cert), key: readFileSync(key) };
  };
  return [
    {
      name: 'file',
      ...always,
      config: () => ({ type: 'file', path: file }),
      receive: async () => ({
        port: 0,
        get ports() {
          return existsSync(file) ? portsOf(linesOf(readFileSync(file, 'utf8'))) : [];
        },
        close: async () => undefined,
      }),
    },
    {
      name: 'syslog over UDP',
      isReliable: false,
      keepsOrder: true,
      config: syslog('udp'),
      receive: (port = 0) => datagrams(port, (bytes) => portsOf([parseSyslog(bytes.toString())])),
    },
    {
      name: 'syslog over TCP',
      ...always,
      config: syslog('tcp'),
      receive: (port = 0) => {
        const ports: number[] = [];
        return listening(createServer(unframe(ports)), port, ports);
      },
    },
    {
      name: 'syslog over TLS',
      ...always,
      config: syslog('tls'),
      receive: (port = 0) => {
        const ports: number[] = [];
        return listening(createTlsServer(secure(), unframe(ports)), port, ports);
      },
    },
    {
      name: 'HTTP',
      ...always,
      config: (port) => ({ type: 'http', url: `http://127.0.0.1:${port}/in` }),
      receive: (port = 0) => http(port, (text) => portsOf(linesOf(text))),
    },
    {
      name: 'OTLP',
      ...always,
      config: (port) => ({ type: 'otlp', url: `http://127.0.0.1:${port}/v1/logs` }),
      receive: (port = 0) => http(port, otlpPorts),
    },
    {
      name: 'IPFIX',
      isReliable: false,
      keepsOrder: true,
      config: (port) => ({ type: 'ipfix', address: `127.0.0.1:${port}` }),
      receive: (port = 0) => {
        const templates: Parameters<typeof decodeIpfix>[1] = new Map();
        return datagrams(port, (bytes) =>
          decodeIpfix(bytes, templates).records.map((record) => record.get('7')!.readUInt16BE()),
        );
      },
    },
    {
      name: 'Kafka',
      isReliable: true,
      keepsOrder: false,
      config: (port) => ({ type: 'kafka', brokers: [`127.0.0.1:${port}`], topic: 'flows' }),
      receive: (port) => (port === undefined ? kafka() : Promise.resolve(undefined)),
    },
    {
      name: 'Kafka over TLS, with a password',
      isReliable: true,
      keepsOrder: false,
      config: (port) => guardedKafkaSink(folder, port),
      receive: (port) => (port === undefined ? guardedKafka(secure()) : Promise.resolve(undefined)),
    },
    {
      name: 'S3',
      ...always,
      config: (port) => ({
        type: 's3',
        bucket: 'flow-logs',
        prefix: 'sluice/',
        region: 'us-east-1',
        endpoint: `http://127.0.0.1:${port}`,
      }),
      receive: (port = 0) =>
        http(port, (text, { method, url = '' }) => {
          if (
            method !== 'PUT' ||
            !/^\/flow-logs\/sluice\/\d{4}\/\d\d\/\d\d\/\d\d\/gw-a-\d{8}T\d{6}Z-/.test(url)
          )
            throw new Error(`${method} ${url}`);
          return portsOf(linesOf(text));
        }),
    },
  ];
}
