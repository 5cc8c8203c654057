import { join } from 'node:path';
import type { Address } from '../net/address.js';
import { parsePrefix, prefixContains } from '../net/prefix.js';
import {
  BODIES_FOLDER,
  bodyDigest,
  manifestSchema,
  provenanceBodySchema,
  SNAPSHOT_LIMITS,
} from './format.js';
import { parseAs, readBounded, type Snapshot } from './read.js';

/** Why a prefix is in a group. */
export interface Origin {
  readonly prefix: string;
  /** ARN of a function, id of another resource, a name or feed, `cidr` or `system`. */
  readonly via: string;
  /** The subnet or network interface by which a function has it. */
  readonly by?: string;
  /** The group inside the group that brought it. */
  readonly group?: string;
  /** Since when it is in the group for this reason, RFC 3339. */
  readonly since: string;
}

async function readBody(folder: string, digest: string): Promise<Origin[]> {
  const bytes = await readBounded(join(folder, BODIES_FOLDER, digest), SNAPSHOT_LIMITS.bodyBytesMax);
  if (bodyDigest(bytes) !== digest) throw new Error(`body ${digest} does not have this digest`);
  const { sources, members } = parseAs(provenanceBodySchema, bytes, `provenance ${digest}`);
  return members.flatMap(([prefix, index, since]) => {
    const source = sources[index];
    if (source === undefined) throw new Error(`provenance ${digest} names a source that it does not hold`);
    const { via, by, group } = source;
    return { prefix, via, ...(by !== undefined && { by }), ...(group !== undefined && { group }), since };
  });
}

/**
 * Why a group of a snapshot holds its prefixes, ascending, from the folder that the snapshot was read from.
 * Undefined where that is not at hand: a snapshot without it, or one that the folder no longer keeps. It is
 * hostile input like the rest, verified but not limited to what the group holds.
 */
export async function readOrigins(
  folder: string,
  { manifestBytes }: Pick<Snapshot, 'manifestBytes'>,
  group: string,
): Promise<readonly Origin[] | undefined> {
  try {
    const manifest = parseAs(manifestSchema, manifestBytes, 'the manifest');
    const digests = manifest.groups.find(({ name }) => name === group)?.provenance;
    if (digests === undefined) return undefined;
    const bodies: Origin[][] = [];
    for (const digest of digests) bodies.push(await readBody(folder, digest));
    return bodies.flat();
  } catch {
    return undefined;
  }
}

/** The reasons for which an address is in the group that the origins are of. */
export function originsOf(origins: readonly Origin[], address: Address): Origin[] {
  return origins.filter(({ prefix }) => prefixContains(parsePrefix(prefix), address));
}
