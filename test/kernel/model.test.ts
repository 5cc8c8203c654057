import '../support/own-namespace.js';
import { Batch } from 'sluice-gateway/nft/batch.js';
import { policyInForce } from 'sluice-gateway/policy/in-force.js';
import t from 'tap';
import { caseArbitrary, walkArbitrary } from '../support/arbitrary.js';
import { answerAll, asNew, judge, type Tried } from '../support/judges.js';
import { type ChangeKind, prefixes } from '../support/load.js';
import { here } from '../support/namespace.js';
import { patience } from '../support/patience.js';
import { rounds } from '../support/seed.js';
import { Stand } from '../support/stand.js';
import { printCase, printWalk, tryProperty } from '../support/try-property.js';

/** Invariant 8: `evaluate`, the program walked statement by statement and the kernel judge each packet alike. */

const CASES = 60 * rounds;
const CONNECTIONS_MAX = 60;
const WALKS = 30 * rounds;
const STEPS_MAX = 10;
/** Connections of earlier steps that are tried again at each step. */
const LIVE_MAX = 40;

// With time to make a failing case smaller.
t.setTimeout((240_000 + 60_000 * rounds) * patience);

const stand = await Stand.create();
t.teardown(() => stand.close());
answerAll();

/** The first is narrow, so that prefixes meet often. */
const space = {
  sources: prefixes('10.0.128.0/29', '10.0.128.0/17', 'fd00:a::/125', 'fd00:a::/64'),
  destinations: prefixes('203.0.113.0/29', '20.0.0.0/7', '2001:db8::/125', '2600::/16'),
};
const NOW = new Date('2026-11-01T00:00:00Z');

/** No table, no connections, and a loader that knows of nothing. */
async function startAfresh(): Promise<void> {
  const { kernel, applier } = stand.loader;
  if (await kernel.hasTable()) await kernel.commit(new Batch().deleteTable());
  here.run('conntrack', ['-F']);
  await applier.takeOver();
  stand.loader.startAnew('model');
}

t.test('evaluate, the walked program and the kernel agree', async (t) => {
  const judged = { PERMIT: 0, DENY: 0, REJECT: 0 };
  await tryProperty(caseArbitrary(space, CONNECTIONS_MAX), printCase, CASES, async (drawn) => {
    await startAfresh();
    const policy = policyInForce(drawn.policy, NOW);
    await stand.loader.load({ policy, groups: drawn.groups });
    const tried = asNew(drawn.connections);
    const count = await judge(stand, { policy, groups: drawn.groups, tried, isFirst: true });
    for (const [action, times] of Object.entries(count)) judged[action as keyof typeof judged] += times;
  });
  t.comment(JSON.stringify(judged));
  for (const [action, count] of Object.entries(judged)) t.ok(count > 0, `${action} was tried ${count} times`);
});

t.test('they agree at each step of a walk of changes', async (t) => {
  const kinds: Record<ChangeKind, number> = { nothing: 0, edited: 0, applied: 0 };
  await tryProperty(walkArbitrary(space, STEPS_MAX, 20), printWalk, WALKS, async (steps) => {
    await startAfresh();
    let live: readonly Tried[] = [];
    for (const { policy: wanted, groups, connections } of steps) {
      const policy = policyInForce(wanted, NOW);
      kinds[await stand.loader.change({ policy, groups })]++;
      const tried = [...live, ...asNew(connections)];
      await judge(stand, { policy, groups, tried, isFirst: false });
      live = tried.slice(-LIVE_MAX);
      await stand.loader.applier.collect();
    }
  });
  t.comment(JSON.stringify(kinds));
  for (const [kind, count] of Object.entries(kinds)) t.ok(count > 0, `${kind}: ${count} steps`);
});
