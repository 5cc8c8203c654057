import t from 'tap';
import { parseExposition } from '../support/exposition.js';
import { needPrivileges } from '../support/privileged.js';
import type { Stage } from '../support/stage.js';
import { until } from '../support/wait.js';
import { setUpWorkers, startTraffic } from '../support/workers.js';

needPrivileges();

const OTHER = `table inet other {
  set office { type ipv4_addr; elements = { 192.0.2.1 } }
  chain forward { type filter hook forward priority 10; policy accept; ip saddr @office accept; }
}
`;

const list = ({ gateway }: Stage, ...what: string[]) => gateway.run('nft', ['-a', 'list', ...what]);
/** Rules of one priority may be listed in any order. */
const guardRules = ({ gateway }: Stage) =>
  [...gateway.ip('rule').split('\n'), ...gateway.ip('-6', 'rule').split('\n')].sort().join('\n');
const isWhole = (stage: Stage) => {
  const ruleset = list(stage, 'ruleset');
  return ruleset.includes('table inet sluice') && /chain generation_[0-9]+/.test(ruleset);
};

/** How often drift was counted: of the guard, or of the table whatever the kind. */
function counted(stage: Stage, of: Drift['of']): number {
  const samples = parseExposition(stage.metrics()).filter(({ name }) => name === 'sluice_drift_total');
  const chosen = samples.filter(({ labels }) => (labels.kind === 'guard') === (of === 'guard'));
  return chosen.reduce((sum, { value }) => sum + value, 0);
}

interface Drift {
  readonly what: string;
  readonly of: 'guard' | 'table';
  readonly make: (stage: Stage) => void;
  readonly isUndone: (stage: Stage) => boolean;
}

const nft = (text: string) => (stage: Stage) => void stage.gateway.run('nft', ['-f', '-'], { input: text });
let rules = '';

const DRIFTS: readonly Drift[] = [
  {
    what: 'a rule added to our chain',
    of: 'table',
    make: nft('add rule inet sluice forward ip saddr 10.0.0.0/8 accept comment "alien"'),
    isUndone: (stage) => !list(stage, 'table', 'inet', 'sluice').includes('alien'),
  },
  {
    what: 'a chain emptied',
    of: 'table',
    make: nft('flush chain inet sluice forward'),
    isUndone: (stage) => list(stage, 'chain', 'inet', 'sluice', 'forward').includes('ct mark'),
  },
  {
    what: 'a chain of another hook put into our table',
    of: 'table',
    make: nft('add chain inet sluice alien { type filter hook forward priority -10; policy accept; }'),
    isUndone: (stage) => !list(stage, 'table', 'inet', 'sluice').includes('alien'),
  },
  {
    what: 'a rule of the guard deleted',
    of: 'guard',
    make: ({ gateway }) => gateway.ip('rule', 'del', 'pref', '1', 'iif', 'lam0'),
    isUndone: (stage) => guardRules(stage) === rules,
  },
  {
    what: 'all rules of the guard deleted for IPv6',
    of: 'guard',
    make: ({ gateway }) => {
      for (const name of ['lam0', 'lam1', 'wan0', 'dc0'])
        gateway.ip('-6', 'rule', 'del', 'pref', '1', 'iif', name);
    },
    isUndone: (stage) => guardRules(stage) === rules,
  },
  {
    what: 'our table put to sleep',
    of: 'table',
    make: nft('add table inet sluice { flags dormant; }'),
    isUndone: (stage) => !list(stage, 'table', 'inet', 'sluice').includes('dormant'),
  },
  {
    what: 'our table deleted',
    of: 'table',
    make: nft('delete table inet sluice\nadd table inet sluice'),
    isUndone: isWhole,
  },
  {
    what: 'the whole ruleset flushed',
    of: 'table',
    make: nft('flush ruleset\nadd table inet sluice'),
    isUndone: isWhole,
  },
];

t.test('drift is noticed, counted and undone, and nothing denied passes meanwhile', async (t) => {
  const stage = await setUpWorkers(t);
  // One that is there already gets no owner: others may change it, as on a kernel before 6.9.
  nft('add table inet sluice')(stage);
  stage.start();
  await stage.ready(({ functions }) => functions > 0);
  const arrived = startTraffic(stage);
  await until('permitted traffic arrives', () => arrived().permitted > 0);
  nft(OTHER)(stage);
  const other = list(stage, 'table', 'inet', 'other');
  rules = guardRules(stage);
  t.equal(
    rules.match(/^1:\tfrom all fwmark 0\/0x80000000 iif \S+ (?:\[detached\] )?blackhole/gm)?.length,
    8,
    'the guard is there',
  );
  for (const { what, of, make, isUndone } of DRIFTS) {
    const before = counted(stage, of);
    t.equal(list(stage, 'table', 'inet', 'other'), other, 'another table is untouched');
    make(stage);
    await until(`${what} is undone`, () => isUndone(stage));
    await until(`${what} is counted`, () => counted(stage, of) > before);
    await stage.ready();
    const { permitted } = arrived();
    await until(`permitted traffic goes on after ${what}`, () => arrived().permitted > permitted);
    t.equal(arrived().denied, 0, `${what}: nothing denied passed`);
  }
  const { dropped } = await stage.ready();
  t.ok(dropped.deny! > 0, 'denied traffic was there to pass');
  const errors = stage.product!.logFrom().filter(({ level }) => level === 'error');
  t.same(errors, [], 'nothing went wrong on the way');
});
