import { type Diagnostic, PolicyError, quote } from '../sources/diagnostics.js';
import type { LoadedPolicy } from '../sources/model.js';
import type { ResolvedGroup } from './resolve.js';

/** Groups that rules in force name, by whether they permit. */
function namedBy({ policy }: Pick<LoadedPolicy, 'policy'>, isPermit: boolean): ReadonlySet<string> {
  const rules = policy.rules.filter(
    ({ action, enforcement }) => enforcement === 'ENFORCE' && (action === 'PERMIT') === isPermit,
  );
  return new Set(rules.flatMap(({ src, dst }) => [...src, ...dst]));
}

/**
 * Groups by which rules deny and nothing is permitted, nor any other group made: of them, addresses that are too old
 * deny too much at worst, while without them all would pass that they stop.
 */
export function deniedOnly(loaded: Pick<LoadedPolicy, 'policy' | 'groups'>): ReadonlySet<string> {
  const inner = loaded.groups.flatMap(({ expressions }) =>
    expressions.flatMap((one) => [one, one.not]).flatMap((one) => (one?.type === 'group' ? [one.group] : [])),
  );
  return namedBy(loaded, false).difference(namedBy(loaded, true)).difference(new Set(inner));
}

/** For the same reason members expire by themselves only where no rule denies by them. */
export function expiring(
  loaded: Pick<LoadedPolicy, 'policy'>,
  groups: readonly ResolvedGroup[],
): ResolvedGroup[] {
  const denied = namedBy(loaded, false);
  return groups.map((group) => {
    const { expires, ...lasting } = group;
    return expires !== undefined && denied.has(group.name) ? lasting : group;
  });
}

/**
 * Refuses a policy that would take something away by a group whose members are not all known: a DENY or REJECT in
 * force would then let pass what it should stop; and one that would permit by a group that may hold too much.
 * Throws PolicyError naming every such rule and group.
 */
export function checkReferences(
  { policy, places }: Pick<LoadedPolicy, 'policy' | 'places'>,
  groups: readonly ResolvedGroup[],
): void {
  const byName = new Map(groups.map((group) => [group.name, group]));
  const problems = policy.rules.flatMap(({ name, action, enforcement, src, dst }): Diagnostic[] => {
    if (enforcement !== 'ENFORCE') return [];
    const at = places.get(name);
    if (at === undefined) throw new Error(`Cannot check rule ${quote(name)}: its place is not known`);
    return [...new Set([...src, ...dst])].flatMap((group): Diagnostic | [] => {
      const { lacks, exceeds } = byName.get(group) ?? {};
      const what = `rule ${quote(name)} is a ${action} on group ${quote(group)}`;
      if (exceeds !== undefined) return { ...at, message: `${what}, which may hold too much: ${exceeds}` };
      if (lacks === undefined || action === 'PERMIT') return [];
      return { ...at, message: `${what}, whose members are not all known: ${lacks}` };
    });
  });
  if (problems.length > 0) throw new PolicyError(problems);
}
