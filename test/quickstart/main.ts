import { execFileSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Status } from 'sluice-gateway/admin/answers.js';
import type { FlowRecord } from 'sluice-gateway/flows/record.js';
import { createLab, type Lab } from '../support/lab.js';
import { Namespace } from '../support/namespace.js';
import { Product, SLUICE } from '../support/product.js';
import { until } from '../support/wait.js';
import type { Attempt } from './attempt.js';
import { awsState, CONFIG, type ExampleFunction, type ExampleServer, FUNCTIONS, PERMITTED, SERVERS } from './scenario.js';

/** `npm run quickstart`: the whole product on this machine, in network namespaces that it makes and removes. */
const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const EXAMPLE = here('../../../deploy/examples/security-video/policy');
const AWS_ENDPOINT = here('../support/aws/main.js');
const STREAM_MS = 1_000;

const failures: string[] = [];

function say(text = ''): void {
  process.stdout.write(`${text}\n`);
}

function check(what: string, holds: boolean): void {
  if (!holds) failures.push(what);
  say(`  ${holds ? 'ok  ' : 'FAIL'} ${what}`);
}

/** Everything that must be gone at the end, however it comes. */
class Stage {
  readonly folder = mkdtempSync(join(tmpdir(), 'sluice-quickstart-'));
  readonly gateway = new Namespace('gw');
  readonly lab: Lab;
  product: Product | undefined;

  constructor() {
    chmodSync(this.folder, 0o755);
    this.lab = createLab(this.gateway);
  }

  /** Runs a command of the product in the gateway's namespace, as an operator would, and gives what it prints. */
  sluice(...args: string[]): string {
    try {
      return this.gateway.run(process.execPath, [SLUICE, ...args]);
    } catch (error) {
      // Exit code 1: it found something, and says it on standard output.
      const { status, stdout, stderr } = error as { status: number; stdout: Buffer; stderr: Buffer };
      if (status === 1) return stdout.toString();
      throw new Error(`Cannot run sluice ${args.join(' ')}: ${stderr}`);
    }
  }

  async remove(): Promise<void> {
    await this.product?.stop();
    this.lab.remove();
    this.gateway.remove();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

async function startServers(stage: Stage): Promise<void> {
  for (const at of ['dataCentre', 'internet'] as const) {
    const servers = SERVERS.filter((server) => server.at === at);
    const args = servers.map(({ protocol, to, port }) => `${protocol}|${to}|${port}`);
    const child = stage.lab[at].namespace.spawn(process.execPath, [here('serve.js'), ...args]);
    await new Promise((resolve) => child.stdout!.once('data', resolve));
  }
}

async function startAws(stage: Stage): Promise<string> {
  const state = join(stage.folder, 'aws.json');
  writeFileSync(state, JSON.stringify(awsState()));
  const child = stage.gateway.spawn(process.execPath, [AWS_ENDPOINT, '--listen', '127.0.0.1:4566', '--state', state]);
  const [line] = await new Promise<Buffer[]>((resolve) => child.stdout!.once('data', (chunk: Buffer) => resolve([chunk])));
  return (JSON.parse(line!.toString()) as { url: string }).url;
}

/** Adds the functions' addresses to the two hosts that stand for the two availability zones. */
function addFunctions({ lab }: Stage): void {
  for (const { zone, address } of FUNCTIONS) {
    const { namespace, address4 } = lab[zone];
    if (address !== address4) namespace.ip('addr', 'add', `${address}/24`, 'dev', 'eth0');
  }
}

interface Tried {
  readonly one: ExampleFunction;
  readonly server: ExampleServer;
  readonly passed: boolean;
}

/** Every function tries every server, all at once. */
function tryAll({ lab }: Stage): Tried[] {
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
    const output = lab[zone].namespace.run(process.execPath, [here('attempt.js'), JSON.stringify(attempts)]);
    const answers = JSON.parse(output) as boolean[];
    return tries.map((tried, index) => ({ ...tried, passed: answers[index]! }));
  });
}

function readFlows(stage: Stage): FlowRecord[] {
  const path = join(stage.folder, 'flows.jsonl');
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, 'utf8').split('\n');
  return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as FlowRecord);
}

function isAbout(record: FlowRecord, one: ExampleFunction, server: ExampleServer): boolean {
  return record.src?.ip === one.address && record.dst?.ip === server.to && record.dst.port === server.port;
}

/** What passed and what was blocked, by which rule: as seen by packets, by `explain` and by the flow log. */
async function showMatrix(stage: Stage): Promise<void> {
  const tried = tryAll(stage);
  await until('a flow record for every attempt', () => {
    const records = readFlows(stage);
    return tried.every(({ one, server }) => records.some((record) => isAbout(record, one, server)));
  });
  const records = readFlows(stage);
  say('FUNCTION         SERVER            SEEN     RULE');
  for (const { one, server, passed } of tried) {
    const wanted = PERMITTED.find(([name, label]) => name === one.name && label === server.label);
    const rule = wanted?.[2] ?? 'default';
    const record = records.find((candidate) => isAbout(candidate, one, server));
    say(`${one.name.padEnd(16)} ${server.label.padEnd(17)} ${(passed ? 'passed' : 'blocked').padEnd(8)} ${record?.rule?.name ?? '?'}`);
    const told = record?.verdict === (passed ? 'PERMIT' : 'DENY') && record.rule?.name === rule;
    const named = record?.src?.functions.some((arn) => arn.endsWith(`:function:${one.name}`));
    if (passed !== (wanted !== undefined)) failures.push(`${one.name} to ${server.label} should have been ${wanted ? 'passed' : 'blocked'}`);
    if (!told || !named) failures.push(`the flow record of ${one.name} to ${server.label} should name it and rule ${rule}`);
  }
  const passed = tried.filter((attempt) => attempt.passed).length;
  check(`${tried.length} attempts, ${passed} passed, ${tried.length - passed} blocked, all as policy says`, failures.length === 0);
}

/** A live connection, and the times at which its answers came. */
function openStream(stage: Stage, one: ExampleFunction, server: ExampleServer) {
  const child = stage.lab[one.zone].namespace.spawn(process.execPath, [here('stream.js'), one.address, server.to, String(server.port)]);
  const answersMs: number[] = [];
  child.stdout!.on('data', (chunk: Buffer) => {
    for (const line of chunk.toString().trim().split('\n')) answersMs.push(Number(line));
  });
  return answersMs;
}

const functionNamed = (name: string) => FUNCTIONS.find((one) => one.name === name)!;
const serverNamed = (label: string) => SERVERS.find((server) => server.label === label)!;

/** Policy changes while two connections are alive: one of them is no longer permitted. */
async function cutLive(stage: Stage): Promise<void> {
  const cut = openStream(stage, functionNamed('footage-fetch'), serverNamed('object storage'));
  const kept = openStream(stage, functionNamed('frame-analyze'), serverNamed('object storage'));
  await until('both connections are alive', () => cut.length > 5 && kept.length > 5);
  const policy = join(stage.folder, 'policy', 'policy.yaml');
  const text = readFileSync(policy, 'utf8');
  const changedMs = Date.now();
  writeFileSync(policy, text.replace(/(name: store-footage\s+priority: 30\s+action: )PERMIT/, '$1DENY'));
  await until('the revocation is told', () => readFlows(stage).some((record) => record.event === 'revoke'));
  await delay(STREAM_MS);
  say(`  store-footage is DENY now: the stream stopped ${cut.at(-1)! - changedMs} ms after the file was saved`);
  check('the connection that is no longer permitted stopped', Date.now() - cut.at(-1)! > STREAM_MS / 2);
  check('the connection beside it goes on', Date.now() - kept.at(-1)! < STREAM_MS / 2);
  const revoked = readFlows(stage).find((record) => record.event === 'revoke');
  check('a revoke record names the rule', revoked?.rule?.name === 'store-footage');
}

const MAIN_METRICS = /^sluice_(?:decisions_total|dropped_packets_total|snapshot_revision|flow_records_total|conntrack_entries)\b.* (?!0$)\S+$/gm;

async function showMetrics(stage: Stage): Promise<void> {
  const script = "console.log(await (await fetch('http://127.0.0.1:9464/metrics')).text())";
  const text = stage.gateway.run(process.execPath, ['--input-type=module', '-e', script]);
  for (const [line] of text.matchAll(MAIN_METRICS)) say(line);
  check('the metrics count decisions by rule', /^sluice_decisions_total\{rule="query-cameras",action="PERMIT",enforced="true"\} [1-9]/m.test(text));
}

async function run(stage: Stage): Promise<void> {
  addFunctions(stage);
  await startServers(stage);
  cpSync(EXAMPLE, join(stage.folder, 'policy'), { recursive: true });
  const config = join(stage.folder, 'sluice.yaml');
  writeFileSync(config, CONFIG);
  mkdirSync(join(stage.folder, 'snapshot'));
  const url = await startAws(stage);
  const startedMs = Date.now();
  stage.product = Product.start(stage.gateway, stage.folder, config, {
    PATH: process.env.PATH,
    AWS_ENDPOINT_URL: url,
    AWS_ACCESS_KEY_ID: 'AKIAEXAMPLE',
    AWS_SECRET_ACCESS_KEY: 'example',
    AWS_EC2_METADATA_DISABLED: 'true',
  });
  const { product } = stage;
  const socket = join(stage.folder, 'admin.sock');
  await until('the policy is in force', () => {
    if (product.hasEnded) throw new Error(`Cannot go on: sluice run ended\n${product.log}`);
    if (!existsSync(socket)) return false;
    const { ready, functions } = JSON.parse(stage.sluice('status', '--json', '--socket', socket)) as Status;
    return ready && functions > 0;
  });
  say(`$ sluice run --config sluice.yaml        (in force ${Date.now() - startedMs} ms after its start)`);
  for (const command of ['status', 'inventory', 'groups']) {
    say(`\n$ sluice ${command}`);
    say(stage.sluice(command, '--socket', socket).trimEnd());
  }
  say('\nEvery function tries every server:');
  await showMatrix(stage);
  say('\n$ sluice explain --src rogue --dst 203.0.113.10 --port 443');
  say(stage.sluice('explain', '--src', 'rogue', '--dst', '203.0.113.10', '--port', '443', '--socket', socket).trimEnd());
  say('\nPolicy changes while connections are alive:');
  await cutLive(stage);
  say('\n$ sluice flows        (the newest)');
  say(stage.sluice('flows', '--socket', socket).trimEnd().split('\n').slice(-8).join('\n'));
  say('\n$ grep revoked flows.jsonl');
  say(JSON.stringify(await until('the end of the connection is told', () => readFlows(stage).find(({ endReason }) => endReason === 'revoked'))));
  say('\n$ curl http://127.0.0.1:9464/metrics        (the main ones)');
  await showMetrics(stage);
  say('\nThe table is flushed by hand:');
  await product.stop();
  stage.gateway.run(process.execPath, [here('flush.js')]);
  check('without the table nothing passes', tryAll(stage).every(({ passed }) => !passed));
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
  say(failures.length === 0 ? '\nAll is as policy says.' : `\n${failures.length} failed:\n${failures.join('\n')}`);
  await end(failures.length === 0 ? 0 : 1);
}
