import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { ApplyError } from './nft/apply.js';
import { GENERATION_MAX } from './nft/mark.js';
import type { Program } from './nft/program.js';
import { prefixes, rule } from './policy/fixture.js';
import { POLICY_LIMITS } from './policy/limits.js';
import type { PolicyRule } from './policy/model.js';
import { Stand, snapshotOf, snapshotWith } from './reconcile-stand.js';

const permit = (name: string, more: Partial<PolicyRule> = {}) => rule(name, 'a', 'b', more);
const contentNames = ({ chains, maps }: Program) => new Set([...chains, ...maps].map(({ name }) => name));
const ENOBUFS = new Error('Cannot commit batch: ENOBUFS');

t.test('without a snapshot the closed program is applied, and then what is wanted', async (t) => {
  const stand = new Stand(t);
  stand.applier.found = 41;
  t.equal(stand.reconciler.isCurrent, false);
  await stand.reconciler.start(undefined);
  t.equal(stand.reconciler.isCurrent, true);
  t.strictSame(stand.generations, [42], 'after the generation that was found');
  t.strictSame([...contentNames(stand.applier.programs[0]!)], ['judged_42'], 'nothing leads anywhere');
  const snapshot = snapshotOf(permit('one'));
  stand.reconciler.want(snapshot);
  t.equal(stand.reconciler.isCurrent, false);
  await stand.until('applied', 2);
  t.equal(stand.reconciler.isCurrent, true);
  t.strictSame(stand.generations, [42, 43]);
  t.match(stand.reconciler.applied, { generation: 43, snapshot, policy: { rules: [{ name: 'one' }] } });
  t.strictSame(
    stand.switched.map(([generation]) => generation),
    [42, 43],
    'said before the switch',
  );
  t.equal(stand.applier.takenOver, 1);
});

/** After `snapshotOf` no change in place: addresses and rules are others at once. */
const otherwise = (...rules: PolicyRule[]) => snapshotWith(['10.0.2.0/24', '250.0.0.0/8'], ...rules);

t.test('content that is in the kernel already is not written again', async (t) => {
  const stand = new Stand(t);
  await stand.reconciler.start(snapshotOf(permit('one')));
  const same = snapshotOf(permit('one', { priority: 77, description: 'new', owner: 'net' }));
  stand.reconciler.want(same);
  await stand.until('applied', 2);
  t.strictSame(stand.generations, [1]);
  t.match(stand.reconciler.applied, { generation: 1, snapshot: same, policy: { rules: [{ priority: 77 }] } });
  const [generation, policy] = stand.switched.at(-1)!;
  t.equal(generation, 1);
  t.match(
    policy.rules,
    [{ priority: 77, rule: { owner: 'net' } }],
    'what the marks mean is new all the same',
  );
  t.equal(stand.reconciler.isCurrent, true);
});

t.test('the generation stays where nothing is taken away, and what is judged stays judged', async (t) => {
  const stand = new Stand(t);
  const wanted = [
    snapshotOf(permit('one')),
    snapshotOf(permit('one'), permit('two', { protocol: 'TCP' })),
    snapshotOf(permit('one', { logging: false }), permit('two', { protocol: 'TCP' })),
    snapshotOf(permit('one', { logging: false })),
    snapshotOf(permit('one', { logging: false, portRanges: [{ lo: 443, hi: 443 }] })),
  ];
  await stand.reconciler.start(wanted[0]);
  for (const [index, snapshot] of wanted.slice(1).entries()) {
    stand.reconciler.want(snapshot);
    await stand.until('applied', index + 2);
  }
  t.strictSame(
    stand.applied.map(({ generation }) => generation),
    [1, 1, 1, 1, 2],
    'a permit more, its logging, one less that decided nothing, a permit narrowed',
  );
  t.strictSame(stand.generations, [1, 2], 'and then a program, where something is taken away');
  t.strictSame(
    stand.switched.map(([generation, { rules }]) => [generation, rules.length]),
    [
      [1, 1],
      [1, 2],
      [1, 2],
      [1, 1],
      [1, 1],
      [2, 1],
    ],
  );
  t.match(stand.applier.edits, [[[{}], 'judged_1']], 'a permit that is narrowed is an edit');
});

t.test(
  'members that come are edited in; where some go, what was judged counts no more from then on',
  async (t) => {
    const stand = new Stand(t);
    const { applier, reconciler } = stand;
    const [near, far, top] = ['10.0.1.0/24', '10.0.9.0/24', '250.0.0.0/8'];
    await reconciler.start(snapshotWith([near, top], permit('one')));
    const want = async (count: number, ...a: string[]) => {
      const snapshot = snapshotWith(a, permit('one'));
      reconciler.want(snapshot);
      await stand.until('applied', count);
      t.equal(stand.applied.at(-1)?.snapshot, snapshot);
      t.equal(reconciler.isCurrent, true);
    };
    await want(2, near, far, top);
    t.strictSame(stand.generations, [1], 'no program');
    t.match(applier.edits, [[[{ remove: [{}], add: [{}, {}, {}] }], undefined]]);
    t.equal(applier.edits[0]![0].length, 1, 'one map');
    await want(3, near, top);
    t.equal(applier.edits[1]![1], 'judged_1');
    t.strictSame(stand.generations, [1, 2], 'then a program of the next generation');
    applier.failures.push(new ApplyError('edit', ENOBUFS));
    const names = contentNames(applier.programs.at(-1)!);
    await want(4, near, far, top);
    t.strictSame(stand.failed, ['edit']);
    t.strictSame(stand.generations, [1, 2, 3], 'an edit that failed is a program under other names');
    t.strictSame([...names.intersection(contentNames(applier.programs.at(-1)!))], []);
  },
);

t.test('a failure is told and tried again under other names; until then it is not ready', async (t) => {
  const stand = new Stand(t);
  await stand.reconciler.start(snapshotOf(permit('one')));
  stand.applier.failures.push(new ApplyError('load', ENOBUFS), new ApplyError('switch', ENOBUFS), ENOBUFS);
  const seen: boolean[] = [];
  const { applier, reconciler } = stand;
  const apply = applier.apply.bind(applier);
  applier.apply = async (program) => {
    await apply(program).finally(() => seen.push(reconciler.isCurrent));
    seen.push(reconciler.isCurrent);
  };
  const takenOver = applier.takenOver;
  reconciler.want(otherwise(permit('two')));
  await stand.until('applied', 2);
  t.strictSame(stand.failed, ['load', 'switch', 'compile']);
  t.strictSame(stand.generations, [1, 2, 3, 4, 5]);
  t.equal(seen.includes(true), false, 'while it tried');
  t.equal(reconciler.isCurrent, true);
  t.equal(applier.takenOver, takenOver + 1, 'an error of unknown kind: who knows what the table holds');
  const names = applier.programs.slice(1).map(contentNames);
  for (const [index, earlier] of names.entries()) {
    for (const later of names.slice(index + 1)) t.equal(earlier.intersection(later).size, 0, 'no name twice');
  }
});

t.test('the generation in force is not given out again, though no connection carries it yet', async (t) => {
  const stand = new Stand(t);
  stand.applier.found = GENERATION_MAX - 2;
  await stand.reconciler.start(snapshotOf(permit('one')));
  const inForce = GENERATION_MAX - 1;
  stand.generationsInUse = new Set(Array.from({ length: GENERATION_MAX }, (_, index) => index + 1));
  stand.generationsInUse.delete(inForce);
  stand.applier.failures.push(new ApplyError('load', ENOBUFS));
  stand.reconciler.want(otherwise(permit('two')));
  await stand.until('failed', 2);
  t.strictSame(stand.generations, [inForce, GENERATION_MAX]);
  t.strictSame(stand.failed, ['load', 'compile']);
});

t.test('drift has everything written again, and it is not ready meanwhile', async (t) => {
  for (const snapshot of [snapshotOf(permit('one')), undefined]) {
    const stand = new Stand(t);
    const { applier, reconciler } = stand;
    await reconciler.start(snapshot);
    const release = applier.hold();
    reconciler.drifted();
    t.equal(reconciler.isCurrent, false);
    await stand.until('programs', 2);
    t.equal(reconciler.isCurrent, false, 'under way');
    t.equal(reconciler.applied?.generation, 1, 'what was last in force is still told');
    applier.failures.push(new ApplyError('load', ENOBUFS));
    release();
    await stand.until('applied', 2);
    t.equal(applier.takenOver, 2);
    t.strictSame(
      stand.generations,
      [1, 2, 3],
      snapshot === undefined ? 'the closed program too' : 'the policy',
    );
    t.equal(reconciler.isCurrent, true);
  }
});

t.test('drift during an application: once more', async (t) => {
  for (const snapshot of [snapshotOf(permit('one')), undefined]) {
    const stand = new Stand(t);
    const { applier, reconciler } = stand;
    await reconciler.start(snapshot);
    const release = applier.hold();
    reconciler.drifted();
    await stand.until('programs', 2);
    reconciler.drifted();
    release();
    await stand.until('applied', 3);
    t.strictSame(stand.generations, [1, 2, 3]);
    t.equal(applier.takenOver, 3);
  }
});

t.test('drift during a takeover: once more, too', async (t) => {
  const stand = new Stand(t);
  const { applier, reconciler } = stand;
  await reconciler.start(snapshotOf(permit('one')));
  const takeOver = applier.takeOver.bind(applier);
  applier.takeOver = async () => {
    applier.takeOver = takeOver;
    reconciler.drifted();
    return takeOver();
  };
  reconciler.drifted();
  await stand.until('applied', 3);
  t.strictSame(stand.generations, [1, 2, 3]);
  const [, second, third] = applier.programs.map(({ maps }) => new Set(maps.map(({ name }) => name)));
  t.equal(second!.intersection(third!).size, 0, 'under other names');
});

t.test('of several snapshots that arrive during an application the newest is next', async (t) => {
  const stand = new Stand(t);
  await stand.reconciler.start(snapshotOf(permit('one')));
  const release = stand.applier.hold();
  stand.reconciler.want(otherwise(permit('two')));
  await stand.until('programs', 2);
  for (const name of ['three', 'four']) stand.reconciler.want(snapshotOf(permit(name)));
  const newest = snapshotOf(permit('five'));
  stand.reconciler.want(newest);
  release();
  await stand.until('applied', 3);
  await stand.settle();
  t.strictSame(
    stand.applied.map(({ policy }) => policy.rules[0]?.name),
    ['one', 'two', 'five'],
  );
  t.equal(stand.applied.at(-1)?.snapshot, newest);
  t.equal(stand.reconciler.isCurrent, true);
});

t.test('a rule ends by itself', async (t) => {
  const stand = new Stand(t);
  const expires = '2026-11-01T00:00:00.020Z';
  const snapshot = snapshotOf(
    permit('short', { expires }),
    permit('long', { expires: '2027-01-01T00:00:00Z' }),
  );
  await stand.reconciler.start(snapshot);
  stand.now = new Date(expires);
  await stand.until('applied', 2);
  t.strictSame(
    stand.applied.map(({ policy }) => policy.rules.map(({ name }) => name)),
    [['short', 'long'], ['long']],
  );
  t.equal(stand.applied[1]?.snapshot, snapshot);
  await stand.settle();
  t.equal(stand.applied.length, 2, 'far expiries, and clocks that go on, wake nobody');
});

t.test('a rule that expires while it is applied ends too', async (t) => {
  const stand = new Stand(t);
  const expires = '2026-11-01T00:00:00.020Z';
  const release = stand.applier.hold();
  const starting = stand.reconciler.start(snapshotOf(permit('short', { expires }), permit('long')));
  await stand.until('programs', 1);
  stand.now = new Date(expires);
  release();
  await starting;
  await stand.until('applied', 2);
  t.strictSame(
    stand.applied.map(({ policy }) => policy.rules.map(({ name }) => name)),
    [['short', 'long'], ['long']],
  );
});

t.test('a policy over a limit is told once, and what is in force stays wanted', async (t) => {
  const stand = new Stand(t);
  const one = snapshotOf(permit('one'));
  await stand.reconciler.start(one);
  const count = POLICY_LIMITS.classesMax + 1;
  const many = Array.from(
    { length: count },
    (_, index) => `10.${index >> 12}.${(index >> 4) & 255}.${(index & 15) * 16}/32`,
  );
  const groups = Array.from({ length: 17 }, (_, bit) => ({
    name: `g${bit}`,
    resolved: true,
    parts: [prefixes(...many.filter((_, index) => (index >> bit) & 1))],
  }));
  const tooLarge = {
    ...snapshotOf(...groups.map(({ name }) => rule(name, name, name, { protocol: 'TCP' }))),
    groups,
  };
  stand.reconciler.want(tooLarge);
  await stand.until('applied', 2);
  t.strictSame(stand.failed, ['compile']);
  t.strictSame([stand.reconciler.isCurrent, stand.applied[1]?.snapshot === one], [true, true]);
  t.strictSame(stand.generations, [1], 'nothing was written');
  stand.reconciler.drifted();
  await stand.until('applied', 3);
  t.strictSame([stand.generations, stand.failed], [[1, 2], ['compile']], 'drift is repaired all the same');
  stand.ownAddresses = prefixes('10.0.1.1/32');
  stand.reconciler.want(tooLarge);
  await stand.until('applied', 4);
  t.strictSame(stand.generations, [1, 2, 3], "and so is what the gateway's addresses change");
  const two = snapshotOf(permit('two'));
  stand.reconciler.want(two);
  await stand.until('applied', 5);
  t.equal(stand.applied[4]?.snapshot, two);
});

t.test('old content is collected when packets have left it', async (t) => {
  const stand = new Stand(t);
  await stand.reconciler.start(snapshotOf(permit('one')));
  await stand.settle();
  t.equal(stand.applier.collected, 0, 'not at once');
  while (stand.applier.collected === 0) await delay(20);
  t.equal(stand.applied.length, 1);
});

t.test('stop waits for what is under way, and nothing happens afterwards', async (t) => {
  const stand = new Stand(t);
  const { applier, reconciler } = stand;
  await reconciler.start(snapshotOf(permit('one')));
  const release = applier.hold();
  reconciler.want(snapshotOf(permit('two', { expires: '2026-11-01T00:00:00.005Z' })));
  await stand.until('programs', 2);
  let isStopped = false;
  const stopping = reconciler.stop().then(() => {
    isStopped = true;
  });
  await stand.settle();
  t.equal(isStopped, false);
  release();
  await stopping;
  t.equal(stand.applied.length, 2);
  reconciler.want(snapshotOf(permit('three')));
  await stand.settle();
  t.equal(applier.programs.length, 2);
  t.strictSame(
    process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout'),
    [],
    'no timer is left',
  );
});

t.test('a start that fails is an error', async (t) => {
  const stand = new Stand(t);
  stand.applier.failures.push(new ApplyError('load', ENOBUFS));
  await t.rejects(stand.reconciler.start(snapshotOf(permit('one'))), ApplyError);
  t.equal(stand.reconciler.isCurrent, false);
  t.equal(stand.reconciler.applied, undefined);
});

t.test('what another process left and is remembered is not written again', async (t) => {
  const first = new Stand(t);
  const snapshot = snapshotOf(permit('one'), permit('two', { expires: '2026-11-02T00:00:00Z' }));
  await first.reconciler.start(snapshot);
  await first.reconciler.stop();
  const remembered = first.remembered!;
  t.match(remembered, {
    generation: 1,
    numbers: [
      ['one', 1],
      ['two', 2],
    ],
  });
  const start = async (found: number | undefined, change: (next: Stand) => void = () => {}) => {
    const next = new Stand(t);
    next.applier.found = found;
    change(next);
    await next.reconciler.start(snapshot, remembered);
    return next;
  };

  const same = await start(1);
  t.strictSame(same.generations, [], 'nothing is written');
  t.equal(same.reconciler.isCurrent, true);
  t.match(same.applied, [{ generation: 1, snapshot }]);
  t.match(same.switched, [[1, { rules: [{ name: 'one', number: 1 }] }]], 'marks mean what they meant');
  same.reconciler.want(snapshotOf(permit('two'), permit('three')));
  await same.until('applied', 2);
  t.strictSame(same.generations, [2], 'a change is written whole, under the next generation');
  t.match(same.reconciler.applied?.policy.rules, [{ number: 2 }, { number: 3 }], 'numbers are kept');

  t.strictSame((await start(7)).generations, [8], 'another generation is in the kernel');
  t.strictSame((await start(undefined)).generations, [1], 'there is none');
  const later = await start(1, (next) => {
    next.now = new Date('2026-11-03T00:00:00Z');
  });
  t.strictSame(later.generations, [2], 'a rule has expired since');
  const drifted = await start(1, (next) => next.reconciler.drifted());
  t.strictSame(drifted.generations, [2], 'somebody changed the table since');
  const own = new Stand(t, { ownAddresses: prefixes('10.0.1.1/32') });
  own.applier.found = 1;
  await own.reconciler.start(snapshot, remembered);
  t.strictSame(own.generations, [2], 'the gateway has another address');
});
