import { execFileSync } from 'node:child_process';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { FlowRecord } from 'sluice-gateway/flows/record.js';
import type { Attempt } from '../support/attempt.js';
import { Stage } from '../support/stage.js';
import { until } from '../support/wait.js';
import {
  awsState,
  CONFIG,
  type ExampleFunction,
  type ExampleServer,
  FUNCTIONS,
  PERMITTED,
  SERVERS,
} from './scenario.js';

/** `npm run quickstart`: the whole product on this machine, in network namespaces that it makes and removes. */
const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const EXAMPLE = here('../../../deploy/examples/security-video/policy');
const STREAM_MS = 1_000;

const failures: string[] = [];

function say(text = ''): void {
  process.stdout.write(`${text}\n`);
}

function check(what: string, holds: boolean): void {
  if (!holds) failures.push(what);
  say(`  ${holds ? 'ok  ' : 'FAIL'} ${what}`);
}

/** Runs a command of the product, and gives what it prints. */
async function sluice(stage: Stage, command: string, ...args: string[]): Promise<string> {
  const { code, out, error } = await stage.sluice(command, ...args, '--socket', stage.path('admin.sock'));
  if (code > 1) throw new Error(`Cannot run sluice ${command}: ${error}`);
  return out;
}

interface Tried {
  readonly one: ExampleFunction;
  readonly server: ExampleServer;
  readonly passed: boolean;
}

/** Every function tries every server, all at once. */
function tryAll(stage: Stage): Tried[] {
  return (['a', 'b'] as const).flatMap((zone) => {
    const tries = FUNCTIONS.filter((one) => one.zone === zone).flatMap((one) =>
      SERVERS.map((server) => ({ one, server })),
    );
    const attempts: Attempt[] = tries.map(({ one, server: { to, port, protocol } }) => ({
      from: one.address,
      to,
      port,
      protocol,
    }));
    const answers = stage.attempt(zone, attempts);
    return tries.map((tried, index) => ({ ...tried, passed: answers[index]! }));
  });
}

function isAbout(record: FlowRecord, one: ExampleFunction, server: ExampleServer): boolean {
  return record.src?.ip === one.address && record.dst?.ip === server.to && record.dst.port === server.port;
}

/** What passed and what was blocked, by which rule: as seen by packets, by `explain` and by the flow log. */
async function showMatrix(stage: Stage): Promise<void> {
  const tried = tryAll(stage);
  await until('a flow record for every attempt', () => {
    const records = stage.flows();
    return tried.every(({ one, server }) => records.some((record) => isAbout(record, one, server)));
  });
  const records = stage.flows();
  say('FUNCTION         SERVER            SEEN     RULE');
  for (const { one, server, passed } of tried) {
    const wanted = PERMITTED.find(([name, label]) => name === one.name && label === server.label);
    const rule = wanted?.[2] ?? 'default';
    const record = records.find((candidate) => isAbout(candidate, one, server));
    say(
      `${one.name.padEnd(16)} ${server.label.padEnd(17)} ${(passed ? 'passed' : 'blocked').padEnd(8)} ${record?.rule?.name ?? '?'}`,
    );
    const told = record?.verdict === (passed ? 'PERMIT' : 'DENY') && record.rule?.name === rule;
    const named = record?.src?.functions.some((arn) => arn.endsWith(`:function:${one.name}`));
    if (passed !== (wanted !== undefined))
      failures.push(`${one.name} to ${server.label} should have been ${wanted ? 'passed' : 'blocked'}`);
    if (!told || !named)
      failures.push(`the flow record of ${one.name} to ${server.label} should name it and rule ${rule}`);
  }
  const passed = tried.filter((attempt) => attempt.passed).length;
  check(
    `${tried.length} attempts, ${passed} passed, ${tried.length - passed} blocked, all as policy says`,
    failures.length === 0,
  );
}

const functionNamed = (name: string) => FUNCTIONS.find((one) => one.name === name)!;
const serverNamed = (label: string) => SERVERS.find((server) => server.label === label)!;

/** Policy changes while two connections are alive: one of them is no longer permitted. */
async function cutLive(stage: Stage): Promise<void> {
  const open = (name: string, label: string) => {
    const { zone, address } = functionNamed(name);
    const { to, port } = serverNamed(label);
    return stage.openStream(zone, address, to, port).answersMs;
  };
  const cut = open('footage-fetch', 'object storage');
  const kept = open('frame-analyze', 'object storage');
  await until('both connections are alive', () => cut.length > 5 && kept.length > 5);
  const policy = stage.path('policy/policy.yaml');
  const text = readFileSync(policy, 'utf8');
  const changedMs = Date.now();
  writeFileSync(policy, text.replace(/(name: store-footage\s+priority: 30\s+action: )PERMIT/, '$1DENY'));
  await until('the revocation is told', () => stage.flows().some((record) => record.event === 'revoke'));
  await delay(STREAM_MS);
  say(
    `  store-footage is DENY now: the stream stopped ${cut.at(-1)! - changedMs} ms after the file was saved`,
  );
  check('the connection that is no longer permitted stopped', Date.now() - cut.at(-1)! > STREAM_MS / 2);
  check('the connection beside it goes on', Date.now() - kept.at(-1)! < STREAM_MS / 2);
  const revoked = stage.flows().find((record) => record.event === 'revoke');
  check('a revoke record names the rule', revoked?.rule?.name === 'store-footage');
}

const MAIN_METRICS =
  /^sluice_(?:decisions_total|dropped_packets_total|snapshot_revision|flow_records_total|conntrack_entries)\b.* (?!0$)\S+$/gm;

async function showMetrics(stage: Stage): Promise<void> {
  const text = stage.metrics();
  for (const [line] of text.matchAll(MAIN_METRICS)) say(line);
  check(
    'the metrics count decisions by rule',
    /^sluice_decisions_total\{rule="query-cameras",action="PERMIT",enforced="true"\} [1-9]/m.test(text),
  );
}

async function run(stage: Stage): Promise<void> {
  stage.addAddresses(FUNCTIONS);
  await stage.startServers(SERVERS);
  cpSync(EXAMPLE, stage.path('policy'), { recursive: true });
  writeFileSync(stage.path('sluice.yaml'), CONFIG);
  await stage.startAws(awsState());
  const startedMs = Date.now();
  const product = stage.start();
  await stage.ready(({ functions }) => functions > 0);
  say(`$ sluice run --config sluice.yaml        (in force ${Date.now() - startedMs} ms after its start)`);
  for (const command of ['status', 'inventory', 'groups']) {
    say(`\n$ sluice ${command}`);
    say((await sluice(stage, command)).trimEnd());
  }
  say('\nEvery function tries every server:');
  await showMatrix(stage);
  say('\n$ sluice explain --src rogue --dst 203.0.113.10 --port 443');
  say((await sluice(stage, 'explain', '--src', 'rogue', '--dst', '203.0.113.10', '--port', '443')).trimEnd());
  say('\nPolicy changes while connections are alive:');
  await cutLive(stage);
  say('\n$ sluice flows        (the newest)');
  say((await sluice(stage, 'flows')).trimEnd().split('\n').slice(-8).join('\n'));
  say('\n$ grep revoked flows.jsonl');
  const revoked = () => stage.flows().find(({ endReason }) => endReason === 'revoked');
  say(JSON.stringify(await until('the end of the connection is told', revoked)));
  say('\n$ curl http://127.0.0.1:9464/metrics        (the main ones)');
  await showMetrics(stage);
  say('\nThe table is flushed by hand:');
  await product.stop();
  stage.gateway.run(process.execPath, [here('flush.js')]);
  check(
    'without the table nothing passes',
    tryAll(stage).every(({ passed }) => !passed),
  );
}

if (process.getuid?.() !== 0) {
  process.stderr.write('Cannot run quickstart: it makes network namespaces, run it as root\n');
  process.exit(2);
}
execFileSync('ip', ['-V'], { stdio: 'ignore' });
const stage = new Stage();
let isEnding = false;
async function end(code: number): Promise<void> {
  if (isEnding) return;
  isEnding = true;
  await stage.remove();
  process.exit(code);
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => void end(130));
try {
  await run(stage);
} catch (error) {
  if (!isEnding) {
    failures.push((error as Error).message);
    say(`FAIL ${(error as Error).message}\n${stage.product?.log ?? ''}`);
  }
}
if (!isEnding) {
  say(
    failures.length === 0
      ? '\nAll is as policy says.'
      : `\n${failures.length} failed:\n${failures.join('\n')}`,
  );
  await end(failures.length === 0 ? 0 : 1);
}
