import type { NumberedRule, PolicyInForce, RuleInForce } from './in-force.js';

/** What a change may do to connections: give some what they had not, take from some what they had. */
export interface Effect {
  readonly grants: boolean;
  readonly revokes: boolean;
}

export const NO_EFFECT: Effect = { grants: false, revokes: false };
export const ANY_EFFECT: Effect = { grants: true, revokes: true };

export const bothEffects = (a: Effect, b: Effect): Effect => ({
  grants: a.grants || b.grants,
  revokes: a.revokes || b.revokes,
});

const permits = ({ action, enforced }: NumberedRule) => enforced && action === 'PERMIT';
const refuses = ({ action, enforced }: NumberedRule) => enforced && action !== 'PERMIT';

const some = (rules: readonly RuleInForce[]): Effect => ({
  grants: rules.some(permits),
  revokes: rules.some(refuses),
});

const opposite = ({ grants, revokes }: Effect): Effect => ({ grants: revokes, revokes: grants });

/** What it does when the rules that name a group get addresses more, or less. */
export function effectOfMembers(rules: readonly RuleInForce[], added: boolean, removed: boolean): Effect {
  const adding = added ? some(rules) : NO_EFFECT;
  return removed ? bothEffects(adding, opposite(some(rules))) : adding;
}

/** All that a rule says of which packets it matches and what it decides. Its logging changes no verdict. */
const meaning = ({ rule, action, enforced }: RuleInForce) =>
  JSON.stringify([
    rule.name,
    action === 'PERMIT' ? action : 'refuse',
    enforced,
    rule.src,
    rule.dst,
    rule.protocol,
    rule.portRanges,
  ]);

/**
 * What it does to go from one policy to another. Rules that are the same before and after, in the same order, are
 * passed over; of the others every refusal that came and every permit that went may revoke.
 */
export function effectOfPolicy(before: PolicyInForce, after: PolicyInForce): Effect {
  const held = new Set(before.rules.map(({ rule }) => rule));
  const kept = new Set(after.rules.map(({ rule }) => rule).filter((rule) => held.has(rule)));
  // A rule that is the same object means the same: to print all of them costs most of a change of one.
  const keyOf = (one: RuleInForce) => (kept.has(one.rule) ? one.rule : meaning(one));
  const old = before.rules.map(keyOf);
  const now = after.rules.map(keyOf);
  const oldSet = new Set(old);
  const nowSet = new Set(now);
  const keptBefore = old.filter((key) => nowSet.has(key));
  const keptAfter = now.filter((key) => oldSet.has(key));
  if (keptBefore.some((key, index) => key !== keptAfter[index])) return ANY_EFFECT;
  const came = after.rules.filter((_, index) => !oldSet.has(now[index]!));
  const went = before.rules.filter((_, index) => !nowSet.has(old[index]!));
  const wasPermit = permits(before.byDefault);
  const isPermit = permits(after.byDefault);
  return [
    some(came),
    opposite(some(went)),
    { grants: isPermit && !wasPermit, revokes: wasPermit && !isPermit },
  ].reduce(bothEffects);
}
