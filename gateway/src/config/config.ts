import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { isMap, isNode, LineCounter, type Node, parseDocument } from 'yaml';
import { z } from 'zod';
import { parseListen } from '../metrics/server.js';
import { readAddress } from '../net/address.js';
import { printable } from '../text.js';

export const CONFIG_LIMITS = {
  fileBytesMax: 1 << 20,
  interfacesMax: 16,
  accountsMax: 1_000,
  sinksMax: 8,
} as const;

/** `IFNAMSIZ - 1`, and none of what nft or a shell would take amiss. */
const interfaceName = z
  .string()
  .regex(/^[A-Za-z0-9_.@-]{1,15}$/, 'an interface name has 1 to 15 characters of A-Z a-z 0-9 _ . @ -');
const interfaces = z.array(interfaceName).max(CONFIG_LIMITS.interfacesMax);
const path = z.string().min(1);

const configSchema = z.strictObject({
  gateway: z.strictObject({
    name: z.string().min(1).max(64),
    lambdaInterfaces: interfaces.min(1),
    egressInterfaces: interfaces.min(1),
    snat: z
      .strictObject({
        interfaces: interfaces.min(1),
        to: z.string().refine((text) => text === 'masquerade' || readAddress(text) !== undefined, {
          error: 'expected masquerade, or an address to translate sources to',
        }),
      })
      .optional(),
    input: z.strictObject({ icmp: z.boolean().default(false) }).prefault({}),
  }),
  policy: z.strictObject({ path }),
  inventory: z
    .strictObject({
      aws: z.strictObject({
        accounts: z
          .array(
            z.strictObject({
              id: z.string().regex(/^[0-9]{12}$/, 'an AWS account id has 12 digits: put it in quotes'),
              regions: z
                .array(z.string().regex(/^[a-z0-9-]{1,32}$/, 'expected a region such as us-east-1'))
                .min(1),
              profile: z.string().min(1).optional(),
            }),
          )
          .min(1)
          .max(CONFIG_LIMITS.accountsMax),
        refreshSeconds: z.int().min(1).max(86_400).default(60),
      }),
    })
    .optional(),
  snapshot: z.strictObject({ path }).prefault({ path: '/var/lib/sluice-snapshot' }),
  flows: z
    .strictObject({
      sinks: z
        .array(
          z.discriminatedUnion('type', [
            z.strictObject({ type: z.literal('stdout') }),
            z.strictObject({ type: z.literal('file'), path }),
          ]),
        )
        .max(CONFIG_LIMITS.sinksMax),
    })
    .prefault({ sinks: [{ type: 'stdout' }] }),
  metrics: z.strictObject({ listen: z.string() }).prefault({ listen: '127.0.0.1:9464' }),
  admin: z.strictObject({ socket: path }).prefault({ socket: '/run/sluice/admin.sock' }),
  state: z.strictObject({ path }).prefault({ path: '/var/lib/sluice' }),
  /** The user that the controller client runs as, when `sluice run` starts it as root. */
  controllerClient: z.strictObject({ user: z.string().min(1) }).prefault({ user: 'nobody' }),
});

/** The configuration with defaults filled in and paths absolute. */
export type Config = z.output<typeof configSchema> & { readonly file: string };

/** What is wrong with a configuration file, one `file:line:column: message` a line. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

/** The node at a path, or the nearest one above it that the file has. */
function nodeAt(root: Node, keys: readonly PropertyKey[]): Node {
  let node = root;
  for (const key of keys) {
    const next = 'get' in node && typeof node.get === 'function' ? node.get(key, true) : undefined;
    if (!isNode(next)) break;
    node = next;
  }
  return node;
}

function describe(issue: z.core.$ZodIssue): string {
  const where = issue.path.join('.');
  return where === '' ? issue.message : `${where}: ${issue.message}`;
}

/** Where in the file an issue is: an unknown key is at itself, anything else at its value. */
function offsetOf(root: Node, issue: z.core.$ZodIssue): number {
  const node = nodeAt(root, issue.path);
  if (issue.code === 'unrecognized_keys' && isMap(node)) {
    const pair = node.items.find(({ key }) => isNode(key) && 'value' in key && key.value === issue.keys[0]);
    if (pair !== undefined && isNode(pair.key)) return pair.key.range?.[0] ?? 0;
  }
  return node.range?.[0] ?? 0;
}

function checkAcross(config: z.output<typeof configSchema>): { path: string[]; message: string }[] {
  const { lambdaInterfaces, egressInterfaces, snat } = config.gateway;
  const problems: { path: string[]; message: string }[] = [];
  const both = lambdaInterfaces.find((name) => egressInterfaces.includes(name));
  if (both !== undefined) {
    problems.push({
      path: ['gateway', 'egressInterfaces'],
      message: `"${both}" is a Lambda interface too: an interface has one side`,
    });
  }
  const stranger = snat?.interfaces.find((name) => !egressInterfaces.includes(name));
  if (stranger !== undefined) {
    problems.push({
      path: ['gateway', 'snat', 'interfaces'],
      message: `"${stranger}" is not among the egress interfaces ${egressInterfaces.join(', ')}`,
    });
  }
  const scopes = config.inventory?.aws.accounts.flatMap(({ id, regions }) =>
    regions.map((region) => `${id} ${region}`),
  );
  const twice = scopes?.find((scope, index) => scopes.indexOf(scope) !== index);
  if (twice !== undefined) {
    problems.push({
      path: ['inventory', 'aws', 'accounts'],
      message: `account and region ${twice} are given twice`,
    });
  }
  try {
    parseListen(config.metrics.listen);
  } catch (error) {
    problems.push({ path: ['metrics', 'listen'], message: (error as Error).message });
  }
  return problems;
}

/** Parses a configuration; `file` is for messages and for relative paths. Throws ConfigError. */
export function parseConfig(text: string, file: string): Config {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  const at = (offset: number, message: string) => {
    const { line, col } = lines.linePos(offset);
    return printable(`${file}:${line}:${col}: ${message}`);
  };
  if (document.errors.length > 0) {
    throw new ConfigError(
      document.errors.map(({ pos, message }) => at(pos[0], message.split(' at line')[0]!)).join('\n'),
    );
  }
  const root = document.contents;
  if (root === null) throw new ConfigError(`${file}:1:1: the file is empty, expected gateway and policy`);
  const parsed = configSchema.safeParse(document.toJS({ maxAliasCount: 100 }));
  if (!parsed.success) {
    throw new ConfigError(
      parsed.error.issues.map((issue) => at(offsetOf(root, issue), describe(issue))).join('\n'),
    );
  }
  const problems = checkAcross(parsed.data);
  if (problems.length > 0) {
    throw new ConfigError(
      problems.map(({ path, message }) => at(nodeAt(root, path).range?.[0] ?? 0, message)).join('\n'),
    );
  }
  const config = parsed.data;
  const absolute = (relative: string) => resolve(dirname(file), relative);
  return {
    ...config,
    file: resolve(file),
    policy: { path: absolute(config.policy.path) },
    snapshot: { path: absolute(config.snapshot.path) },
    state: { path: absolute(config.state.path) },
    admin: { socket: absolute(config.admin.socket) },
    flows: {
      sinks: config.flows.sinks.map((sink) =>
        sink.type === 'file' ? { ...sink, path: absolute(sink.path) } : sink,
      ),
    },
  };
}

/** Reads and parses a configuration file. Throws ConfigError, also for a file that can't be read. */
export function readConfig(file: string): Config {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file);
  } catch (cause) {
    throw new ConfigError(`Cannot read configuration: ${(cause as Error).message}`, { cause });
  }
  if (bytes.length > CONFIG_LIMITS.fileBytesMax) {
    throw new ConfigError(
      `Cannot read configuration: ${file} has ${bytes.length} bytes, the limit is ${CONFIG_LIMITS.fileBytesMax}`,
    );
  }
  return parseConfig(bytes.toString('utf8'), file);
}
