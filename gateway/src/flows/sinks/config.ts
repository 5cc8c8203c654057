import { z } from 'zod';
import { FORMATS } from '../format.js';
import { VPC_FIELDS, type VpcField } from '../formats/vpc-flow-log.js';
import { FACILITIES, type Facility } from './syslog.js';

/** Limits of what a configuration may ask for. */
const SINK_LIMITS = { queueRecordsMax: 10_000_000, bytesMax: 2 ** 40, keepFiles: 10_000 } as const;

const path = z.string().min(1);
const bytes = (least: number) => z.int().min(least).max(SINK_LIMITS.bytesMax);
const ENDPOINT = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:[\]]+)):([0-9]{1,5})$/;

/** `HOST:PORT`, of which the host may be an IPv6 address in brackets. */
const endpoint = z
  .string()
  .regex(ENDPOINT, 'expected HOST:PORT, as collector.example:4739 or [2001:db8::1]:4739')
  .transform((text) => {
    const [, bracketed, plain, port] = ENDPOINT.exec(text)!;
    return { host: bracketed ?? plain!, port: Number(port) };
  });

/** A secret stands in a file or in the environment, never in the configuration. */
const secret = z.union([z.strictObject({ file: path }), z.strictObject({ env: z.string().min(1) })], {
  error: 'expected { file: PATH } or { env: NAME }: a secret does not stand in the configuration',
});
export type Secret = z.output<typeof secret>;

const tls = z.strictObject({
  caFile: path.optional(),
  certFile: path.optional(),
  keyFile: path.optional(),
  serverName: z.string().min(1).optional(),
});

/** What every sink has: its name in metrics, and how much of it may wait where. */
const common = {
  name: z
    .string()
    .regex(/^[\w.:@/-]{1,64}$/, 'expected 1 to 64 of A-Z a-z 0-9 _ . : @ / -')
    .optional(),
  queueRecordsMax: z.int().min(1).max(SINK_LIMITS.queueRecordsMax).optional(),
  queueBytesMax: bytes(1 << 16).optional(),
  spill: z.strictObject({ path, bytesMax: bytes(1 << 20).default(1 << 30) }).optional(),
};

const format = {
  format: z.enum(FORMATS, { error: `expected ${FORMATS.join(', ')}` }).default('sluice'),
  fields: z
    .array(z.enum(VPC_FIELDS as [VpcField, ...VpcField[]], { error: `expected ${VPC_FIELDS.join(', ')}` }))
    .min(1)
    .optional(),
  gatewayIp: z.union([z.ipv4(), z.ipv6()], { error: 'expected an address' }).optional(),
};

/** Names of headers that hold one. */
const SECRET = /authorization|cookie|token|secret|key/i;

const httpParts = {
  url: z.url({ protocol: /^https?$/, error: 'expected an http or https URL' }),
  headers: z
    .record(z.string().regex(/^[\w-]+$/), z.union([z.string(), secret]))
    .refine(
      (headers) =>
        !Object.entries(headers).some(([name, value]) => SECRET.test(name) && typeof value === 'string'),
      {
        error: 'a header that holds a secret should be { file: PATH } or { env: NAME }',
      },
    )
    .default({}),
  gzip: z.boolean().default(true),
  tls: tls.optional(),
};

const sinks = {
  stdout: z.strictObject({ type: z.literal('stdout'), ...common, ...format }),
  file: z.strictObject({
    type: z.literal('file'),
    ...common,
    ...format,
    path,
    rotate: z
      .strictObject({
        bytesMax: bytes(1 << 10).default(256 << 20),
        seconds: z.int().min(1).max(31_536_000).default(86_400),
        keepFiles: z.int().min(1).max(SINK_LIMITS.keepFiles).default(14),
        gzip: z.boolean().default(true),
      })
      .optional(),
  }),
  syslog: z.strictObject({
    type: z.literal('syslog'),
    ...common,
    ...format,
    address: endpoint,
    protocol: z.enum(['udp', 'tcp', 'tls'], { error: 'expected udp, tcp or tls' }),
    facility: z.enum(Object.keys(FACILITIES) as [Facility, ...Facility[]]).default('local3'),
    tls: tls.optional(),
  }),
  http: z.strictObject({ type: z.literal('http'), ...common, ...format, ...httpParts }),
  otlp: z.strictObject({ type: z.literal('otlp'), ...common, ...httpParts }),
  ipfix: z.strictObject({
    type: z.literal('ipfix'),
    ...common,
    address: endpoint,
    observationDomain: z.int().min(0).max(0xffff_ffff).default(0),
    templateSeconds: z.int().min(1).max(86_400).default(60),
  }),
  kafka: z.strictObject({
    type: z.literal('kafka'),
    ...common,
    ...format,
    brokers: z.array(z.string().regex(ENDPOINT, 'expected HOST:PORT')).min(1).max(64),
    topic: z.string().regex(/^[\w.-]{1,249}$/, 'expected 1 to 249 of A-Z a-z 0-9 _ . -'),
    tls: tls.optional(),
    sasl: z
      .strictObject({
        mechanism: z.enum(['plain', 'scram-sha-256', 'scram-sha-512']),
        username: z.string().min(1),
        password: secret,
      })
      .optional(),
  }),
  s3: z.strictObject({
    type: z.literal('s3'),
    ...common,
    ...format,
    bucket: z.string().regex(/^[a-z0-9.-]{3,63}$/, 'expected the name of a bucket'),
    prefix: z.string().max(512).default(''),
    region: z
      .string()
      .regex(/^[a-z0-9-]{1,32}$/)
      .optional(),
    endpoint: z.url({ protocol: /^https?$/ }).optional(),
    everySeconds: z.int().min(1).max(3_600).default(60),
  }),
};

const SINK_TYPES = Object.keys(sinks) as readonly (keyof typeof sinks)[];

/** A sink of the configuration. */
export const sinkSchema = z.discriminatedUnion(
  'type',
  [sinks.stdout, sinks.file, sinks.syslog, sinks.http, sinks.otlp, sinks.ipfix, sinks.kafka, sinks.s3],
  { error: `expected ${SINK_TYPES.slice(0, -1).join(', ')} or ${SINK_TYPES.at(-1)}` },
);
export type SinkConfig = z.output<typeof sinkSchema>;
/** With defaults left out. */
export type SinkInput = z.input<typeof sinkSchema>;

const isPathKey = (key: string) => key === 'path' || key === 'file' || key.endsWith('File');

/** The same with relative paths made absolute, wherever they stand. */
export function withPaths<T>(config: T, absolute: (path: string) => string): T {
  if (Array.isArray(config) || typeof config !== 'object' || config === null) return config;
  const entries = Object.entries(config).map(([key, value]) => [
    key,
    isPathKey(key) && typeof value === 'string' ? absolute(value) : withPaths(value, absolute),
  ]);
  return Object.fromEntries(entries) as T;
}

/** As metrics and the log call it. */
export function sinkName(config: SinkConfig): string {
  if (config.name !== undefined) return config.name;
  switch (config.type) {
    case 'stdout':
      return 'stdout';
    case 'file':
      return `file:${config.path}`;
    case 'syslog':
    case 'ipfix':
      return `${config.type}:${config.address.host}:${config.address.port}`;
    case 'http':
    case 'otlp':
      return `${config.type}:${new URL(config.url).host}`;
    case 'kafka':
      return `kafka:${config.topic}`;
    case 's3':
      return `s3:${config.bucket}`;
    default:
      return config satisfies never;
  }
}

/** What is wrong between sinks: two of one name could not be told apart, nor records that two spilled to one folder. */
export function sinksProblem(configs: readonly SinkConfig[]): string | undefined {
  const twice = (values: readonly string[]) => values.find((value, index) => values.indexOf(value) !== index);
  const name = twice(configs.map(sinkName));
  if (name !== undefined) return `two sinks are called "${name}": give one of them another name`;
  const folder = twice(configs.flatMap(({ spill }) => (spill === undefined ? [] : [spill.path])));
  return folder === undefined ? undefined : `two sinks spill to "${folder}": give each a folder of its own`;
}
