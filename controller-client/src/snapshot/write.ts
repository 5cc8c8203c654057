import { type Prefix, printPrefix } from 'sluice-gateway/net/prefix.js';
import type { Policy } from 'sluice-gateway/policy/model.js';
import {
  openSnapshotFolder,
  type SnapshotStore,
  storeBodies,
  storeSnapshot,
} from 'sluice-gateway/snapshot/folder.js';
import {
  bodyDigest,
  canonicalJson,
  digestsOf,
  functionsBodySchema,
  type InventoryBody,
  inventoryBodySchema,
  type Manifest,
  manifestSchema,
  policyBodySchema,
  SNAPSHOT_FORMAT,
  SNAPSHOT_LIMITS,
} from 'sluice-gateway/snapshot/format.js';
import type { z } from 'zod';
import type { FeedStatus } from '../feeds/keeper.js';
import type { IdentifiedFunction } from '../groups/identity.js';
import type { ResolvedGroup } from '../groups/resolve.js';
import type { Scope } from '../inventory.js';
import { PROVENANCE_BYTES_MAX, provenanceBodies, type StampedMember } from './provenance.js';
import { splitFunctions, splitPrefixes } from './split.js';

/** What a snapshot says. */
export interface SnapshotContent {
  readonly policy: Policy;
  /** Digest of what the policy was read from. */
  readonly source?: string;
  readonly groups: readonly ResolvedGroup[];
  readonly inventory: {
    readonly functions: readonly IdentifiedFunction[];
    readonly scopes: readonly Omit<Scope, 'learntAt'>[];
    readonly feeds?: readonly FeedStatus[];
  };
  /** Why each group holds its prefixes; it travels in bodies of its own. */
  readonly provenance?: ReadonlyMap<string, readonly StampedMember[]>;
}

export interface Written {
  /** The revision now in force. */
  readonly revision: number;
  /** False when the content was in force already: then nothing was written. */
  readonly changed: boolean;
}

const ERROR_LENGTH_MAX = 4_096;

function refuse(what: string, count: number, limit: number): void {
  if (count > limit)
    throw new RangeError(`Cannot write snapshot: it holds ${count} ${what}, the limit is ${limit}`);
}

function checkLimits({ policy, groups, inventory }: SnapshotContent): void {
  refuse('rules', policy.rules.length, SNAPSHOT_LIMITS.rulesMax);
  refuse('groups', groups.length, SNAPSHOT_LIMITS.groupsMax);
  refuse('functions', inventory.functions.length, SNAPSHOT_LIMITS.functionsMax);
  const prefixes = groups.reduce((sum, group) => sum + group.prefixes.length, 0);
  refuse('prefixes', prefixes, SNAPSHOT_LIMITS.prefixesMax);
}

/** Of all functions together, an eighth of what the bodies of a snapshot may be. */
const FUNCTION_CHARACTERS_MAX = 16 << 20;

/** The reader's own check, so that nothing is published which the gateway would refuse. */
function checked<T>(what: string, schema: z.ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const at = issue!.path.join('.');
  throw new RangeError(`Cannot write snapshot: ${what} is not valid at ${at}: ${issue!.message}`, {
    cause: parsed.error,
  });
}

const functionBody = (fn: IdentifiedFunction): InventoryBody['functions'][number] => ({
  ...fn,
  sharedWith: [...fn.sharedWith],
  sharedBy: [...fn.sharedBy],
  prefixes: fn.prefixes.map(printPrefix),
  addresses: fn.addresses.map(printPrefix),
});

/** How AWS and feeds were read. */
function restBody({ scopes, feeds = [] }: Omit<SnapshotContent['inventory'], 'functions'>) {
  const cut = <Said extends { readonly error?: string }>(said: Said): Said =>
    said.error === undefined ? said : { ...said, error: said.error.slice(0, ERROR_LENGTH_MAX) };
  return { scopes: scopes.map(cut), ...(feeds.length > 0 && { feeds: feeds.map(cut) }) };
}

/** What the snapshot says of AWS. */
export function inventoryBody({ functions, ...rest }: SnapshotContent['inventory']): InventoryBody {
  return { functions: functions.map(functionBody), ...restBody(rest) };
}

/** What was made of objects that are the same from one snapshot to the next, as most of ten thousand functions are. */
class Memo<Key extends object, Made> {
  readonly #known = new WeakMap<Key, Made>();

  of(key: Key, make: (key: Key) => Made): Made {
    const known = this.#known.get(key) ?? make(key);
    this.#known.set(key, known);
    return known;
  }
}

/** A body's name and bytes. */
interface Body {
  readonly digest: string;
  readonly text: string;
  readonly bytes: number;
}

const textBody = (text: string): Body => ({
  digest: bodyDigest(text),
  text,
  bytes: Buffer.byteLength(text),
});
const bodyOf = (value: unknown): Body => textBody(canonicalJson(value));

const prefixBodies = new Memo<readonly Prefix[], readonly Body[]>();
const originBodies = new Memo<readonly StampedMember[], readonly Body[]>();
const policyBodies = new Memo<Policy, Body>();
const functionLists = new Memo<readonly IdentifiedFunction[], readonly Body[]>();
const functionTexts = new Memo<IdentifiedFunction, string>();
/** By the first of the functions in it. */
const functionBodies = new WeakMap<
  IdentifiedFunction,
  { readonly functions: readonly IdentifiedFunction[]; readonly body: Body }
>();
const functionSchema = functionsBodySchema.shape.functions.element;

const printFunction = (fn: IdentifiedFunction) =>
  canonicalJson(checked('the inventory', functionSchema, functionBody(fn)));

function functionsBody(functions: readonly IdentifiedFunction[], texts: readonly string[]): Body {
  const known = functionBodies.get(functions[0]!);
  const isSame =
    known?.functions.length === functions.length &&
    functions.every((fn, index) => fn === known.functions[index]);
  if (isSame) return known.body;
  const body = textBody(`{"functions":[${texts.join(',')}]}`);
  functionBodies.set(functions[0]!, { functions, body });
  return body;
}

/** Bodies of functions; whom each shares with is left out of all where that would be too much for the gateway. */
function functionsOf(all: readonly IdentifiedFunction[]): readonly Body[] {
  const texts = all.map((fn) => functionTexts.of(fn, printFunction));
  const characters = texts.reduce((sum, text) => sum + text.length, 0);
  if (characters <= FUNCTION_CHARACTERS_MAX)
    return splitFunctions(all).map(([first, end]) =>
      functionsBody(all.slice(first, end), texts.slice(first, end)),
    );
  const alone = all.map((fn) => ({ ...fn, sharedWith: [] }));
  return splitFunctions(alone).map(([first, end]) =>
    functionsBody(alone.slice(first, end), alone.slice(first, end).map(printFunction)),
  );
}

/** The bodies of a snapshot by digest, and a manifest that names them. */
interface Draft {
  readonly bodies: ReadonlyMap<string, string>;
  readonly manifest: Omit<Manifest, 'revision' | 'createdAt'>;
}

function draft(content: SnapshotContent): Draft {
  const bodies = new Map<string, string>();
  const put = (what: string, { digest, text, bytes }: Body): string => {
    refuse(`bytes in ${what}`, bytes, SNAPSHOT_LIMITS.bodyBytesMax);
    bodies.set(digest, text);
    return digest;
  };
  const policyBody = (policy: Policy) => bodyOf(checked('the policy', policyBodySchema, policy));
  const policy = put('its policy', policyBodies.of(content.policy, policyBody));
  let provenanceBytes = 0;
  const partsOf = (prefixes: readonly Prefix[]) => {
    const parts = prefixBodies.of(prefixes, () =>
      splitPrefixes(prefixes).map((part) => bodyOf({ prefixes: part.map(printPrefix) })),
    );
    const names = parts.map((part) => put('a part of a group', part));
    return { prefixCount: prefixes.length, bodies: names };
  };
  const groups = content.groups.map(({ name, resolved, prefixes, expires }) => {
    const members = content.provenance?.get(name) ?? [];
    const origins = originBodies.of(members, () =>
      provenanceBodies(members, splitPrefixes(prefixes)).map(bodyOf),
    );
    provenanceBytes += origins.reduce((sum, { bytes }) => sum + bytes, 0);
    const isTold = content.provenance?.has(name) === true && provenanceBytes <= PROVENANCE_BYTES_MAX;
    return {
      name,
      resolved,
      ...partsOf(prefixes),
      ...(expires && { expires: { at: expires.at.toISOString(), ...partsOf(expires.prefixes) } }),
      ...(isTold && { provenance: origins.map((origin) => put('provenance of a group', origin)) }),
    };
  });
  const { functions, ...rest } = content.inventory;
  const inventory = put(
    'its inventory',
    bodyOf(checked('the inventory', inventoryBodySchema, restBody(rest))),
  );
  const parts = functionLists.of(functions, functionsOf).map((part) => put('a part of its functions', part));
  return {
    bodies,
    manifest: {
      format: SNAPSHOT_FORMAT,
      policy: { digest: policy, ...(content.source !== undefined && { source: content.source }) },
      groups,
      inventory: { digest: inventory, functions: parts },
    },
  };
}

/** With times of expiry as they were said before, as long as these are not near: a time alone makes no revision. */
function steady(manifest: Draft['manifest'], previous: Manifest, now: Date): Draft['manifest'] {
  const said = new Map(previous.groups.map(({ name, expires }) => [name, expires]));
  const groups = manifest.groups.map((group) => {
    const { name, expires } = group;
    const before = said.get(name);
    if (expires === undefined || before === undefined) return group;
    const [left, leftBefore] = [expires, before].map(({ at }) => Date.parse(at) - now.getTime());
    const isSteady = leftBefore! <= left! && leftBefore! * 2 > left!;
    return isSteady ? { ...group, expires: { ...expires, at: before.at } } : group;
  });
  return { ...manifest, groups };
}

function isSame(manifest: Draft['manifest'], { revision: _, createdAt: __, ...previous }: Manifest): boolean {
  return canonicalJson(manifest) === canonicalJson(previous);
}

export interface WriteOptions {
  readonly now: Date;
  /**
   * Bodies that were in the folder when this writer last wrote, brought up to date: only where nothing changed is it
   * looked whether they still are.
   */
  readonly seen?: Set<string>;
}

/** As `writeSnapshot`, into any store. */
export async function publish(
  store: SnapshotStore,
  content: SnapshotContent,
  { now, seen = new Set() }: WriteOptions,
): Promise<Written> {
  checkLimits(content);
  const { bodies, manifest: drafted } = draft(content);
  const found = await store.readManifest();
  const previous = found === 'unknown' ? undefined : found;
  const manifest = previous === undefined ? drafted : steady(drafted, previous, now);
  if (previous !== undefined && isSame(manifest, previous)) {
    await storeBodies(store, bodies);
    keepOnly(seen, bodies.keys());
    return { revision: previous.revision, changed: false };
  }
  const last = Math.max(
    // Milliseconds since 1970 are above all that was counted one by one.
    found === 'unknown' ? now.getTime() : (previous?.revision ?? 0),
    // What another process left may be spoiled without a sign of it.
    found === 'unknown' || seen.size === 0 ? ((await store.revisionBefore()) ?? -1) + 1 : 0,
  );
  const next = { ...manifest, revision: last + 1, createdAt: now.toISOString() };
  const text = canonicalJson(checked('the manifest', manifestSchema, next));
  refuse('bytes in its manifest', Buffer.byteLength(text), SNAPSHOT_LIMITS.manifestBytesMax);
  const named = previous === undefined ? [] : digestsOf(previous);
  const there = seen.intersection(new Set(named));
  const fresh = new Map([...bodies].filter(([digest]) => !there.has(digest)));
  await storeSnapshot(store, fresh, text, [...named, ...bodies.keys()]);
  keepOnly(seen, bodies.keys());
  return { revision: next.revision, changed: true };
}

function keepOnly(seen: Set<string>, digests: Iterable<string>): void {
  seen.clear();
  for (const digest of digests) seen.add(digest);
}

/**
 * Writes a snapshot into a folder: first the bodies that are not there yet, then the manifest by atomic
 * rename, then the bodies go that neither it nor the manifest before it names. Killed at any point, it leaves
 * a whole snapshot. Unchanged content writes no manifest. The revision is one more than that of the manifest in
 * the folder, or two more than that of the one before it; where the disk spoiled it, above milliseconds since 1970.
 * Throws RangeError when a limit is passed. One writer a folder.
 */
export async function writeSnapshot(folder: string, content: SnapshotContent, options: WriteOptions) {
  return publish(await openSnapshotFolder(folder), content, options);
}
