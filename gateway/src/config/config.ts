import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { isMap, isNode, isScalar, isSeq, LineCounter, type Node, parseDocument } from 'yaml';
import { z } from 'zod';
import { sinkSchema, sinksProblem, withPaths } from '../flows/sinks/config.js';
import { RULE_SERIES_MAX } from '../metrics/labels.js';
import { parseListen } from '../metrics/server.js';
import { readAddress } from '../net/address.js';
import { printable } from '../text.js';
import { groupsSection, withAbsolutePaths } from './groups.js';
import { checkInventory, inventorySection } from './inventory.js';

export const CONFIG_LIMITS = {
  fileBytesMax: 1 << 20,
  interfacesMax: 16,
  sinksMax: 8,
} as const;

/** `IFNAMSIZ - 1`, and none of what nft or a shell would take amiss. */
const interfaceName = z
  .string()
  .regex(/^[A-Za-z0-9_.@-]{1,15}$/, 'an interface name has 1 to 15 characters of A-Z a-z 0-9 _ . @ -');
const interfaces = z.array(interfaceName).max(CONFIG_LIMITS.interfacesMax);
const path = z.string().min(1);

/** The whole file, for those who ask which keys there are. */
export const configSchema = z.strictObject({
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
    /** Of each source address, which stands for the functions behind one interface: Lambda gives it 65,000 ports. */
    fairness: z
      .strictObject({
        connectionsMax: z.int().min(1).max(100_000_000).default(65_000),
        newConnectionsPerSecondMax: z.int().min(1).max(1_000_000).default(10_000),
      })
      .prefault({}),
  }),
  policy: z.strictObject({ path }),
  inventory: inventorySection.optional(),
  groups: groupsSection,
  snapshot: z.strictObject({ path }).prefault({ path: '/var/lib/sluice-snapshot' }),
  flows: z
    .strictObject({
      sinks: z.array(sinkSchema).max(CONFIG_LIMITS.sinksMax),
      updateSeconds: z.int().min(0).max(86_400).default(300),
    })
    .prefault({ sinks: [{ type: 'stdout' }] }),
  metrics: z
    .strictObject({
      listen: z.string().default('127.0.0.1:9464'),
      /** Rules with series of their own, the busiest first; the rest is summed as `other`. */
      rulesMax: z.int().min(1).max(RULE_SERIES_MAX).default(RULE_SERIES_MAX),
    })
    .prefault({}),
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

/** The node at a path, or the nearest one above it that the file has, and then the path is not complete. */
function locate(
  root: Node,
  keys: readonly PropertyKey[],
): { readonly node: Node; readonly complete: boolean } {
  let node = root;
  for (const key of keys) {
    const next = 'get' in node && typeof node.get === 'function' ? node.get(key, true) : undefined;
    if (!isNode(next)) return { node, complete: false };
    node = next;
  }
  return { node, complete: true };
}

const nodeAt = (root: Node, keys: readonly PropertyKey[]) => locate(root, keys).node;

const EXPECTED: Readonly<Record<string, string>> = {
  object: 'a map',
  array: 'a list',
  string: 'a string',
  boolean: 'true or false',
  int: 'a whole number',
  number: 'a whole number',
};

function found(node: Node): string {
  if (isMap(node)) return 'a map';
  if (isSeq(node)) return 'a list';
  const value = isScalar(node) ? node.value : undefined;
  return value === null || value === undefined ? 'empty' : JSON.stringify(value);
}

function describeType(node: Node, expected: string, where: string): string {
  const what = EXPECTED[expected] ?? expected;
  if (where === '') return `the configuration is ${found(node)}, expected a map with gateway and policy`;
  const isNumber = isScalar(node) && typeof node.value === 'number';
  const hint = expected === 'string' && isNumber ? ': put it in quotes' : '';
  return `${where} is ${found(node)}, expected ${what}${hint}`;
}

function describe(root: Node, issue: z.core.$ZodIssue): string {
  const where = issue.path.join('.');
  const { node, complete } = locate(root, issue.path);
  if (issue.code === 'unrecognized_keys') {
    const keys = issue.keys.map((key) => JSON.stringify(key)).join(', ');
    return `unknown key ${keys}${where === '' ? '' : ` in ${where}`}`;
  }
  if (!complete) return `${where} is missing`;
  switch (issue.code) {
    case 'invalid_type':
      return describeType(node, issue.expected, where);
    case 'too_small':
      if (issue.origin === 'array') return `${where} is empty: give at least one`;
      if (issue.origin === 'string') return `${where} is empty`;
      return `${where} is ${found(node)}: the lowest allowed is ${issue.minimum}`;
    case 'too_big':
      if (issue.origin === 'array') return `${where} is too long: the limit is ${issue.maximum} items`;
      if (issue.origin === 'string')
        return `${where} is longer than the limit of ${issue.maximum} characters`;
      return `${where} is ${found(node)}: the highest allowed is ${issue.maximum}`;
    default:
      return `${where} is ${found(node)}: ${issue.message}`;
  }
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

function checkAcross(
  config: z.output<typeof configSchema>,
): { path: (string | number)[]; message: string }[] {
  const { lambdaInterfaces, egressInterfaces, snat } = config.gateway;
  const problems: { path: (string | number)[]; message: string }[] = [];
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
  if (config.inventory !== undefined) problems.push(...checkInventory(config.inventory));
  const sinks = sinksProblem(config.flows.sinks);
  if (sinks !== undefined) problems.push({ path: ['flows', 'sinks'], message: sinks });
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
  // What follows a first syntax error is mostly its consequence.
  const [broken] = document.errors;
  if (broken !== undefined) {
    throw new ConfigError(at(broken.pos[0], `YAML syntax: ${broken.message.split(' at line')[0]}`));
  }
  const root = document.contents;
  if (root === null) throw new ConfigError(`${file}:1:1: the file is empty, expected gateway and policy`);
  const parsed = configSchema.safeParse(document.toJS({ maxAliasCount: 100 }));
  if (!parsed.success) {
    throw new ConfigError(
      parsed.error.issues.map((issue) => at(offsetOf(root, issue), describe(root, issue))).join('\n'),
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
    groups: withAbsolutePaths(config.groups, absolute),
    snapshot: { path: absolute(config.snapshot.path) },
    state: { path: absolute(config.state.path) },
    admin: { socket: absolute(config.admin.socket) },
    flows: {
      ...config.flows,
      sinks: config.flows.sinks.map((sink) => withPaths(sink, absolute)),
    },
  };
}

/** Why a file can't be read, for those who don't know errno. */
const UNREADABLE: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file',
  EISDIR: 'it is a folder',
  EACCES: 'this user may not read it',
};

/** Reads and parses a configuration file. Throws ConfigError, also for a file that can't be read. */
export function readConfig(file: string): Config {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file);
  } catch (cause) {
    const { code = '', message } = cause as NodeJS.ErrnoException;
    throw new ConfigError(`Cannot read configuration ${file}: ${UNREADABLE[code] ?? message}`, { cause });
  }
  if (bytes.length > CONFIG_LIMITS.fileBytesMax) {
    throw new ConfigError(
      `Cannot read configuration: ${file} has ${bytes.length} bytes, the limit is ${CONFIG_LIMITS.fileBytesMax}`,
    );
  }
  return parseConfig(bytes.toString('utf8'), file);
}
