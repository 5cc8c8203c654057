import { readFile } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import type { Log } from '../../log.js';
import { type Format, formatOf } from '../format.js';
import { ipfixFormat } from '../formats/ipfix.js';
import { type FlowSink, type Output, QueuedSink, type QueueOptions } from '../queue.js';
import { Spill } from '../spill.js';
import { type Secret, type SinkConfig, sinkName } from './config.js';
import { FileOutput } from './file.js';
import { HttpOutput, LINES } from './http.js';
import { IpfixOutput } from './ipfix.js';
import { KafkaOutput } from './kafka.js';
import { otlpBody, otlpFormat } from './otlp.js';
import { S3Output } from './s3.js';
import { StreamOutput } from './stdout.js';
import type { TlsParts } from './stream.js';
import { syslogFormat, syslogOutput } from './syslog.js';

/** How a kind of sink turns records into items, where they go, and what of the queue is its own. */
interface Kind {
  readonly format: Format;
  readonly output: Output;
  readonly queue?: Partial<QueueOptions>;
}

/** Over a network: a request for each record would cost more than waiting a moment for more of them. */
const REQUESTS = { batchWaitMs: 1_000 } as const;
/** Two `stat` a batch: not for every few records. */
const FILE_BATCH = { batchRecordsMax: 5_000, batchBytesMax: 4 << 20 } as const;
const S3_BATCH = { batchRecordsMax: 50_000, batchBytesMax: 32 << 20 } as const;

/** Throws naming the file or the variable, never what is in it. */
async function readSecret(secret: Secret): Promise<string> {
  if ('file' in secret) return (await readFile(secret.file, 'utf8')).trimEnd();
  const value = process.env[secret.env];
  if (value === undefined)
    throw new Error(`Cannot read secret: there is no environment variable ${secret.env}`);
  return value;
}

async function readTls(
  config: Extract<SinkConfig, { type: 'syslog' }>['tls'],
): Promise<TlsParts | undefined> {
  if (config === undefined) return undefined;
  const read = async (file: string | undefined) => (file === undefined ? undefined : readFile(file));
  const { serverName } = config;
  const [ca, cert, key] = await Promise.all([config.caFile, config.certFile, config.keyFile].map(read));
  const parts = { ca, cert, key, servername: serverName };
  return Object.fromEntries(Object.entries(parts).filter(([, value]) => value !== undefined));
}

async function readHeaders(
  headers: Readonly<Record<string, string | Secret>>,
): Promise<Record<string, string>> {
  const entries = Object.entries(headers).map(
    async ([name, value]) => [name, typeof value === 'string' ? value : await readSecret(value)] as const,
  );
  return Object.fromEntries(await Promise.all(entries));
}

/** The first address of this machine that others may know it by. */
function ownAddress(): string {
  const addresses = Object.values(networkInterfaces()).flatMap((list = []) => list);
  return addresses.find(({ internal }) => !internal)?.address ?? '0.0.0.0';
}

function textFormat(config: Extract<SinkConfig, { format: unknown }>): Format {
  return formatOf(config.format, { fields: config.fields, gatewayIp: config.gatewayIp ?? ownAddress() });
}

async function open(config: SinkConfig, gateway: string): Promise<Kind> {
  switch (config.type) {
    case 'stdout':
      return { format: textFormat(config), output: new StreamOutput(process.stdout) };
    case 'file':
      return {
        format: textFormat(config),
        output: await FileOutput.open(config.path, config.rotate),
        queue: FILE_BATCH,
      };
    case 'syslog': {
      const [format, tls = {}] = [textFormat(config), await readTls(config.tls)];
      const output = syslogOutput({ ...config.address, protocol: config.protocol, tls });
      // An Aviatrix line has its own header.
      return {
        format: config.format === 'aviatrix' ? format : syslogFormat(format, config.facility),
        output,
      };
    }
    case 'http':
    case 'otlp': {
      const isOtlp = config.type === 'otlp';
      const { url, gzip } = config;
      const [headers, tls] = [await readHeaders(config.headers), await readTls(config.tls)];
      const output = new HttpOutput({ url, gzip, headers, tls, body: isOtlp ? otlpBody(gateway) : LINES });
      return { format: isOtlp ? otlpFormat : textFormat(config), output, queue: REQUESTS };
    }
    case 'ipfix':
      return { format: ipfixFormat, output: new IpfixOutput({ ...config, ...config.address }) };
    case 'kafka': {
      const { brokers, topic, sasl } = config;
      const password = sasl && (await readSecret(sasl.password));
      const login = sasl && { ...sasl, password: password! };
      const tls = await readTls(config.tls);
      const output = new KafkaOutput({ brokers, topic, clientId: `sluice-${gateway}`, tls, sasl: login });
      return { format: textFormat(config), output, queue: REQUESTS };
    }
    case 's3': {
      const queue = { ...S3_BATCH, batchWaitMs: config.everySeconds * 1_000 };
      return { format: textFormat(config), output: new S3Output({ ...config, gateway }), queue };
    }
    default:
      return config satisfies never;
  }
}

export interface OpenOptions {
  /** Name of the gateway. */
  readonly gateway: string;
  readonly log: Log;
  /** For tests. */
  readonly queue?: Partial<QueueOptions>;
}

/**
 * Opens a sink; throws when its file can't be opened now, or a secret not be read. What fails later, a receiver that does
 * not answer yet too, is tried again, counted and logged.
 */
export async function openSink(
  config: SinkConfig,
  { gateway, log, queue = {} }: OpenOptions,
): Promise<FlowSink> {
  const kind = await open(config, gateway);
  const { queueRecordsMax, queueBytesMax } = config;
  const spill = config.spill && (await Spill.open(config.spill.path, config.spill.bytesMax));
  return new QueuedSink(
    { name: sinkName(config), format: kind.format, output: kind.output, spill, log },
    {
      ...kind.queue,
      ...(queueRecordsMax !== undefined && { queueRecordsMax }),
      ...(queueBytesMax !== undefined && { queueBytesMax }),
      ...queue,
    },
  );
}
