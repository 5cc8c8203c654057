import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Prefix } from 'sluice-gateway/net/prefix.js';
import { identifyFunctions } from './groups/identity.js';
import { checkReferences, resolveGroups } from './groups/resolve.js';
import { emptyInventory, type Inventory, missingSubnets } from './inventory.js';
import type { SnapshotContent } from './snapshot/write.js';
import { type Diagnostic, printDiagnostic, quote } from './sources/diagnostics.js';
import { loadPolicy } from './sources/load.js';

/** What policy files and inventory make together, and what is worth telling of them. */
export interface Wanted {
  readonly content: SnapshotContent;
  /** One line each: what does not keep the policy from being enforced, but may not be what was meant. */
  readonly warnings: readonly string[];
}

/** The file beside the snapshot in which the client keeps what it knows of AWS over its own restarts. */
export const INVENTORY_FILE = 'inventory.json';

/** What was last known of AWS. Empty when nothing was; throws when the file is there and can't be read. */
export async function readKnownInventory(snapshotFolder: string): Promise<Inventory> {
  try {
    return JSON.parse(await readFile(join(snapshotFolder, INVENTORY_FILE), 'utf8')) as Inventory;
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return emptyInventory();
    throw new Error(`Cannot read inventory: ${(cause as Error).message}`, { cause });
  }
}

/**
 * Reads policy and resolves its groups. Throws PolicyError, with file and line of everything that is wrong: then
 * what is in force stays.
 */
export function buildWanted(
  policyPath: string,
  inventory: Inventory,
  excluded: readonly Prefix[] = [],
): Wanted {
  const loaded = loadPolicy(policyPath);
  const { groups, problems } = resolveGroups(loaded.groups, inventory, { excluded });
  checkReferences(loaded, groups);
  const warnings = [
    ...loaded.warnings.map((warning: Diagnostic) => printDiagnostic(warning)),
    ...problems.map(({ group, message }) => `group ${quote(group)}: ${message}`),
    ...missingSubnets(inventory).map(
      ({ functionArn, subnetId }) =>
        `function ${quote(functionArn)} uses subnet ${quote(subnetId)}, which AWS does not list`,
    ),
  ];
  return {
    content: {
      policy: loaded.policy,
      groups,
      inventory: { functions: identifyFunctions(inventory), scopes: inventory.scopes },
    },
    warnings: [...new Set(warnings)],
  };
}
