import { rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { createLog } from '../log.js';
import { type SnapshotDraft, writeDraft } from './fixture.js';
import { MANIFEST_FILE } from './format.js';
import { SnapshotKeeper } from './keeper.js';
import type { Snapshot } from './read.js';

/** A keeper between a folder that a test writes and one of its own, and what it told. */
class Stand {
  readonly wanted: string;
  readonly lastGood: string;
  readonly accepted: number[] = [];
  readonly refused: string[] = [];
  readonly logged: string[] = [];
  readonly keeper: SnapshotKeeper;
  newest: Snapshot | undefined;

  constructor(t: Test, folder = t.testdir({ wanted: {} })) {
    this.wanted = join(folder, 'wanted');
    this.lastGood = join(folder, 'last-good');
    this.keeper = new SnapshotKeeper({
      wanted: this.wanted,
      statePath: folder,
      log: createLog({ terminal: false, write: (line) => this.logged.push(line) }),
      onSnapshot: (snapshot) => {
        this.newest = snapshot;
        this.accepted.push(snapshot.revision);
      },
      onRefused: (error) => this.refused.push(error.message),
    });
    t.teardown(() => this.keeper.stop());
  }

  write(draft: SnapshotDraft): void {
    writeDraft(this.wanted, draft);
  }

  /** Waits for the next thing told; the keeper looks every two seconds where nothing notifies it. */
  async next(): Promise<void> {
    const count = () => this.accepted.length + this.refused.length;
    const before = count();
    while (count() === before) await delay(5);
  }
}

/** Differs from any other of another number. */
const named = (revision: number, name = `rule ${revision}`): SnapshotDraft => ({
  revision,
  rules: [{ name }],
});

t.test('follows the wanted snapshot, forwards only', async (t) => {
  const stand = new Stand(t);
  await stand.keeper.start();
  t.equal(stand.keeper.newest, undefined, 'there is none yet');
  t.strictSame([stand.accepted, stand.refused], [[], []], 'which is not told');
  stand.write(named(3));
  await stand.next();
  t.strictSame(stand.accepted, [3]);
  t.equal(stand.keeper.newest, stand.newest);

  stand.write(named(2));
  await stand.next();
  stand.write(named(3, 'other content'));
  await stand.next();
  t.strictSame(stand.accepted, [3]);
  t.match(stand.refused, [
    /its revision is 2, the newest is 3 and revisions only grow/,
    /its revision is 3, the newest/,
  ]);
  t.equal(stand.keeper.newest?.revision, 3, 'the one in force stays');

  stand.write(named(3));
  stand.write(named(4));
  await stand.next();
  t.strictSame(stand.accepted, [3, 4]);
  t.match(stand.newest?.policy.rules, [{ name: 'rule 4' }]);
});

t.test('what does not verify is told once, and looked at again', async (t) => {
  const stand = new Stand(t);
  const bad = (revision: number): SnapshotDraft => ({ revision, groups: [] });
  stand.write(bad(1));
  await stand.keeper.start();
  t.match(stand.refused, [/names group "functions", which is not there/]);
  t.equal(stand.logged.length, 1);
  t.match(JSON.parse(stand.logged[0]!), { level: 'error', message: /was refused, the one in force stays/ });
  stand.write(bad(1));
  await delay(2_500);
  stand.write(bad(2));
  await delay(100);
  t.equal(stand.refused.length, 1, 'not at every look');
  stand.write(named(2));
  await stand.next();
  t.strictSame(stand.accepted, [2]);
  stand.write(bad(3));
  await stand.next();
  t.equal(stand.refused.length, 2, 'the same again, after a good one');
  truncateSync(join(stand.wanted, MANIFEST_FILE));
  await stand.next();
  t.match(stand.refused[2], /the manifest is not JSON/);
  t.equal(stand.keeper.newest?.revision, 2);
});

t.test('a snapshot that was kept is the first of the next start', async (t) => {
  const folder = t.testdir({ wanted: {} });
  const before = new Stand(t, folder);
  t.equal(await before.keeper.loadLastGood(), undefined, 'none yet');
  t.strictSame(before.logged, []);
  before.write(named(7));
  await before.keeper.start();
  await before.keeper.keep(before.newest!);
  before.keeper.stop();
  t.strictSame(before.logged, []);

  const after = new Stand(t, folder);
  const last = await after.keeper.loadLastGood();
  t.equal(last?.revision, 7);
  t.strictSame(last?.policy, before.newest?.policy);
  t.strictSame([...last!.bodies.keys()].sort(), [...before.newest!.bodies.keys()].sort());
  await after.keeper.start();
  t.strictSame(after.accepted, [], 'the wanted one is the same: nothing new');
  after.write(named(6));
  await after.next();
  t.match(after.refused, [/its revision is 6, the newest is 7/], 'nor does a restart let it go back');
  after.write(named(8));
  await after.next();
  t.strictSame(after.accepted, [8]);
  await Promise.all([after.keeper.keep(last!), after.keeper.keep(after.newest!)]);
  const third = new Stand(t, folder);
  t.equal((await third.keeper.loadLastGood())?.revision, 8, 'one after the other, the last stays');
});

t.test('a last good one that is damaged, or can not be kept', async (t) => {
  const folder = t.testdir({ wanted: {} });
  const stand = new Stand(t, folder);
  stand.write(named(1));
  await stand.keeper.start();
  await stand.keeper.keep(stand.newest!);
  truncateSync(join(stand.lastGood, MANIFEST_FILE), 10);
  const next = new Stand(t, folder);
  t.equal(await next.keeper.loadLastGood(), undefined);
  t.match(next.logged, [/the last good snapshot is unusable/]);
  await next.keeper.start();
  t.strictSame(next.accepted, [1], 'what is wanted is taken all the same');
  rmSync(next.lastGood, { recursive: true });
  writeFileSync(next.lastGood, 'a file in its place');
  await next.keeper.keep(next.newest!);
  t.match(next.logged[1], /could not be stored as the last good one/);
  rmSync(next.lastGood);
  await next.keeper.keep(next.newest!);
  t.equal((await new Stand(t, folder).keeper.loadLastGood())?.revision, 1, 'and the next is stored');
});

t.test('a folder that is not there yet', async (t) => {
  const stand = new Stand(t, t.testdir());
  await stand.keeper.start();
  stand.write(named(1));
  await stand.next();
  t.strictSame(stand.accepted, [1], 'is looked at from time to time');
});
