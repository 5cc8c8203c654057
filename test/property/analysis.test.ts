import assert from 'node:assert/strict';
import { coverageOf } from 'sluice-gateway/analysis/coverage.js';
import { explain } from 'sluice-gateway/analysis/explain.js';
import { LINT_LIMITS, type LintLimits, lint } from 'sluice-gateway/analysis/lint.js';
import { partition } from 'sluice-gateway/analysis/partition.js';
import { readOwnRecord } from 'sluice-gateway/analysis/recorded.js';
import { Simulation } from 'sluice-gateway/analysis/simulate.js';
import { Matcher } from 'sluice-gateway/matcher/matcher.js';
import { parseAddress, printAddress } from 'sluice-gateway/net/address.js';
import { sortPrefixes } from 'sluice-gateway/net/prefix.js';
import { type Connection, evaluate } from 'sluice-gateway/policy/evaluate.js';
import { type PolicyInForce, policyInForce } from 'sluice-gateway/policy/in-force.js';
import type { Action } from 'sluice-gateway/policy/model.js';
import t from 'tap';
import { type Case, caseArbitrary } from '../support/arbitrary.js';
import { inForce, prefixes, rule } from '../support/load.js';
import { rounds } from '../support/seed.js';
import { printCase, printConnection, tryProperty } from '../support/try-property.js';

const NOW = new Date('2026-11-01T00:00:00Z');
const everywhere = prefixes('0.0.0.0/0', '::/0');
const narrow = prefixes('10.0.0.0/29', 'fd00::/125');
const cases = (connections: number) =>
  caseArbitrary({ sources: narrow, destinations: everywhere }, connections);

const matcherOf = ({ groups }: Case) =>
  Matcher.build({
    groups: [...groups].map(([name, prefixes]) => ({ name, prefixes })),
    functions: [],
    excluded: [],
  });

t.test('explain says what evaluate says, and why each rule before was passed over', async () => {
  await tryProperty(cases(20), printCase, 100 * rounds, (one) => {
    const { policy, groups, connections } = one;
    const inForce = policyInForce(policy, NOW);
    for (const connection of connections) {
      const { decided, monitored } = evaluate(inForce, groups, [], connection);
      const { rule, verdict, passed } = explain({ policy, matcher: matcherOf(one), now: NOW }, connection);
      assert.equal(
        `${verdict} ${rule.name}`,
        `${decided.action} ${decided.name}`,
        printConnection(connection),
      );
      const watching = passed.filter(({ why }) => why === 'monitor').map(({ name }) => name);
      assert.deepEqual(
        watching,
        monitored.map(({ name }) => name),
      );
      const position = policy.rules.findIndex(({ name }) => name === rule.name);
      const before = policy.rules.slice(0, position < 0 ? policy.rules.length : position);
      assert.deepEqual(
        passed.map(({ name }) => name),
        before.map(({ name }) => name),
      );
    }
  });
});

const PROTOCOL_TEXT: Readonly<Record<number, string>> = { 1: 'ICMP', 6: 'TCP', 17: 'UDP', 58: 'ICMP' };
const VERDICTS: readonly Action[] = ['PERMIT', 'DENY', 'REJECT'];

t.test('simulate judges records as evaluate does, and adds up what would change', async () => {
  await tryProperty(cases(40), printCase, 100 * rounds, (one) => {
    const inForce = policyInForce(one.policy, NOW);
    const simulation = new Simulation(inForce, matcherOf(one));
    const expected = { records: 0, breaks: 0, opens: 0, bytesOut: 0 };
    for (const [index, { src, dst, protocol, dstPort }] of one.connections.entries()) {
      // The kernel knows but one ICMP for each family.
      if (PROTOCOL_TEXT[protocol] === 'ICMP' && (protocol === 1) !== (src.family === 4)) continue;
      const [verdict, bytes] = [VERDICTS[index % 3]!, { out: index, in: 1 }];
      const line = JSON.stringify({
        ...{
          schema: 'sluice.flow/1',
          time: NOW.toISOString(),
          event: 'close',
          verdict,
          reason: 'rule',
          bytes,
        },
        src: { ip: printAddress(src), functions: [], groups: [] },
        dst: { ip: printAddress(dst), port: dstPort, groups: [] },
        protocol: PROTOCOL_TEXT[protocol] ?? protocol,
      });
      const flow = readOwnRecord(line);
      assert.equal(typeof flow, 'object');
      simulation.take(flow);
      const { decided } = evaluate(inForce, one.groups, [], { src, dst, protocol, dstPort });
      if (decided.action === verdict) continue;
      expected.records++;
      expected.bytesOut += index;
      if (verdict === 'PERMIT') expected.breaks++;
      else if (decided.action === 'PERMIT') expected.opens++;
    }
    const { changed, breaks, opens, changes } = simulation.result();
    const { records, bytesOut } = changed;
    assert.deepEqual({ records, bytesOut, breaks: breaks.records, opens: opens.records }, expected);
    const sum = changes.reduce((total, change) => total + change.records, 0);
    assert.equal(sum, expected.records, 'changes come to as many');
  });
});

const partsOf = ({ groups }: Case) =>
  new Map([...groups].map(([name, members]) => [name, [sortPrefixes(members)]]));

t.test(
  'each rule is reached by a connection that shows it, or matched no more before or at all',
  async () => {
    await tryProperty(cases(100), printCase, 100 * rounds, (one) => {
      const inForce = policyInForce(one.policy, NOW);
      const { rules } = coverageOf(
        inForce,
        partition(inForce, partsOf(one), LINT_LIMITS.pairsMax).lists,
        LINT_LIMITS.stepsMax,
      );
      const decides = (connection: (typeof one.connections)[number]) => {
        const { decided, monitored } = evaluate(inForce, one.groups, [], connection);
        return [decided, ...monitored].map(({ name }) => name);
      };
      const never = new Set<string>();
      for (const { rule, matches, reached, covered } of rules) {
        if (reached !== undefined) assert.ok(decides(reached).includes(rule.name), `${rule.name} is reached`);
        else never.add(rule.name);
        if (covered !== undefined) assert.equal(decides(covered.connection)[0], covered.by.name);
        assert.equal(matches, reached !== undefined || covered !== undefined);
      }
      for (const connection of one.connections) {
        for (const name of decides(connection)) assert.ok(!never.has(name), `${name} is never reached`);
      }
    });
  },
);

/** A connection of each kind that rules tell apart, by the edges of their ports. */
function everyKind(one: Case, policy: PolicyInForce): Connection[] {
  const edges = one.policy.rules.flatMap(({ portRanges }) =>
    portRanges.flatMap(({ lo, hi }) => [lo, hi + 1]),
  );
  const ports = [0, ...edges].filter((port) => port < 65_536);
  const { lists } = partition(policy, partsOf(one), LINT_LIMITS.pairsMax);
  return lists.flatMap(({ src, dst }) => [
    ...[6, 17].flatMap((protocol) => ports.map((dstPort) => ({ src, dst, protocol, dstPort }))),
    ...[src.family === 4 ? 1 : 58, 253].map((protocol) => ({ src, dst, protocol, dstPort: 0 })),
  ]);
}

t.test('what lint finds is shown by evaluate', async (t) => {
  const seen = new Set<string>();
  await tryProperty(cases(20), printCase, 500 * rounds, (one) => {
    const inForce = policyInForce(one.policy, NOW);
    const groups = [...partsOf(one)].map(([name, parts]) => ({ name, resolved: true, parts }));
    const findings = lint({ policy: inForce, groups });
    assert.equal(new Set(findings.map(({ id }) => id)).size, findings.length, 'ids are unique');
    for (const { kind, rules, proof } of findings) {
      seen.add(kind);
      const [name] = rules;
      const judged = (without?: string) => {
        const { src, dst, protocol, port } = proof!;
        const kept = { ...inForce, rules: inForce.rules.filter((rule) => rule.name !== without) };
        const ends = { src: parseAddress(src), dst: parseAddress(dst) };
        return evaluate(kept, one.groups, [], { ...ends, protocol, dstPort: port }).decided;
      };
      if (kind === 'shadowed') assert.notEqual(judged().name, name);
      if (kind === 'over-broad') assert.equal(judged().name, name);
      if (kind === 'dns-forgotten' || kind === 'ntp-forgotten') assert.notEqual(judged().action, 'PERMIT');
      if (kind === 'contradictory') {
        const { action } = inForce.rules.find((rule) => rule.name === name)!;
        assert.notEqual(judged().action === 'PERMIT', action === 'PERMIT');
      }
      if (kind === 'overlap') assert.equal(judged().name, name);
      if (kind !== 'redundant') continue;
      assert.equal(judged().name, name);
      const rest = { ...inForce, rules: inForce.rules.filter((rule) => rule.name !== name) };
      for (const connection of everyKind(one, inForce)) {
        const before = evaluate(inForce, one.groups, [], connection).decided;
        const after = evaluate(rest, one.groups, [], connection).decided;
        assert.equal(
          `${after.action} ${after.logging}`,
          `${before.action} ${before.logging}`,
          `without ${name}`,
        );
      }
    }
  });
  for (const kind of ['shadowed', 'contradictory', 'redundant', 'unreachable', 'overlap', 'dns-forgotten']) {
    t.ok(seen.has(kind), `${kind} was found`);
  }
});

t.test('over its limits lint says what it did not look for', async (t) => {
  const rules = [1, 2, 3].map((number) => rule(`r${number}`, 'PERMIT', 'a', 'b', { priority: number }));
  const groups = [
    { name: 'a', resolved: true, parts: [prefixes('10.0.0.0/24')] },
    { name: 'b', resolved: true, parts: [prefixes('10.1.0.0/24')] },
  ];
  const ids = (limits: Partial<LintLimits>) =>
    lint({ policy: inForce(...rules), groups }, { ...LINT_LIMITS, ...limits }).map(({ id, message }) => [
      id,
      message,
    ]);
  t.match(ids({}), [['shadowed/r2'], ['shadowed/r3']]);
  const lead = 'shadowed, redundant and contradictory rules and overlaps are not looked for: policy has ';
  t.strictSame(ids({ pairsMax: 3 }), [['limit', `${lead}4 pairs of classes of addresses, the limit is 3`]]);
  t.strictSame(ids({ stepsMax: 5 }), [['limit', `${lead}more than 5 rules times services`]]);
  t.match(ids({ findingsMax: 1 }), [
    ['shadowed/r2'],
    ['limit/shadowed', '1 findings of kind shadowed are left out, the limit is 1'],
  ]);
});
