import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { createLog } from './log.js';
import { rule } from './policy/fixture.js';
import { Stand, snapshotOf } from './reconcile-stand.js';
import { ProgramMemory } from './remembered.js';

const permit = (name: string) => rule(name, 'a', 'b');

t.test('what comes while the program is being remembered is done, and that program is not', async (t) => {
  for (const [what, happen] of [
    ['another snapshot', (stand: Stand) => stand.reconciler.want(snapshotOf(permit('two')))],
    ['drift', (stand: Stand) => stand.reconciler.drifted()],
  ] as const) {
    const stand = new Stand(t);
    const still: boolean[] = [];
    stand.onRemember = (isStillSo) => {
      still.push(isStillSo());
      if (still.length > 1) return;
      happen(stand);
      still.push(isStillSo());
    };
    await stand.reconciler.start(snapshotOf(permit('one')));
    await stand.until('applied', 2);
    t.strictSame(still.slice(0, 2), [true, false], what);
    t.equal(stand.remembered, undefined, 'it would be found by a next process that it misleads');
  }
});

t.test('a disk that refuses both the note and its removal ends nothing', async (t) => {
  const folder = t.testdir({ 'in-force.json': { file: '' } });
  const said: string[] = [];
  const log = createLog({ write: (line) => void said.push(line), level: 'debug' });
  const memory = new ProgramMemory(folder, { rulesetId: async () => 1 }, log);
  await memory.remember({ fingerprint: 'f', generation: 1, numbers: [], own: [] }, () => true);
  t.match(said, [/could not be noted/]);
});

t.test('what somebody may have touched is not remembered', async (t) => {
  const folder = t.testdir();
  const path = join(folder, 'in-force.json');
  let id = 7;
  let isBusy = true;
  const rulesetId = async () => (isBusy ? id++ : id);
  const memory = new ProgramMemory(folder, { rulesetId }, createLog({ write: () => {} }));
  const remembered = { fingerprint: 'f', generation: 1, numbers: [['one', 1]] as const, own: [] };
  await memory.remember(remembered, () => true);
  t.notOk(existsSync(path), 'a transaction came meanwhile');
  isBusy = false;
  await memory.remember(remembered, () => false);
  t.notOk(existsSync(path), 'the event of one before came meanwhile');
  await memory.remember(remembered, () => true);
  t.match(readFileSync(path, 'utf8'), ' 9"');
  t.strictSame(await memory.recall(), remembered);
  id++;
  t.equal(await memory.recall(), undefined, 'a transaction came after it');
});
