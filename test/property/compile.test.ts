import assert from 'node:assert/strict';
import fc from 'fast-check';
import { parsePrefix } from 'sluice-gateway/net/prefix.js';
import { KIND, KIND_MASK, NUMBER_MAX } from 'sluice-gateway/nft/mark.js';
import type { NftMap } from 'sluice-gateway/nft/program.js';
import { evaluate } from 'sluice-gateway/policy/evaluate.js';
import { policyInForce } from 'sluice-gateway/policy/in-force.js';
import { ruleObjects } from 'sluice-gateway/policy/rule-content.js';
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
          assert.ok(walked.counters.includes(ruleObjects(decided).decided));
        }
      }),
      { seed, numRuns: 60 * rounds },
    );
  });
}

t.test('what a missed lookup leaves in the mark is no decision, whatever its number', async () => {
  const space = { sources: narrow, destinations: narrow };
  fc.assert(
    fc.property(caseArbitrary(space, 8), fc.nat(NUMBER_MAX), ({ policy, groups, connections }, number) => {
      const program = compileAll({ policy: policyInForce(policy, NOW), groups });
      const isNumber = (data: number) =>
        data >>> 24 !== KIND.decision >>> 24 && data >>> 24 !== KIND.ports >>> 24;
      /** Each map in turn leads to numbers that nobody knows. */
      for (const missing of program.maps) {
        if (missing.data !== 'mark') continue;
        const elements = [...missing.elements].map(({ data, ...key }) => ({
          ...key,
          data: isNumber(data) ? ((data & KIND_MASK) | number) >>> 0 : data,
        }));
        if (elements.every(({ data }, index) => data === [...missing.elements][index]!.data)) continue;
        const maps = program.maps
          .filter(({ data }) => data !== 'verdict')
          .map((map) => (map === missing ? ({ ...map, elements } as NftMap) : map));
        const dispatch = program.maps.filter(
          ({ name, data }) => data === 'verdict' && !/^(lists|monitors)_/.test(name),
        );
        const none = program.maps
          .filter(({ name, data }) => data === 'verdict' && /^(lists|monitors)_/.test(name))
          .map((map) => ({ ...map, elements: [] }) as NftMap);
        const broken = { ...program, maps: [...maps, ...dispatch, ...none] };
        for (const connection of connections) assert.equal(walk(broken, connection).verdict, 'drop');
      }
    }),
    { seed, numRuns: 40 * rounds },
  );
});

/** Bits of the keys of a map, by its name. */
const bitsOf = (name: string) =>
  /^(?:source|destination)4/.test(name)
    ? 32
    : /^(?:source|destination)6/.test(name)
      ? 128
      : /^protocols/.test(name)
        ? 8
        : 16;

/** What several kinds of maps lead to. */
const KIND_NAMES = new Map([
  [KIND.decision >>> 24, 'decision'],
  [KIND.monitor >>> 24, 'monitor'],
]);

t.test('the program covers the whole address space, and its ids keep apart', async () => {
  fc.assert(
    fc.property(caseArbitrary({ sources: everywhere, destinations: everywhere }, 1), ({ policy, groups }) => {
      const program = compileAll({ policy: policyInForce(policy, NOW), groups });
      const ids = new Map<number, string>();
      const covered = new Map<string, (readonly [bigint, bigint])[]>();
      for (const map of program.maps) {
        if (!map.interval) continue;
        const kind = /^(.*?)_[0-9a-f]{16}$/.exec(map.name)![1]!;
        const space = kind.replace(/[46]/, '');
        const isAddress = map.key === 'ipv4_addr' || map.key === 'ipv6_addr';
        const key = isAddress ? kind : map.name;
        const elements = [...map.elements].map(({ first, last }): [bigint, bigint] => [first, last]);
        covered.set(key, [...(covered.get(key) ?? []), ...elements]);
        for (const { data } of map.elements) {
          if (typeof data !== 'number' || map.data === 'classid' || /^ports|^protocols/.test(kind)) continue;
          const of = KIND_NAMES.get(data >>> 24) ?? space;
          assert.equal(ids.get(data) ?? of, of, 'no id has two meanings');
          assert.notEqual(data, 0);
          ids.set(data, of);
        }
      }
      for (const [name, elements] of covered) {
        const [low, high] = /^(to)_/.test(name)
          ? [BigInt(KIND.destination), BigInt(KIND.destination + NUMBER_MAX)]
          : [0n, (1n << BigInt(bitsOf(name))) - 1n];
        let next = low;
        for (const [first, last] of elements.sort(([a], [b]) => (a < b ? -1 : 1))) {
          assert.equal(first, next, `${name} has no hole`);
          next = last + 1n;
        }
        assert.equal(next, high + 1n, `${name} reaches the top`);
      }
    }),
    { seed, numRuns: 20 * rounds },
  );
});
