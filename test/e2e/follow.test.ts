import { once } from 'node:events';
import type { TopAnswer } from 'sluice-gateway/admin/busiest.js';
import type { FlowRecord } from 'sluice-gateway/flows/record.js';
import t from 'tap';
import { needPrivileges } from '../support/privileged.js';
import { SLUICE } from '../support/product.js';
import type { Stage } from '../support/stage.js';
import { until } from '../support/wait.js';
import { FUNCTIONS, LEDGER, POLICY, ROGUE, setUpWorkers, WORKER, writePolicy } from '../support/workers.js';

needPrivileges();

const COLUMNS_MAX = 100;
const PORT_DENIED = LEDGER.port + 1;

/** Starts a command of the product that goes on: the lines that it has said. */
function follow(
  stage: Stage,
  ...args: string[]
): { readonly lines: readonly string[]; end(): Promise<void> } {
  const command = [SLUICE, ...args, '--socket', stage.path('admin.sock')];
  const child = stage.gateway.spawn(process.execPath, command);
  const lines: string[] = [];
  let rest = '';
  child.stdout!.on('data', (chunk: Buffer) => {
    const parts = `${rest}${chunk}`.split('\n');
    rest = parts.pop()!;
    lines.push(...parts);
  });
  return {
    lines,
    async end() {
      const ended = once(child, 'exit');
      child.kill('SIGINT');
      await ended;
    },
  };
}

t.test('flows are followed live, and top shows who is busy', async (t) => {
  const stage = await setUpWorkers(t);
  writePolicy(stage, POLICY.replace('action: DENY', 'action: DENY, logging: true'));
  stage.start();
  await stage.ready(({ functions }) => functions === FUNCTIONS.length);
  const [all, workers, denied] = [
    follow(stage, 'flows', '--follow'),
    follow(stage, 'flows', '--follow', '--json', '--function', WORKER.name, '--verdict', 'permit'),
    follow(stage, 'flows', '--follow', '--json', '--port', String(PORT_DENIED), '--cidr', ROGUE.subnet),
  ];
  await until('the first follows', () => all.lines.length > 0);
  const attempts = (from: string, port: number) => [{ from, to: LEDGER.to, port, protocol: 'tcp' as const }];
  for (const port of [LEDGER.port, PORT_DENIED]) {
    stage.attempt('a', attempts(WORKER.address, port));
    stage.attempt('b', attempts(ROGUE.address, port));
  }
  await until('all three show it', () =>
    [() => all.lines.length > 4, () => workers.lines.length > 0, () => denied.lines.length > 0].every((is) =>
      is(),
    ),
  );
  const records = (lines: readonly string[]) => lines.map((line) => JSON.parse(line) as FlowRecord);
  for (const one of records(workers.lines)) {
    t.match(one, { verdict: 'PERMIT', src: { ip: WORKER.address }, rule: { name: 'workers-to-ledger' } });
  }
  for (const one of records(denied.lines)) {
    t.match(one, { verdict: 'DENY', src: { ip: ROGUE.address }, dst: { port: PORT_DENIED } });
  }
  t.match(all.lines[0], /^TIME {5}EVENT {2}VERDICT SOURCE/);
  t.ok(
    all.lines.some((line) =>
      /^\d\d:\d\d:\d\d open {3}PERMIT {2}worker {15}10\.20\.0\.5:5000 +TCP {3}workers-to-le…/.test(line),
    ),
    all.lines.join('\n'),
  );
  t.ok(
    all.lines.some((line) =>
      /^\d\d:\d\d:\d\d deny {3}DENY {4}rogue {16}10\.20\.0\.5:5001 +TCP {3}default$/.test(line),
    ),
  );
  await Promise.all([all, workers, denied].map((one) => one.end()));
  const { code, error } = await stage.sluice(
    'flows',
    '--port',
    'https',
    '--socket',
    stage.path('admin.sock'),
  );
  t.strictSame([code, error], [2, 'Cannot show flows: port "https" is not a number from 0 to 65535\n']);

  // A connection's bytes are known at its end.
  stage.gateway.run('conntrack', ['-D', '-s', WORKER.address]);
  const top = await until('top knows it', async () => {
    const answer = await stage.ask<TopAnswer>('top');
    return answer.functions.some(({ bytes }) => bytes.out > 0) && answer;
  });
  t.match(top.functions, [
    { label: { source: `arn:aws:lambda:us-east-1:111122223333:function:${WORKER.name}` } },
  ]);
  t.match(top.destinations, [{ label: { ip: LEDGER.to, port: LEDGER.port, protocol: 'TCP' } }]);
  t.ok(top.denies.some(({ label }) => label?.rule === 'default' && label.destination.port === PORT_DENIED));
  const { out } = await stage.sluice('top', '--count', '3', '--socket', stage.path('admin.sock'));
  t.match(out, /^FUNCTION +CONNECTIONS {4}BYTES OUT {5}BYTES IN\nworker +[0-9]+ +[0-9.k]+ +[0-9.k]+$/m);
  t.match(out, /^DENIED +DESTINATION +RULE +COUNT$/m);
  t.notMatch(out, '\u001b', 'nothing acts where there is no terminal');
  // `script` gives it a terminal.
  const live = stage.gateway.spawn('script', [
    ...['-qefc', `'${process.execPath}' '${SLUICE}' top --socket '${stage.path('admin.sock')}'`, '/dev/null'],
  ]);
  let shown = '';
  live.stdout!.on('data', (chunk: Buffer) => {
    shown += chunk;
  });
  await until('it refreshes', () => shown.split('\u001b[H\u001b[J').length > 2);
  const ended = once(live, 'exit');
  live.kill('SIGTERM');
  await ended;
  for (const line of [...all.lines, ...out.split('\n')]) t.ok(line.length <= COLUMNS_MAX, line);
});
