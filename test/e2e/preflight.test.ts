import type { Finding } from 'sluice-gateway/preflight/finding.js';
import t from 'tap';
import { needPrivileges } from '../support/privileged.js';
import type { Stage } from '../support/stage.js';
import { until } from '../support/wait.js';
import { setUpWorkers } from '../support/workers.js';

needPrivileges();

const nft = (stage: Stage, text: string) => stage.gateway.run('nft', ['-f', '-'], { input: text });
const MARKS = 'table inet rogue { chain marks { type filter hook output priority 0; ct mark set 7; }; }';
const REFUSED = 'foreign.ct_mark: table inet rogue writes connection marks, in "marks": ';
const COLUMNS_MAX = 100;

t.test('the product does not start beside a table that writes connection marks', async (t) => {
  const stage = await setUpWorkers(t);
  const run = ['run', '--config', stage.path('sluice.yaml')];
  nft(stage, MARKS);
  const before = stage.gateway.run('nft', ['-a', 'list', 'ruleset']);
  const refused = await stage.sluice(...run);
  t.equal(refused.code, 2);
  t.match(refused.error, `Cannot start gateway: ${REFUSED}`, 'it says which, and where');
  t.match(refused.error, 'remove those rules', 'and what to do');
  t.equal(stage.gateway.run('nft', ['-a', 'list', 'ruleset']), before, 'that table is as it was');
  t.match(stage.gateway.ip('rule'), /^1:.*lam0.*blackhole/m, 'and nothing passes');
  t.equal(stage.gateway.run('sysctl', ['-n', 'net.ipv4.ip_forward']).trim(), '0');

  nft(stage, 'delete table inet rogue');
  stage.start();
  await stage.ready();
  t.equal(stage.metric('sluice_foreign_tables', { kind: 'ct_mark' }), 0);
  t.equal(stage.metric('sluice_kernel_feature', { feature: 'interval_map' }), 1);
  t.equal(stage.metric('sluice_sysctl', { name: 'net.ipv4.ip_forward' }), 1, 'as it is now');

  nft(stage, MARKS);
  const told = () =>
    stage.product!.logFrom().find(({ level, message }) => level === 'error' && message.startsWith(REFUSED));
  await until('one that comes later is told', told);
  t.equal(stage.metric('sluice_foreign_tables', { kind: 'ct_mark' }), 1);
  const { ready, warnings } = await stage.ready();
  t.ok(ready, 'and the product goes on');
  t.ok(
    warnings.some((line) => line.startsWith(REFUSED)),
    'and its status says so',
  );
});

t.test('check --kernel says what a start would', async (t) => {
  const stage = await setUpWorkers(t);
  const config = ['--config', stage.path('sluice.yaml')];
  const fine = await stage.sluice('check', '--kernel');
  t.ok(fine.code < 2, 'no configuration is needed');
  t.equal(fine.error, '');
  t.match(fine.out, /^KERNEL +LEVEL +EXPECTED +FOUND\nkernel +(?:ok|warning) /);
  t.match(fine.out, /^interval_map +ok +yes +yes$/m);
  t.match(fine.out, /^net\.ipv4\.ip_forward +info +1 +0$/m);
  nft(stage, `${MARKS}\ntable ip ${'long'.repeat(20)} { chain x { notrack; }; }`);
  const refused = await stage.sluice('check', '--kernel', ...config);
  t.equal(refused.code, 2);
  t.match(refused.out, /^ct_mark +error +none +inet rogue$/m);
  t.match(refused.out.replaceAll(/\n +/g, ' '), `error    ${REFUSED}`);
  t.match(refused.out, /^net\.ipv4\.conf\.wan0\.rp_filter +ok /m, 'interfaces of the configuration');
  const wide = refused.out.split('\n').filter((line) => line.length > COLUMNS_MAX);
  t.ok(
    wide.every((line) => !line.trim().includes(' ')),
    'lines fit, but for a single long word',
  );
  const { code, out } = await stage.sluice('check', '--kernel', '--json', ...config);
  t.equal(code, 2);
  t.equal(out.indexOf('\n'), out.length - 1, 'one line');
  const { findings } = JSON.parse(out) as { findings: Finding[] };
  t.match(
    findings.find(({ name }) => name === 'foreign.ct_mark'),
    { level: 'error', value: 'inet rogue', expected: 'none' },
  );
});
