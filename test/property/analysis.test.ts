import assert from 'node:assert/strict';
import { explain } from 'sluice-gateway/analysis/explain.js';
import { Matcher } from 'sluice-gateway/matcher/matcher.js';
import { evaluate } from 'sluice-gateway/policy/evaluate.js';
import { policyInForce } from 'sluice-gateway/policy/in-force.js';
import t from 'tap';
import { type Case, caseArbitrary } from '../support/arbitrary.js';
import { prefixes } from '../support/load.js';
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
