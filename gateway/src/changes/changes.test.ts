import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { createLog } from '../log.js';
import { writeDraft } from '../snapshot/fixture.js';
import { SnapshotKeeper } from '../snapshot/keeper.js';
import { readSnapshot, type Snapshot } from '../snapshot/read.js';
import { AuditLog } from './audit.js';
import { Changes } from './changes.js';

const log = createLog({ level: 'error' });

/** Changes over a folder, what they want, and snapshots by revision, the first two of them in force one after the other. */
async function stage(folder: string) {
  const keeper = new SnapshotKeeper({
    ...{ wanted: join(folder, 'snapshot'), statePath: folder, log },
    onSnapshot: () => {},
    onRefused: () => {},
  });
  mkdirSync(join(folder, 'last-good'), { recursive: true });
  const wanted: Snapshot[] = [];
  const changes = new Changes({ keeper, statePath: folder, want: (snapshot) => wanted.push(snapshot), log });
  await changes.resume(new AuditLog(join(folder, 'audit.jsonl'), log));
  const snapshot = async (revision: number) => {
    const drafted = join(folder, `draft-${revision}`);
    writeDraft(drafted, { revision, rules: [{ name: `rule-${revision}` }] });
    return readSnapshot(drafted);
  };
  for (const revision of [1, 2]) {
    const one = await snapshot(revision);
    changes.offered(one);
    changes.applied(one, revision);
  }
  await keeper.keep(await snapshot(2));
  const revisions = () => wanted.map(({ revision }) => revision);
  return { changes, keeper, snapshot, wanted, revisions };
}

const nextTurn = () => new Promise(setImmediate);

t.test('a release whose snapshot is passed over by a newer one ends with the newer one', async (t) => {
  const { changes, keeper, snapshot, wanted, revisions } = await stage(t.testdir());
  const rolledBack = changes.rollback({ revision: 1 }, 'operator');
  while (wanted.length < 3) await nextTurn();
  changes.applied(wanted[2]!, 3);
  t.match(await rolledBack, { revision: 1, generation: 3 });
  changes.offered(await snapshot(4));
  t.same(revisions(), [1, 2, 1], 'while one is held the newest waits');
  const released = changes.release('operator');
  await nextTurn();
  changes.offered(await snapshot(5));
  t.same(revisions(), [1, 2, 1, 4, 5]);
  changes.applied(wanted[4]!, 4);
  t.match(await released, { revision: 5, generation: 4 }, 'the fourth was never in force');
  t.equal(changes.status(), undefined);
  await changes.stop();
  await keeper.keep(wanted[4]!);
});
