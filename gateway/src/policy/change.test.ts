import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { parseAddress } from '../net/address.js';
import type { Prefix } from '../net/prefix.js';
import { type Effect, effectOfMembers, effectOfPolicy } from './change.js';
import { type Connection, evaluate, type GroupPrefixes } from './evaluate.js';
import { NOW, prefixes, rule } from './fixture.js';
import { type PolicyInForce, policyInForce } from './in-force.js';
import type { Action, PolicyRule } from './model.js';

const seed = process.env.TEST_SEED === undefined ? Date.now() & 0xffff_ffff : Number(process.env.TEST_SEED);

/*
 * The gateway does not judge live connections again where a change is said to revoke nothing: what is said here must
 * be true of every connection. Four addresses, every set of them a group.
 */
const HOSTS = ['10.0.0.0', '10.0.0.1', '10.0.0.2', '10.0.0.3'];
const SERVICES = [
  [6, 80],
  [6, 443],
  [17, 443],
  [1, 0],
  [58, 0],
  [50, 0],
] as const;
const CONNECTIONS: readonly Connection[] = HOSTS.flatMap((src) =>
  HOSTS.flatMap((dst) =>
    SERVICES.map(([protocol, dstPort]) => ({
      src: parseAddress(src),
      dst: parseAddress(dst),
      protocol,
      dstPort,
    })),
  ),
);

const names = ['a', 'b', 'c'];
const members = fc.subarray(HOSTS).map((hosts): Prefix[] => prefixes(...hosts));
const groups = fc
  .tuple(members, members, members)
  .map((of) => new Map(names.map((name, at) => [name, of[at]!])));
const someGroups = fc.subarray(names, { minLength: 1 });
const action = fc.constantFrom<Action>('PERMIT', 'DENY', 'REJECT');
const drafted = {
  action,
  enforcement: fc.constantFrom(
    'ENFORCE' as const,
    'ENFORCE' as const,
    'MONITOR' as const,
    'DISABLE' as const,
  ),
  logging: fc.boolean(),
  src: someGroups,
  dst: someGroups,
  protocol: fc.constantFrom('ANY' as const, 'TCP' as const, 'UDP' as const, 'ICMP' as const),
  portRanges: fc.constantFrom([], [{ lo: 443, hi: 443 }], [{ lo: 1, hi: 100 }]),
  expires: fc.constantFrom(undefined, undefined, '2026-10-01T00:00:00Z'),
};
const valid = (line: PolicyRule): PolicyRule =>
  line.protocol === 'ICMP' ? { ...line, portRanges: [] } : line;
const draft = fc.record(drafted).map((of) => valid(rule('', '', '', of as Partial<PolicyRule>)));
const part = fc.oneof(
  ...Object.entries(drafted).map(([key, value]) =>
    fc.record({ [key]: value } as Record<string, fc.Arbitrary<unknown>>),
  ),
) as fc.Arbitrary<Partial<PolicyRule>>;

/** Changes of a list of rules, one after another. */
const changes = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant('add' as const), at: fc.nat(), to: draft }),
    fc.record({ kind: fc.constant('remove' as const), at: fc.nat() }),
    fc.record({ kind: fc.constant('edit' as const), at: fc.nat(), to: part }),
    fc.record({ kind: fc.constant('swap' as const), at: fc.nat() }),
    fc.record({ kind: fc.constant('rename' as const), at: fc.nat() }),
  ),
  { maxLength: 3 },
);
type Change = typeof changes extends fc.Arbitrary<(infer One)[]> ? One : never;

function changed(rules: readonly PolicyRule[], change: Change): readonly PolicyRule[] {
  const at = change.at % (rules.length + 1);
  if (change.kind === 'add')
    return rules.toSpliced(at, 0, { ...change.to, name: `new ${rules.length} ${at}` });
  const one = rules[at];
  if (one === undefined) return rules;
  switch (change.kind) {
    case 'remove':
      return rules.toSpliced(at, 1);
    case 'edit':
      return rules.with(at, valid({ ...one, ...change.to }));
    case 'rename':
      return rules.with(at, { ...one, name: `other ${one.name}` });
    case 'swap':
      return rules.toSpliced(at, 1).toSpliced(0, 0, one);
    default:
      return change satisfies never;
  }
}

const inForce = (rules: readonly PolicyRule[], action: Action): PolicyInForce =>
  policyInForce({ rules, defaultAction: { action, logging: false } }, NOW);

type Moment = readonly [policy: PolicyInForce, groups: GroupPrefixes];

/** What a change does to any connection, by trying all. */
function bruteForce([before, groupsBefore]: Moment, [after, groupsAfter]: Moment): Effect {
  let grants = false;
  let revokes = false;
  for (const connection of CONNECTIONS) {
    const was = evaluate(before, groupsBefore, [], connection).decided.action === 'PERMIT';
    const is = evaluate(after, groupsAfter, [], connection).decided.action === 'PERMIT';
    grants ||= is && !was;
    revokes ||= was && !is;
  }
  return { grants, revokes };
}

function checkTrue(said: Effect, really: Effect): void {
  assert.ok(said.revokes || !really.revokes, 'it takes permission away and does not say so');
  assert.ok(said.grants || !really.grants, 'it gives permission and does not say so');
}

const rules = fc
  .array(draft, { maxLength: 5 })
  .map((list) => list.map((one, at) => ({ ...one, name: `${at}` })));

t.test(`what a change of policy does is told (TEST_SEED=${seed})`, (t) => {
  const told = new Map<string, number>();
  fc.assert(
    fc.property(
      rules,
      changes,
      fc.tuple(action, action),
      fc.boolean(),
      groups,
      (rules, changes, actions, flips, groups) => {
        const before = inForce(rules, actions[0]);
        const after = inForce(
          changes.reduce(changed, rules as readonly PolicyRule[]),
          flips ? actions[1] : actions[0],
        );
        const said = effectOfPolicy(before, after);
        checkTrue(said, bruteForce([before, groups], [after, groups]));
        const key = `${said.grants ? 'grants' : ''} ${said.revokes ? 'revokes' : ''}`;
        told.set(key, (told.get(key) ?? 0) + 1);
      },
    ),
    { seed, numRuns: 3_000 },
  );
  t.equal([...told.values()].filter((count) => count > 50).length, 4, `not always the same: ${[...told]}`);
  t.end();
});

t.test(`what a change of members does is told (TEST_SEED=${seed})`, (t) => {
  let quiet = 0;
  fc.assert(
    fc.property(
      rules,
      action,
      groups,
      fc.constantFrom(...names),
      members,
      (rules, action, groups, name, members) => {
        const policy = inForce(rules, action);
        const had = groups.get(name)!;
        const has = (list: readonly Prefix[], one: Prefix) => list.some(({ value }) => value === one.value);
        const naming = policy.rules.filter(({ rule }) => [...rule.src, ...rule.dst].includes(name));
        const said = effectOfMembers(
          naming,
          members.some((one) => !has(had, one)),
          had.some((one) => !has(members, one)),
        );
        checkTrue(said, bruteForce([policy, groups], [policy, new Map(groups).set(name, members)]));
        if (!said.revokes) quiet++;
      },
    ),
    { seed, numRuns: 3_000 },
  );
  t.ok(quiet > 300, `${quiet} of them revoke nothing`);
  t.end();
});

t.test('what changes no verdict revokes nothing, and is not judged again', (t) => {
  const permit = rule('one', 'a', 'b');
  const deny = rule('two', 'b', 'a', { action: 'DENY' });
  const watch = rule('three', 'a', 'a', { action: 'DENY', enforcement: 'MONITOR' });
  const effect = (before: PolicyRule[], after: PolicyRule[], actions: [Action, Action] = ['DENY', 'DENY']) =>
    effectOfPolicy(inForce(before, actions[0]), inForce(after, actions[1]));
  const none = { grants: false, revokes: false };
  const [grants, revokes] = [
    { ...none, grants: true },
    { ...none, revokes: true },
  ];
  t.strictSame(effect([permit, deny], [permit, { ...deny, action: 'REJECT' }]), none);
  t.strictSame(effect([permit], [{ ...permit, logging: false, priority: 7, description: 'x' }]), none);
  t.strictSame(effect([permit], [watch, permit]), none);
  t.strictSame(effect([permit], [permit], ['DENY', 'REJECT']), none);
  t.strictSame(effect([permit], [{ ...deny, enforcement: 'DISABLE' }, permit]), none);
  t.strictSame(effect([permit], [deny, permit]), revokes);
  t.strictSame(effect([permit, deny], [permit]), grants);
  t.strictSame(effect([permit], []), revokes);
  t.strictSame(effect([permit], [{ ...permit, enforcement: 'MONITOR' }]), revokes);
  t.strictSame(effect([watch], [{ ...watch, enforcement: 'ENFORCE' }]), revokes);
  t.strictSame(effect([], [], ['PERMIT', 'DENY']), revokes);
  t.strictSame(effect([], [], ['REJECT', 'PERMIT']), grants);
  t.strictSame(effect([permit, deny], [deny, permit]), { grants: true, revokes: true }, 'another order');
  t.end();
});
