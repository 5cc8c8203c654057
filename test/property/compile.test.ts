import assert from 'node:assert/strict';
import fc from 'fast-check';
import { parsePrefix } from 'sluice-gateway/net/prefix.js';
import { ruleCounters } from 'sluice-gateway/policy/compile.js';
import { evaluate } from 'sluice-gateway/policy/evaluate.js';
import { policyInForce } from 'sluice-gateway/policy/in-force.js';
import t from 'tap';
import { caseArbitrary } from '../support/arbitrary.js';
import { compileAll } from '../support/load.js';
import { rounds, seed } from '../support/seed.js';
import { walk } from '../support/walk.js';

const VERDICT = { PERMIT: 'accept', DENY: 'drop', REJECT: 'reject' } as const;
const NOW = new Date('2026-11-01T00:00:00Z');
const everywhere = ['0.0.0.0/0', '::/0'].map(parsePrefix);
const narrow = ['10.0.0.0/29', 'fd00::/125'].map(parsePrefix);

for (const [label, space] of [
  ['the whole address space', { sources: everywhere, destinations: everywhere }],
  ['a few addresses', { sources: narrow, destinations: narrow }],
] as const) {
  t.test(`evaluate and the walked program agree over ${label}`, async () => {
    const excluded = [parsePrefix('10.0.0.1/32'), parsePrefix('fd00::1/128')];
    fc.assert(
      fc.property(caseArbitrary(space, 30), ({ policy, groups, connections }) => {
        const inForce = policyInForce(policy, NOW);
        const program = compileAll({ policy: inForce, groups, excluded });
        for (const connection of connections) {
          const { decided, monitored } = evaluate(inForce, groups, excluded, connection);
          const walked = walk(program, connection);
          assert.deepEqual(
            { verdict: walked.verdict, rule: walked.rule, monitored: walked.monitored },
            {
              verdict: VERDICT[decided.action],
              rule: decided.number,
              monitored: monitored.map((rule) => rule.number),
            },
          );
          assert.ok(walked.counters.includes(ruleCounters(decided).decided));
        }
      }),
      { seed, numRuns: 60 * rounds },
    );
  });
}

t.test('the program covers the whole address space, and its ids keep apart', async () => {
  fc.assert(
    fc.property(caseArbitrary({ sources: everywhere, destinations: everywhere }, 1), ({ policy, groups }) => {
      const program = compileAll({ policy: policyInForce(policy, NOW), groups });
      const ids = new Map<number, string>();
      for (const map of program.maps) {
        if (map.interval) {
          let next = 0n;
          for (const { first, last } of map.elements) {
            assert.equal(first, next, `${map.name} has no hole`);
            next = last + 1n;
          }
          const bits = { ipv4_addr: 32, ipv6_addr: 128, inet_proto: 8, inet_service: 16, mark: 32 }[map.key];
          assert.equal(next, 1n << BigInt(bits), `${map.name} reaches the top`);
        }
        if (map.data !== 'mark') continue;
        const kind = map.name.replace(/[46]?_.*/, '');
        for (const { data } of map.elements) {
          assert.equal(ids.get(data) ?? kind, kind, 'no id has two meanings');
          assert.notEqual(data, 0);
          ids.set(data, kind);
        }
      }
    }),
    { seed, numRuns: 20 * rounds },
  );
});
