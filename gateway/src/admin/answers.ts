import type { HeldStatus } from '../changes/held.js';
import { printPrefix } from '../net/prefix.js';
import type { Origin } from '../snapshot/provenance.js';
import type { Snapshot } from '../snapshot/read.js';
import { QuestionError } from './question.js';

/** What `sluice status` shows. */
export interface Status {
  readonly gateway: string;
  readonly ready: boolean;
  readonly reason: string;
  readonly generation: number | undefined;
  readonly revision: { readonly wanted: number | undefined; readonly applied: number | undefined };
  readonly rules: number;
  readonly groups: number;
  readonly functions: number;
  readonly scopes: Snapshot['inventory']['scopes'];
  readonly dropped: Readonly<Record<string, number>>;
  /** What preflight finds in the kernel and in the tables of others that is not as it should be. */
  readonly warnings: readonly string[];
  /** What an operator holds in force instead of the newest snapshot. */
  readonly held: HeldStatus | undefined;
}

/** What `sluice groups` shows of one group. */
export interface GroupAnswer {
  readonly name: string;
  readonly resolved: boolean;
  readonly prefixes: readonly string[];
  /** Functions whose addresses the group holds. */
  readonly functions: readonly string[];
  /** Why it holds each prefix, and since when; only of one group that was asked for by name. */
  readonly origins?: readonly Origin[];
}

/** The groups of a snapshot, or the one of that name. */
export function answerGroups(snapshot: Snapshot, name?: string): GroupAnswer[] {
  const wanted = snapshot.groups.filter((group) => name === undefined || group.name === name);
  if (name !== undefined && wanted.length === 0) {
    throw new QuestionError(
      `Cannot show group: there is none called ${JSON.stringify(name)}, sluice groups lists them`,
    );
  }
  return wanted.map(({ name, resolved, parts }) => {
    const texts = new Set(parts.flat().map(printPrefix));
    const functions = snapshot.inventory.functions.filter((one) =>
      [...one.prefixes, ...(one.addresses ?? [])].some((text) => texts.has(text)),
    );
    return { name, resolved, prefixes: [...texts], functions: functions.map(({ arn }) => arn) };
  });
}
