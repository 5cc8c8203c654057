import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { comparePrefixes, type Prefix, parsePrefix, printPrefix } from 'sluice-gateway/net/prefix.js';
import { MANIFEST_FILE, manifestSchema } from 'sluice-gateway/snapshot/format.js';
import { type Origin, readOrigins } from 'sluice-gateway/snapshot/provenance.js';
import { compareMembers, type Member } from '../groups/members.js';
import type { ResolvedGroup } from '../groups/resolve.js';

/** Reasons of one prefix that are told; a subnet of thousands of functions has as many. */
export const REASONS_MAX = 16;
/** Of all groups together; groups behind it in the policy have no provenance. */
export const PROVENANCE_BYTES_MAX = 64 << 20;

export interface StampedMember extends Member {
  /** Since when it is in the group for this reason, RFC 3339. */
  readonly since: string;
}

/** Knows since when each prefix is in each group, and for which reason. */
export class Ledger {
  readonly #known = new Map<string, readonly StampedMember[]>();
  /** What became of members: a group that was not resolved again has the same ones. */
  readonly #stamped = new WeakMap<readonly Member[], readonly StampedMember[]>();

  /** Goes on with what the snapshot in a folder says; without one, or where it can't be read, from now. */
  static async open(folder: string): Promise<Ledger> {
    const ledger = new Ledger();
    const bytes = await readFile(join(folder, MANIFEST_FILE)).catch(() => undefined);
    if (bytes === undefined) return ledger;
    try {
      for (const { name } of manifestSchema.parse(JSON.parse(bytes.toString('utf8'))).groups) {
        const origins = (await readOrigins(folder, { manifestBytes: bytes }, name)) ?? [];
        ledger.#known.set(name, origins.map(memberOf).sort(compareMembers));
      }
    } catch {
      // What can't be read is written anew.
    }
    return ledger;
  }

  /** The members of groups with the moment since when they are; forgets what is no member any more. O(members). */
  stamp(groups: readonly ResolvedGroup[], now: Date): ReadonlyMap<string, readonly StampedMember[]> {
    const since = now.toISOString();
    const stamped = groups.map(({ name, members }) => {
      const before = this.#known.get(name) ?? [];
      if (this.#stamped.get(members) === before) return [name, before] as const;
      let at = 0;
      let isOther = false;
      const fresh = told(members).map((member) => {
        while (at < before.length && compareMembers(before[at]!, member) < 0) at++;
        const known = before[at];
        const isKnown = known !== undefined && compareMembers(known, member) === 0;
        isOther ||= !isKnown;
        return { ...member, since: isKnown ? known.since : since };
      });
      const list = isOther || fresh.length !== before.length ? fresh : before;
      this.#stamped.set(members, list);
      return [name, list] as const;
    });
    this.#known.clear();
    for (const [name, list] of stamped) this.#known.set(name, list);
    return this.#known;
  }
}

function memberOf({ prefix, ...rest }: Origin): StampedMember {
  return { ...rest, prefix: parsePrefix(prefix) };
}

/** The first reasons of each prefix. */
function told(members: readonly Member[]): readonly Member[] {
  let count = 0;
  return members.filter(({ prefix }, index) => {
    const isSame = index > 0 && comparePrefixes(members[index - 1]!.prefix, prefix) === 0;
    count = isSame ? count + 1 : 1;
    return count <= REASONS_MAX;
  });
}

function bodyOf(members: readonly StampedMember[]) {
  const indexes = new Map<string, number>();
  const sources: Pick<Origin, 'via' | 'by' | 'group'>[] = [];
  const listed = members.map(({ prefix, via, by, group, since }) => {
    const key = JSON.stringify([via, by, group]);
    const index = indexes.get(key) ?? sources.length;
    if (index === sources.length) {
      indexes.set(key, index);
      sources.push({ via, ...(by !== undefined && { by }), ...(group !== undefined && { group }) });
    }
    return [printPrefix(prefix), index, since] as const;
  });
  return { sources, members: listed };
}

/** The bodies of a group's provenance, cut where the bodies of its prefixes are. */
export function provenanceBodies(members: readonly StampedMember[], parts: readonly (readonly Prefix[])[]) {
  let at = 0;
  return parts.map((part) => {
    const start = at;
    const last = part.at(-1)!;
    while (at < members.length && comparePrefixes(members[at]!.prefix, last) <= 0) at++;
    return bodyOf(members.slice(start, at));
  });
}

/** Members as `sluice groups` shows them. */
export function printOrigins(members: readonly StampedMember[]): Origin[] {
  return members.map(({ prefix, seenAt: _, ...rest }) => ({ ...rest, prefix: printPrefix(prefix) }));
}
