import t from 'tap';
import { prefixes, rule } from './policy/fixture.js';
import { Stand, snapshotWith } from './reconcile-stand.js';
import { type Snapshot, snapshotAt } from './snapshot/read.js';

const START = Date.parse('2026-11-01T00:00:00Z');
const after = (ms: number) => new Date(START + ms);
const INTERFACE = '10.0.9.9/32';

/** Its first group has an interface's address until then, and a subnet for good. */
function snapshotUntil(at: Date): Snapshot {
  const snapshot = snapshotWith(['10.0.1.0/24', INTERFACE], rule('one', 'a', 'b'));
  const [first, ...rest] = snapshot.groups;
  const left = prefixes('10.0.1.0/24');
  return {
    ...snapshot,
    groups: [{ ...first!, expires: { at, parts: [left] } }, ...rest],
    parts: new Map(snapshot.parts).set('left', left),
  };
}
const membersOf = (snapshot: Snapshot | undefined) => snapshot?.groups[0]?.parts.flat().length;

t.test('a snapshot at a time', async (t) => {
  const snapshot = snapshotUntil(after(5));
  t.equal(snapshotAt(snapshot, after(4)), snapshot, 'the same object');
  const left = snapshotAt(snapshot, after(5));
  t.strictSame([membersOf(snapshot), membersOf(left)], [2, 1]);
  t.equal(snapshotAt(left, after(9)), left, 'expires once');
});

t.test('a member whose time is over leaves the kernel, and what was judged counts no more', async (t) => {
  const stand = new Stand(t);
  const { reconciler } = stand;
  const snapshot = snapshotUntil(after(5));
  await reconciler.start(snapshot);
  t.equal(membersOf(reconciler.applied?.snapshot), 2);
  stand.now = after(5);
  await stand.until('applied', 2);
  t.equal(membersOf(reconciler.applied?.snapshot), 1);
  t.equal(reconciler.applied?.wanted, snapshot);
  t.strictSame(stand.generations, [1, 2]);
  t.equal(reconciler.isCurrent, true);
});

t.test('a newer snapshot in time keeps it', async (t) => {
  const stand = new Stand(t);
  const { applier, reconciler } = stand;
  await reconciler.start(snapshotUntil(after(20)));
  reconciler.want(snapshotUntil(after(60_000)));
  await stand.until('applied', 2);
  stand.now = after(25);
  await stand.settle();
  t.equal(membersOf(reconciler.applied?.snapshot), 2);
  t.strictSame([applier.edits.length, stand.generations], [0, [1]], 'nothing is written');
});

t.test('after a start it is gone where its time was over meanwhile', async (t) => {
  const stand = new Stand(t);
  const snapshot = snapshotUntil(after(60_000));
  await stand.reconciler.start(snapshot);
  await stand.reconciler.stop();
  const next = new Stand(t);
  next.now = after(60_000);
  next.applier.found = stand.remembered!.generation;
  await next.reconciler.start(snapshot, stand.remembered);
  t.equal(membersOf(next.reconciler.applied?.snapshot), 1);
  t.equal(next.applier.programs.length, 1, 'what the other process left is not taken for it');
});
