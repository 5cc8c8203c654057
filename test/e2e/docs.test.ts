import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { HistoryEntry } from 'sluice-gateway/snapshot/history.js';
import t, { type Test } from 'tap';
import type { Machine } from '../support/machine.js';
import { bootMachine, needMachine, putPackage } from '../support/package.js';
import { patience } from '../support/patience.js';
import { type Said, Stage } from '../support/stage.js';
import { until } from '../support/wait.js';
import { awsState } from '../support/workers.js';

needMachine(t);

t.setTimeout(600_000 * patience);

/** The documents are true: what they tell to write is written, what they tell to run is run, what they show is said. */
const root = fileURLToPath(new URL('../../..', import.meta.url));
const DOCS = join(root, 'deploy/docs');
/** In the order in which somebody goes through them. What no page of these shows is to be read, not done. */
const STORY = [
  ...['install', 'first-policy', 'read-the-logs', 'default-deny-in-a-week', 'changes', 'terraform', 'alerts'],
  ...['upgrade', 'security-model', 'disaster', 'aws'],
];
const READ = ['configuration', 'metrics', 'runbooks'];
/** Commands of AWS': there is no account to carry them out in. */
const IS_AWS = /^aws /;
/** What pages name in passing and no block runs. */
const ONLY_NAMED = new Set([
  'sluice run', // the services run it
  'npm run package', // not on a gateway
  'terraform show -json', // not ours
  'nft flush ruleset', // what others do
  'nft monitor', // has no end
]);
/** Stands for what only who reads can know. */
const PLACEHOLDER = /^(?:NAME|FILE|REVISION)$/;
const VERSION = '0.1.0';

const CHECKOUT = { address: '10.0.1.10', zone: 'a' } as const;
const REPORT = { address: '10.0.1.40', zone: 'a' } as const;
const LEDGER = { to: '10.20.0.5', port: 5432 } as const;
const WEB = { to: '203.0.113.10', port: 443 } as const;

interface Scene {
  readonly machine: Machine;
  /** Has functions call, whether they may or not. */
  readonly call: () => void;
}

interface Block {
  readonly language: string;
  /** What follows the language. */
  readonly says: string;
  readonly text: string;
}

const readPage = (name: string) => readFileSync(join(DOCS, `${name}.md`), 'utf8');
const blocksOf = (page: string): Block[] =>
  [...page.matchAll(/^```(\w+) ?(.*)\n([\s\S]*?)^```$/gm)].map(([, language, says, text]) => ({
    language: language!,
    says: says!,
    text: text!,
  }));

function revisionBefore(machine: Machine): string {
  const entries = JSON.parse(machine.run('sluice', 'history', '--json')) as readonly HistoryEntry[];
  return String(entries.at(-2)!.revision);
}

/** Runs a block until it ends as it is to, while functions call: what was saved takes effect within seconds. */
async function execute({ machine, call }: Scene, { says, text }: Block): Promise<Said> {
  const code = says === 'exits 1' ? 1 : 0;
  let said: Said | undefined;
  try {
    return await until('', () => {
      if (said !== undefined) call();
      said = machine.try(
        'bash',
        '-ec',
        `cd /root\n${text.replaceAll('REVISION', () => revisionBefore(machine))}`,
      );
      return said.code === code && said;
    });
  } catch {
    throw new Error(
      `Cannot go on, exit code ${said?.code}, not ${code}, of:\n${text}\n${said?.out}${said?.error}`,
    );
  }
}

function save(machine: Machine, { text }: Block): void {
  const [, path] = /^# (\/\S+)\n/.exec(text) ?? [];
  if (path === undefined) return;
  mkdirSync(dirname(machine.path(path)), { recursive: true });
  machine.write(path, text);
}

/** Has the AWS command line take a command with all its arguments, but for sending it. Throws where it does not. */
function checkAws(command: string): void {
  execFileSync('/bin/sh', ['-c', `${command.trimEnd()} --region us-east-1 --generate-cli-skeleton output`], {
    env: { PATH: '/usr/bin:/bin', AWS_EC2_METADATA_DISABLED: 'true' },
    stdio: 'pipe',
  });
}

async function follow(t: Test, scene: Scene, name: string): Promise<void> {
  let said = '';
  for (const block of blocksOf(readPage(name))) {
    if (block.language === 'text') {
      for (const line of block.text.trimEnd().split('\n')) t.ok(said.includes(line), `it says: ${line}`);
    } else if (block.language !== 'sh') save(scene.machine, block);
    else {
      if (IS_AWS.test(block.text)) checkAws(block.text);
      else said = (await execute(scene, block)).out;
      t.pass(block.text.split('\n')[0]!);
    }
  }
}

t.test('every page is in the story or only to be read, and links to what is there', async (t) => {
  const pages = readdirSync(DOCS).map((file) => file.replace('.md', ''));
  t.same([...STORY, ...READ].sort(), pages.sort());
  for (const name of pages) {
    for (const [, path] of readPage(name).matchAll(/\]\(([^):#]+)\)/g))
      t.ok(existsSync(join(DOCS, path!)), `${name}.md links to ${path}`);
  }
});

t.test('every command that a page names in passing is run in some block', async (t) => {
  const blocks = STORY.flatMap((name) => blocksOf(readPage(name)));
  const lines = blocks
    .filter(({ language, text }) => language === 'sh' && !IS_AWS.test(text))
    .flatMap(({ text }) => text.replaceAll('\\\n', ' ').split('\n'))
    .map((line) => line.split(/\s+/));
  const named = [...STORY, ...READ].flatMap((name) =>
    [...readPage(name).matchAll(/`((?:sluice|nft|ip|systemctl|apt|npm|terraform) [^`\n]+)`/g)].map(
      ([, command]) => command!,
    ),
  );
  t.ok(named.length > 20);
  for (const command of new Set(named)) {
    const words = command.split(' ').filter((word) => !PLACEHOLDER.test(word));
    const isRun = lines.some((line) => words.every((word) => line.includes(word)));
    t.equal(isRun, !ONLY_NAMED.has(command), command);
  }
});

t.test('what the documents tell to do works, from installing to taking it out', async (t) => {
  const stage = new Stage();
  t.teardown(() => stage.remove());
  stage.addAddresses([CHECKOUT, REPORT]);
  await stage.startServers([
    { ...LEDGER, protocol: 'tcp', at: 'dataCentre' },
    { ...WEB, protocol: 'tcp', at: 'internet' },
  ]);
  await stage.startAws(
    awsState([
      { name: 'checkout', subnet: '10.0.1.0/28', tags: { team: 'pay' } },
      { name: 'report', subnet: '10.0.1.32/28' },
    ]),
  );
  const machine = await bootMachine(t, stage);
  putPackage(machine, stage, VERSION, `/root/sluice_${VERSION}_amd64.deb`);
  const call = () => {
    stage.attempt('a', [
      { from: CHECKOUT.address, ...LEDGER, protocol: 'tcp' },
      { from: REPORT.address, ...LEDGER, protocol: 'tcp' },
      { from: REPORT.address, ...WEB, protocol: 'tcp' },
    ]);
  };
  for (const name of STORY) {
    await t.test(name, (t) => follow(t, { machine, call }, name));
  }
});
