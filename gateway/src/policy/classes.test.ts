import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { Classes, type RulePositions, rulesOfAtom } from './classes.js';
import { NumberSets } from './number-sets.js';
import { pairLists } from './pairs.js';

const seed = process.env.TEST_SEED === undefined ? Date.now() & 0xffff_ffff : Number(process.env.TEST_SEED);
const positions = (...rules: number[]): RulePositions => Uint16Array.from(rules);
const key = (rules: RulePositions) => rules.join();

/** For each atom its rules: a policy, as classes see it. An atom that is not there is in no address. */
const policy = fc
  .array(fc.option(fc.subarray([0, 1, 300]), { freq: 4 }), { minLength: 8, maxLength: 8 })
  .map(
    (rules) =>
      new Map(rules.flatMap((rules, atom) => (rules === null ? [] : [[atom, positions(...rules)] as const]))),
  );

const noneBroad = () => false;

t.test(
  `atoms of one class have the same rules, and keep their class while they can (TEST_SEED=${seed})`,
  (t) => {
    fc.assert(
      fc.property(fc.array(policy, { minLength: 1, maxLength: 8 }), (policies) => {
        const classes = new Classes();
        /** Of atoms that are gone, what they last had. */
        let before: ReadonlyMap<number, number | undefined> = new Map();
        for (const rules of policies) {
          classes.assign([...rules.keys()], (atom) => rules.get(atom)!, noneBroad);
          const now = new Map([...rules.keys()].map((atom) => [atom, classes.classOf(atom)]));
          for (const [atom, id] of now) {
            assert.ok(id !== undefined && id >= 1, 'each has one, from 1 on');
            assert.equal(key(classes.live.get(id)!), key(rules.get(atom)!));
          }
          assert.deepEqual(new Set(classes.live.keys()), new Set(now.values()), 'no other class is live');
          for (const id of new Set(before.values())) {
            const were = [...now.keys()].filter((atom) => before.get(atom) === id);
            if (were.length === 0) continue;
            const parts = Map.groupBy(were, (atom) => now.get(atom));
            assert.ok(parts.has(id), 'of a class that is split one part keeps it');
            assert.equal(
              parts.size,
              new Set(were.map((atom) => key(rules.get(atom)!))).size,
              'no more parts than needed',
            );
            assert.equal(now.get(were[0]!), id, 'the first');
            for (const other of parts.keys()) {
              assert.ok(
                other === id || ![...before.values()].includes(other),
                'others get new ones: none merge',
              );
            }
          }
          before = new Map([...before, ...now]);
        }
      }),
      { seed, numRuns: 1_000 },
    );
    t.pass('over changes of policy');
    t.end();
  },
);

t.test('an atom that comes while policy stays takes the class that has its rules', (t) => {
  const classes = new Classes();
  classes.assign([0, 1, 2], (atom) => positions(...[[], [0, 1], [1]][atom]!), noneBroad);
  t.equal(classes.classOf(3), undefined);
  t.equal(classes.adopt(3, positions(1)), classes.classOf(2));
  t.equal(classes.classOf(3), classes.classOf(2));
  t.equal(classes.adopt(4, positions(0)), undefined, 'where there is none');
  t.equal(classes.classOf(4), undefined);
  t.end();
});

t.test('an atom that was gone when policy changed has no class until it is asked for its rules', (t) => {
  const classes = new Classes();
  classes.assign([1, 2], () => positions(0), noneBroad);
  t.equal(classes.classOf(1), classes.classOf(2));
  // Nobody is in atom 2 when its groups get another rule than those of atom 1.
  classes.assign([0, 1], (atom) => (atom === 1 ? positions(0) : positions()), noneBroad);
  const id = classes.classOf(2);
  t.equal(id !== undefined && classes.live.has(id), false, 'not that of rules it has no more');
  t.equal(classes.adopt(2, positions()), classes.classOf(0));
  t.end();
});

t.test('the rules of an atom are those of its groups, in order, each once', (t) => {
  const atoms = new NumberSets();
  const rulesOfGroup = new Map([
    [1, positions(9, 10, 1000)],
    [2, positions(2, 10)],
  ]);
  const of = (...groups: number[]) => [...rulesOfAtom(atoms, atoms.idOf(groups), rulesOfGroup)];
  t.strictSame(of(), []);
  t.strictSame(of(1), [9, 10, 1000]);
  t.strictSame(of(1, 2, 3), [2, 9, 10, 1000]);
  t.strictSame(of(3), []);
  t.end();
});

t.test(`sets of numbers (TEST_SEED=${seed})`, (t) => {
  const steps = fc.array(fc.tuple(fc.boolean(), fc.nat(5)), { maxLength: 30 });
  fc.assert(
    fc.property(fc.array(steps, { maxLength: 4 }), (walks) => {
      const sets = new NumberSets();
      const ids = new Map<string, number>([['', 0]]);
      for (const walk of walks) {
        let id = 0;
        const slow = new Set<number>();
        for (const [isAdded, member] of walk) {
          id = isAdded ? sets.with(id, member) : sets.without(id, member);
          if (isAdded) slow.add(member);
          else slow.delete(member);
          const members = [...slow].sort((a, b) => a - b);
          assert.deepEqual(sets.membersOf(id), members);
          assert.equal(ids.get(members.join()) ?? id, id, 'one set, one id');
          ids.set(members.join(), id);
        }
      }
      assert.equal(sets.size, new Set(ids.values()).size, 'and one id, one set');
    }),
    { seed, numRuns: 300 },
  );
  t.pass('by members that come and go');
  t.end();
});

t.test(`the list of a pair is the rules that both have, up to one that ends it (TEST_SEED=${seed})`, (t) => {
  const side = fc.array(
    fc.subarray([0, 1, 2, 3, 4, 5, 6]).map((rules) => positions(...rules)),
    { maxLength: 6 },
  );
  const ends = fc.array(fc.boolean(), { minLength: 7, maxLength: 7 });
  fc.assert(
    fc.property(side, side, ends, (sources, destinations, endsList) => {
      const { lists, listOf } = pairLists(sources, destinations, endsList);
      assert.equal(listOf.length, sources.length * destinations.length);
      const ids = new Map<string, number>([['', 0]]);
      for (const [s, source] of sources.entries()) {
        for (const [d, destination] of destinations.entries()) {
          const both = [...source].filter((rule) => destination.includes(rule));
          const end = both.findIndex((rule) => endsList[rule]);
          const expected = end < 0 ? both : both.slice(0, end + 1);
          const id = listOf[s * destinations.length + d]!;
          assert.deepEqual(lists.positionsOf(id), expected);
          assert.equal(ids.get(expected.join()) ?? id, id, 'equal lists are one');
          ids.set(expected.join(), id);
        }
      }
    }),
    { seed, numRuns: 1_000 },
  );
  const many = Array.from({ length: 2_000 }, (_, index) => positions(index));
  const all = positions(...many.keys());
  const { lists, listOf } = pairLists(
    many,
    [all],
    many.map(() => false),
  );
  t.strictSame(
    [...listOf].map((list) => lists.positionsOf(list)),
    [...many.keys()].map((index) => [index]),
    'many',
  );
  t.end();
});
