import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Config } from 'sluice-gateway/config/config.js';
import { eniMaxAge } from 'sluice-gateway/config/groups.js';
import { bodyDigest, canonicalJson } from 'sluice-gateway/snapshot/format.js';
import { z } from 'zod';
import type { FeedStatus } from './feeds/keeper.js';
import { changedFunctions, hasMoved } from './groups/delta.js';
import { type IdentifiedBefore, identifyFunctions } from './groups/identity.js';
import { ENI_MAX_AGE_SECONDS } from './groups/interfaces.js';
import { checkReferences, deniedOnly, expiring } from './groups/references.js';
import { type ResolvedBefore, type ResolveOptions, resolveGroups } from './groups/resolve.js';
import {
  emptyInventory,
  type Inventory,
  type MissingSubnet,
  missingSubnets,
  OPTIONAL_PARTS,
} from './inventory.js';
import type { SnapshotContent } from './snapshot/write.js';
import { printDiagnostic, quote } from './sources/diagnostics.js';
import { loadPolicy } from './sources/load.js';
import type { LoadedPolicy } from './sources/model.js';

/** What policy files and inventory make together, and what is worth telling of them. */
export interface Wanted {
  readonly content: SnapshotContent;
  /** One line each: what does not keep the policy from being enforced, but may not be what was meant. */
  readonly warnings: readonly string[];
  /** For the next time. */
  readonly known: Known;
}

/** From what a wanted state was made, and what it was made to on the way. */
export interface Known extends IdentifiedBefore, Pick<ResolvedBefore, 'resolution'> {
  readonly loaded: LoadedPolicy;
  readonly missing: readonly MissingSubnet[];
}

export interface WantedOptions extends Omit<ResolveOptions, 'before'> {
  /** Spares what did not change since. */
  readonly before?: Known | undefined;
  /** What did not change since may have grown too old. */
  readonly isAged?: boolean;
  /** `source` of the policy in force: the same is not refused for what AWS no longer knows. */
  readonly sourceInForce?: string | undefined;
  /** Of names and feeds. */
  readonly status?: readonly FeedStatus[];
}

/** The file beside the snapshot in which the client keeps what it knows of AWS over its own restarts. */
export const INVENTORY_FILE = 'inventory.json';

const texts = z.record(z.string(), z.string());
const scope = { accountId: z.string(), region: z.string() };
const place = { ...scope, seenAt: z.string() };
const resource = { ...place, id: z.string(), tags: texts };
const list = z.array(z.string());

/** The client's own file; whoever reads it may be root, and the client is not trusted. */
const inventorySchema = z.looseObject({
  scopes: z.array(
    z.looseObject({
      ...scope,
      refreshedAt: z.string().exactOptional(),
      learntAt: z.partialRecord(z.enum(OPTIONAL_PARTS), z.string()),
      error: z.string().exactOptional(),
    }),
  ),
  functions: z.array(
    z.looseObject({
      ...place,
      arn: z.string(),
      name: z.string(),
      vpcId: z.string().exactOptional(),
      subnetIds: list,
      securityGroupIds: list,
      versions: z.array(z.looseObject({ subnetIds: list, securityGroupIds: list })).exactOptional(),
      ipv6AllowedForDualStack: z.boolean(),
      tags: texts,
    }),
  ),
  subnets: z.array(z.looseObject({ ...resource, vpcId: z.string(), zone: z.string(), cidrs: list })),
  vpcs: z.array(z.looseObject({ ...resource, cidrs: list })),
  interfaces: z.array(
    z.looseObject({
      ...place,
      id: z.string(),
      vpcId: z.string(),
      subnetId: z.string(),
      securityGroupIds: list,
      interfaceType: z.string(),
      description: z.string(),
      addresses: list,
    }),
  ),
  instances: z.array(
    z.looseObject({ ...resource, vpcId: z.string(), subnetId: z.string(), addresses: list }),
  ),
  prefixLists: z.array(z.looseObject({ ...resource, name: z.string(), cidrs: list })),
});

/** What was last known of AWS. Empty when nothing was; throws when the file is there and can't be read. */
export async function readKnownInventory(snapshotFolder: string): Promise<Inventory> {
  const file = join(snapshotFolder, INVENTORY_FILE);
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return emptyInventory();
    throw new Error(`Cannot read known inventory: ${(cause as Error).message}`, { cause });
  }
  try {
    return inventorySchema.parse(JSON.parse(text));
  } catch (cause) {
    const what = `Cannot read known inventory: ${file} is not what the controller client wrote`;
    throw new Error(`${what}, remove it to begin with what AWS says`, { cause });
  }
}

const sources = new WeakMap<LoadedPolicy, string>();

/** Digest of what policy files say, not of how they say it. */
function sourceOf(loaded: LoadedPolicy): string {
  const { policy, written } = loaded;
  const known =
    sources.get(loaded) ?? bodyDigest(canonicalJson({ policy, groups: Object.fromEntries(written) }));
  sources.set(loaded, known);
  return known;
}

/** What the configuration says of resolving groups. */
export function resolveOptions({ groups, inventory }: Pick<Config, 'groups' | 'inventory'>): WantedOptions {
  const eniMaxAgeSeconds = eniMaxAge(groups, inventory?.aws.refreshSeconds);
  return { eniMaxAgeSeconds, strictIdentity: groups.strictIdentity };
}

/**
 * Reads policy and resolves its groups. Throws PolicyError, with file and line of everything that is wrong: then
 * what is in force stays.
 */
export function buildWanted(policyPath: string, inventory: Inventory, options: WantedOptions = {}): Wanted {
  return resolveWanted(loadPolicy(policyPath), inventory, options);
}

/** As `buildWanted`, of policy that was read before. */
export function resolveWanted(
  loaded: LoadedPolicy,
  inventory: Inventory,
  options: WantedOptions = {},
): Wanted {
  const { before } = options;
  const source = sourceOf(loaded);
  const resolution = resolveGroups(loaded.groups, inventory, {
    ...options,
    wasGood: source === options.sourceInForce,
    outlasting: deniedOnly(loaded),
    before: before && { ...before, specs: before.loaded.groups },
  });
  const { groups, problems } = resolution;
  checkReferences(loaded, groups);
  const { now = new Date(), eniMaxAgeSeconds = ENI_MAX_AGE_SECONDS } = options;
  const limit = { now, eniMaxAgeSeconds };
  const functions = identifyFunctions(inventory, limit, before, options.isAged);
  const isWhereItWas =
    before !== undefined && changedFunctions(before.inventory, inventory)?.some(hasMoved) === false;
  const missing = isWhereItWas ? before.missing : missingSubnets(inventory);
  const warnings = [
    ...[...loaded.warnings, ...resolution.gone].map((warning) => printDiagnostic(warning)),
    ...problems.map(({ group, message }) => `group ${quote(group)}: ${message}`),
    ...missing.map(
      ({ functionArn, subnetId }) =>
        `function ${quote(functionArn)} uses subnet ${quote(subnetId)}, which AWS does not list`,
    ),
  ];
  return {
    content: {
      policy: loaded.policy,
      source,
      groups: expiring(loaded, groups),
      inventory: {
        functions,
        scopes: inventory.scopes.map(({ learntAt: _, ...scope }) => scope),
        feeds: options.status ?? [],
      },
    },
    warnings: [...new Set(warnings)],
    known: { loaded, inventory, resolution, functions, missing },
  };
}
