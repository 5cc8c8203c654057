import { join } from 'node:path';
import { FEEDS_FILE, knownFeeds, readKnownFeeds } from 'sluice-controller-client/feeds/keeper.js';
import { emptyInventory } from 'sluice-controller-client/inventory.js';
import { inventoryBody } from 'sluice-controller-client/snapshot/write.js';
import {
  buildWanted,
  readKnownInventory,
  resolveOptions,
  type Wanted,
} from 'sluice-controller-client/wanted.js';
import { type Config, readConfig } from 'sluice-gateway/config/config.js';
import { interfacesOf } from 'sluice-gateway/interfaces.js';
import type { GatewayInterfaces } from 'sluice-gateway/policy/fixed-chains.js';
import type { Snapshot } from 'sluice-gateway/snapshot/read.js';

/** Where a command that answers from files takes them from. */
export interface FileOptions {
  readonly config?: string;
  readonly policy?: string;
}

/** What files say, without a gateway: policy as it is on disk, and AWS as it was last known. */
export interface FromFiles {
  readonly config: Config | undefined;
  readonly wanted: Wanted;
  readonly snapshot: Snapshot;
  readonly interfaces: GatewayInterfaces;
}

const EXAMPLE_INTERFACES: GatewayInterfaces = { lambda: ['lam0'], egress: ['wan0'], inputIcmp: false };

/** The interfaces of a configuration; without one, those of no gateway. */
export function readInterfaces(config: string | undefined): GatewayInterfaces {
  if (config === undefined) return { lambda: [], egress: [], inputIcmp: false };
  return interfacesOf(readConfig(config));
}

function snapshotOf({ content }: Wanted): Snapshot {
  return {
    revision: 0,
    createdAt: new Date().toISOString(),
    policy: content.policy,
    policyDigest: '',
    groups: content.groups.map(({ name, resolved, prefixes }) => ({ name, resolved, parts: [prefixes] })),
    inventory: inventoryBody(content.inventory),
    manifestBytes: new Uint8Array(),
    bodies: new Map(),
    parts: new Map(),
    functionParts: new Map(),
  };
}

async function knownOptions(config: Config) {
  const feeds = knownFeeds(await readKnownFeeds(join(config.snapshot.path, FEEDS_FILE)));
  return { ...resolveOptions(config), feeds };
}

/** Reads a configuration with its policy, or a policy alone. Throws what their readers throw, with file and line. */
export async function readFiles({ config: file, policy }: FileOptions): Promise<FromFiles> {
  const config = file === undefined ? undefined : readConfig(file);
  const inventory = config === undefined ? emptyInventory() : await readKnownInventory(config.snapshot.path);
  const options = config === undefined ? {} : await knownOptions(config);
  const wanted = buildWanted(policy ?? config!.policy.path, inventory, options);
  return {
    config,
    wanted,
    snapshot: snapshotOf(wanted),
    interfaces: config === undefined ? EXAMPLE_INTERFACES : interfacesOf(config),
  };
}
