import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import type { z } from 'zod';
import { comparePrefixes, type Prefix, parsePrefix, printPrefix } from '../net/prefix.js';
import type { GroupPrefixes } from '../policy/evaluate.js';
import type { GroupParts } from '../policy/members.js';
import { DEFAULT_RULE_NAME, type Policy } from '../policy/model.js';
import {
  BODIES_FOLDER,
  bodyDigest,
  functionsBodySchema,
  groupBodySchema,
  type InventoryBody,
  inventoryBodySchema,
  MANIFEST_FILE,
  type Manifest,
  manifestSchema,
  policyBodySchema,
  SNAPSHOT_LIMITS,
} from './format.js';

/** A group as the snapshot has it. */
export interface SnapshotGroup {
  readonly name: string;
  readonly resolved: boolean;
  /** Its prefixes, ascending and distinct, cut as its bodies are: equal bodies of one gateway are the same array. */
  readonly parts: readonly (readonly Prefix[])[];
  /** What is left of it from then on, where addresses in it are known for so long only. */
  readonly expires?: { readonly at: Date; readonly parts: SnapshotGroup['parts'] };
}

/** A snapshot that verified: nothing behind this reader has anything left to refuse. */
export interface Snapshot {
  readonly revision: number;
  readonly createdAt: string;
  /** The same object as in the snapshot read before, where the policy is the same. */
  readonly policy: Policy;
  readonly policyDigest: string;
  /** What the policy was read from; absent where the client does not say. */
  readonly source?: string | undefined;
  readonly groups: readonly SnapshotGroup[];
  readonly inventory: InventoryBody;
  /** The manifest and bodies as they were read, to be kept as the last good ones. */
  readonly manifestBytes: Uint8Array;
  readonly bodies: ReadonlyMap<string, Uint8Array>;
  /** The prefixes of each group body, by digest. */
  readonly parts: ReadonlyMap<string, readonly Prefix[]>;
  /** The functions of each body of them, by digest. */
  readonly functionParts: ReadonlyMap<string, InventoryBody['functions']>;
}

/** What reading a snapshot takes over from the one before. */
export type SnapshotBefore = Pick<
  Snapshot,
  'bodies' | 'parts' | 'functionParts' | 'groups' | 'policy' | 'policyDigest'
>;

/** A snapshot does not verify. It is refused whole, and the one in force stays. */
export class SnapshotError extends Error {
  override readonly name = 'SnapshotError';
}

const refuse = (what: string, cause?: unknown) =>
  new SnapshotError(`Cannot read snapshot: ${what}`, { cause });

/** Reads a regular file, as long as it is when it is opened: no pipe or device can hold the gateway up. */
export async function readBounded(path: string, bytesMax: number): Promise<Uint8Array> {
  const file = openFile(path);
  try {
    const stats = fstatSync(file);
    if (!stats.isFile()) throw refuse(`${path} is not a regular file`);
    if (stats.size > bytesMax) {
      throw refuse(`${path} has ${stats.size} bytes, the limit is ${bytesMax}`);
    }
    const bytes = Buffer.alloc(stats.size);
    return bytes.subarray(0, readSync(file, bytes));
  } finally {
    closeSync(file);
  }
}

function openFile(path: string): number {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ELOOP') throw cause;
    throw refuse(`${path} is not a regular file`, cause);
  }
}

/** Parses JSON against a schema. */
export function parseAs<Schema extends z.ZodType>(
  schema: Schema,
  bytes: Uint8Array,
  what: string,
): z.output<Schema> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw refuse(`${what} is not JSON`, cause);
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0]!;
  throw refuse(`${what} is not as expected at ${JSON.stringify(path.join('.'))}: ${message}`);
}

function parsePrefixes(texts: readonly string[], what: string): Prefix[] {
  try {
    return texts.map(parsePrefix);
  } catch (cause) {
    throw refuse(`${what}: ${(cause as Error).message}`, cause);
  }
}

function checkDuplicates(names: readonly string[], what: string): void {
  const seen = new Set<string>();
  for (const name of names) {
    if (seen.has(name)) throw refuse(`two ${what} are called ${JSON.stringify(name)}`);
    seen.add(name);
  }
}

function parsePolicy(bytes: Uint8Array): Policy {
  const body = parseAs(policyBodySchema, bytes, 'the policy');
  const policy = { ...body, rules: body.rules.toSorted((a, b) => a.priority - b.priority) } as Policy;
  checkDuplicates(
    policy.rules.map((rule) => rule.name),
    'rules',
  );
  return policy;
}

/** What the client should have refused already; its word is not taken for it. */
function checkReferences(policy: Policy, groups: ReadonlyMap<string, SnapshotGroup>): void {
  for (const rule of policy.rules) {
    if (rule.name === DEFAULT_RULE_NAME)
      throw refuse(`a rule is called ${JSON.stringify(DEFAULT_RULE_NAME)}`);
    if (rule.protocol === 'ICMP' && rule.portRanges.length > 0) {
      throw refuse(`rule ${JSON.stringify(rule.name)} has ports with ICMP`);
    }
    for (const name of [...rule.src, ...rule.dst]) {
      const group = groups.get(name);
      if (group === undefined) {
        throw refuse(
          `rule ${JSON.stringify(rule.name)} names group ${JSON.stringify(name)}, which is not there`,
        );
      }
      if (!group.resolved && rule.action !== 'PERMIT' && rule.enforcement === 'ENFORCE') {
        throw refuse(
          `rule ${JSON.stringify(rule.name)} denies by group ${JSON.stringify(name)}, which could not be resolved`,
        );
      }
    }
  }
}

/** Reads bodies by digest, each once, and checks that they are what their name says. */
class BodyReader {
  readonly bodies = new Map<string, Uint8Array>();
  readonly parts = new Map<string, readonly Prefix[]>();
  readonly functionParts = new Map<string, InventoryBody['functions']>();
  #bytes = 0;
  readonly #folder: string;
  readonly #before: SnapshotBefore | undefined;
  readonly #groupsBefore: ReadonlyMap<string, SnapshotGroup>;

  /** What is in the snapshot before needs not be read again: a digest is all that a body is. */
  constructor(folder: string, before: SnapshotBefore | undefined) {
    this.#folder = join(folder, BODIES_FOLDER);
    this.#before = before;
    this.#groupsBefore = new Map(before?.groups.map((group) => [group.name, group]));
  }

  async read(digest: string): Promise<Uint8Array> {
    const known = this.bodies.get(digest);
    if (known !== undefined) return known;
    const bytes =
      this.#before?.bodies.get(digest) ??
      (await readBounded(join(this.#folder, digest), SNAPSHOT_LIMITS.bodyBytesMax));
    if (!this.#before?.bodies.has(digest) && bodyDigest(bytes) !== digest) {
      throw refuse(`body ${digest} does not have this digest`);
    }
    this.#bytes += bytes.length;
    if (this.#bytes > SNAPSHOT_LIMITS.bodiesBytesMax) {
      throw refuse(
        `its bodies have more than ${SNAPSHOT_LIMITS.bodiesBytesMax} bytes, the limit of all together`,
      );
    }
    this.bodies.set(digest, bytes);
    return bytes;
  }

  async group({ name, resolved, expires, ...now }: Manifest['groups'][number]): Promise<SnapshotGroup> {
    const what = `group ${JSON.stringify(name)}`;
    const before = this.#groupsBefore.get(name);
    const parts = await this.#parts(now, what, before?.parts);
    if (expires === undefined) return { name, resolved, parts };
    const left = await this.#parts(expires, `${what} as it expires`, before?.expires?.parts);
    return { name, resolved, parts, expires: { at: new Date(expires.at), parts: left } };
  }

  /** The same array as before, where all parts are. */
  async #parts(
    { prefixCount, bodies }: Pick<Manifest['groups'][number], 'prefixCount' | 'bodies'>,
    what: string,
    before: SnapshotGroup['parts'] | undefined,
  ): Promise<SnapshotGroup['parts']> {
    checkDuplicates(bodies, `bodies of ${what}`);
    const parts: (readonly Prefix[])[] = [];
    let count = 0;
    let last: Prefix | undefined;
    for (const digest of bodies) {
      const part = await this.#part(digest, what);
      if (last !== undefined && part.length > 0) checkOrder(last, part[0]!, what);
      last = part.at(-1) ?? last;
      parts.push(part);
      count += part.length;
      if (count > prefixCount) break;
    }
    if (count !== prefixCount) {
      throw refuse(`${what} has ${count} prefixes, its manifest says ${prefixCount}`);
    }
    const isSame = before?.length === parts.length && before.every((part, index) => part === parts[index]);
    return isSame ? before : parts;
  }

  async inventory({ digest, functions }: Manifest['inventory']): Promise<InventoryBody> {
    const rest = parseAs(inventoryBodySchema, await this.read(digest), 'the inventory');
    checkDuplicates(functions, 'bodies of functions');
    const parts: InventoryBody['functions'][] = [];
    for (const digest of functions) parts.push(await this.#functions(digest));
    const all = parts.flat();
    if (all.length > SNAPSHOT_LIMITS.functionsMax) {
      throw refuse(`it holds ${all.length} functions, the limit is ${SNAPSHOT_LIMITS.functionsMax}`);
    }
    return { ...rest, functions: all };
  }

  async #functions(digest: string): Promise<InventoryBody['functions']> {
    const bytes = await this.read(digest);
    let part = this.functionParts.get(digest) ?? this.#before?.functionParts.get(digest);
    if (part === undefined) {
      part = parseAs(functionsBodySchema, bytes, `body ${digest} of functions`).functions;
      for (const { arn, prefixes, addresses = [] } of part)
        parsePrefixes([...prefixes, ...addresses], `function ${JSON.stringify(arn)}`);
    }
    this.functionParts.set(digest, part);
    return part;
  }

  async #part(digest: string, what: string): Promise<readonly Prefix[]> {
    const bytes = await this.read(digest);
    let part = this.parts.get(digest) ?? this.#before?.parts.get(digest);
    if (part === undefined) {
      const body = parseAs(groupBodySchema, bytes, `body ${digest} of ${what}`);
      part = parsePrefixes(body.prefixes, what);
      for (let index = 1; index < part.length; index++) checkOrder(part[index - 1]!, part[index]!, what);
    }
    this.parts.set(digest, part);
    return part;
  }
}

function checkOrder(before: Prefix, after: Prefix, what: string): void {
  if (comparePrefixes(before, after) < 0) return;
  throw refuse(`${what} has ${printPrefix(after)} after ${printPrefix(before)}, its prefixes must ascend`);
}

/**
 * Reads the snapshot in a folder and verifies all of it: digests, schema, canonical prefixes, references, limits.
 * Rejects with SnapshotError, or with a system error (ENOENT: there is none).
 *
 * Cost: the bodies that are not in `before`, the snapshot that was read last.
 */
export async function readSnapshot(
  folder: string,
  before?: SnapshotBefore,
  manifestFile = MANIFEST_FILE,
): Promise<Snapshot> {
  const manifestBytes = await readBounded(join(folder, manifestFile), SNAPSHOT_LIMITS.manifestBytesMax);
  const manifest = parseAs(manifestSchema, manifestBytes, 'the manifest');
  const total = manifest.groups.reduce((sum, group) => sum + group.prefixCount, 0);
  if (total > SNAPSHOT_LIMITS.prefixesMax) {
    throw refuse(`its groups hold ${total} prefixes, the limit is ${SNAPSHOT_LIMITS.prefixesMax}`);
  }
  const reader = new BodyReader(folder, before);
  try {
    const policyDigest = manifest.policy.digest;
    const policyBytes = await reader.read(policyDigest);
    const policy = before?.policyDigest === policyDigest ? before.policy : parsePolicy(policyBytes);
    checkDuplicates(
      manifest.groups.map((group) => group.name),
      'groups',
    );
    const groups: SnapshotGroup[] = [];
    for (const group of manifest.groups) groups.push(await reader.group(group));
    checkReferences(policy, new Map(groups.map((group) => [group.name, group])));
    const inventory = await reader.inventory(manifest.inventory);
    const { revision, createdAt } = manifest;
    const { source } = manifest.policy;
    const { bodies, parts, functionParts } = reader;
    const read = { policy, policyDigest, source, groups, inventory };
    return { revision, createdAt, ...read, manifestBytes, bodies, parts, functionParts };
  } catch (error) {
    if (error instanceof SnapshotError) throw error;
    throw refuse(`a body that the manifest names can't be read: ${(error as Error).message}`, error);
  }
}

/** A snapshot at a time: without the members of groups that have expired; the same object where none has. */
export function snapshotAt(snapshot: Snapshot, at: Date): Snapshot {
  const { groups } = snapshot;
  if (groups.every(({ expires }) => expires === undefined || at < expires.at)) return snapshot;
  const left = groups.map((group): SnapshotGroup => {
    const { name, resolved, expires } = group;
    return expires === undefined || at < expires.at ? group : { name, resolved, parts: expires.parts };
  });
  return { ...snapshot, groups: left };
}

/** The prefixes of each group by name. */
export function groupPrefixes(snapshot: Snapshot): GroupPrefixes {
  return new Map(snapshot.groups.map(({ name, parts }) => [name, parts.flat()]));
}

/** The same in parts, as the compiler takes them. */
export function groupParts(snapshot: Snapshot): GroupParts {
  return new Map(snapshot.groups.map(({ name, parts }) => [name, parts]));
}

/** How many prefixes a group has. */
export const prefixCountOf = ({ parts }: SnapshotGroup) => parts.reduce((sum, part) => sum + part.length, 0);
