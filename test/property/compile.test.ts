import assert from 'node:assert/strict';
import fc from 'fast-check';
import { parsePrefix, sortPrefixes } from 'sluice-gateway/net/prefix.js';
import { KIND, KIND_MASK, NUMBER_MAX } from 'sluice-gateway/nft/mark.js';
import type { MapEdit, MapElement, NftMap } from 'sluice-gateway/nft/program.js';
import { Compiler, programOf } from 'sluice-gateway/policy/compile.js';
import { policyInForce } from 'sluice-gateway/policy/in-force.js';
import t from 'tap';
import { caseArbitrary, walkArbitrary } from '../support/arbitrary.js';
import { judgeInMemory } from '../support/judges.js';
import { compileAll, labInterfaces } from '../support/load.js';
import { rounds, seed } from '../support/seed.js';
import { printCase, printWalk, tryProperty } from '../support/try-property.js';
import { walk } from '../support/walk.js';

const NOW = new Date('2026-11-01T00:00:00Z');
const everywhere = ['0.0.0.0/0', '::/0'].map(parsePrefix);
const narrow = ['10.0.0.0/29', 'fd00::/125'].map(parsePrefix);

/** What the kernel would have of a map: each interval with its data. */
type Elements = ReadonlyMap<string, number>;
const keyOf = ({ first, last }: MapElement<number>) => `${first}-${last}`;
const elementsOf = (elements: Iterable<MapElement<number>>): Elements =>
  new Map([...elements].map((element) => [keyOf(element), element.data]));

/** What is deleted must be there, and what is added must not. */
function carryOut({ map, remove, add }: MapEdit, table: Map<string, Elements>): void {
  const elements = new Map(table.get(map.name));
  for (const element of remove)
    assert.ok(elements.delete(keyOf(element)), `${map.name} has ${keyOf(element)}`);
  for (const element of add) {
    assert.equal(elements.has(keyOf(element)), false, `${map.name} has ${keyOf(element)} already`);
    elements.set(keyOf(element), element.data);
  }
  table.set(map.name, elements);
}

for (const [label, space] of [
  ['the whole address space', { sources: everywhere, destinations: everywhere }],
  ['a few addresses', { sources: narrow, destinations: narrow }],
] as const) {
  const excluded = ['10.0.0.1/32', 'fd00::1/128'].map(parsePrefix);

  t.test(`evaluate and the walked program agree over ${label}`, async () => {
    await tryProperty(caseArbitrary(space, 30), printCase, 60 * rounds, ({ policy, groups, connections }) => {
      const inForce = policyInForce(policy, NOW);
      const program = compileAll({ policy: inForce, groups, excluded });
      for (const connection of connections) judgeInMemory(program, inForce, groups, excluded, connection);
    });
  });

  t.test(`and at each step of a walk of changes over ${label}`, async (t) => {
    let edited = 0;
    await tryProperty(walkArbitrary(space, 12, 20), printWalk, 60 * rounds, (steps) => {
      const compiler = new Compiler('walk');
      const table = new Map<string, Elements>();
      for (const { policy, groups, connections } of steps) {
        const inForce = policyInForce(policy, NOW);
        const parts = new Map([...groups].map(([name, members]) => [name, [sortPrefixes(members)]]));
        const { compiled, edits, added } = compiler.compile({ policy: inForce, groups: parts, excluded });
        if (edits !== undefined && edits.length > 0) edited++;
        for (const edit of [...(added?.prepared ?? []), ...(edits ?? [])]) carryOut(edit, table);
        for (const { name, elements } of compiled.maps) {
          if (!name.includes('_classes_') && !name.startsWith('to_')) continue;
          const wanted = elementsOf(elements as Iterable<MapElement<number>>);
          assert.deepEqual(table.get(name) ?? wanted, wanted, `${name} is edited into what it should be`);
          table.set(name, wanted);
        }
        const program = programOf(compiled, labInterfaces, 1);
        for (const connection of connections) judgeInMemory(program, inForce, groups, excluded, connection);
      }
    });
    t.ok(edited > 0, `${edited} steps were edits in place`);
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
