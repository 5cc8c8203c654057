#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { Command, Option } from 'commander';
import {
  answerExplain,
  answerGroups,
  type ExplainAnswer,
  type GroupAnswer,
  questionSchema,
  type Status,
} from 'sluice-gateway/admin/answers.js';
import { readConfig } from 'sluice-gateway/config/config.js';
import type { FlowRecord } from 'sluice-gateway/flows/record.js';
import { printProgram } from 'sluice-gateway/nft/print.js';
import { compilePolicy, programOf } from 'sluice-gateway/policy/compile.js';
import { policyInForce } from 'sluice-gateway/policy/in-force.js';
import type { Level } from 'sluice-gateway/preflight/finding.js';
import { preflight } from 'sluice-gateway/preflight/preflight.js';
import type { InventoryBody } from 'sluice-gateway/snapshot/format.js';
import { groupPrefixes } from 'sluice-gateway/snapshot/read.js';
import { ask } from './ask.js';
import { type FileOptions, readFiles, readInterfaces } from './files.js';
import { complain, EXIT, say, sayJson } from './output.js';
import { hasNetAdmin, runGateway } from './run.js';
import {
  showCheck,
  showExplain,
  showFlow,
  showGroups,
  showInventory,
  showKernel,
  showStatus,
} from './show.js';

const DEFAULT_SOCKET = '/run/sluice/admin.sock';
const FOLLOW_MS = 300;

interface Options extends FileOptions {
  readonly socket?: string;
  readonly json?: boolean;
}

const config = () => new Option('--config <file>', 'configuration of the gateway');
const policy = () => new Option('--policy <path>', 'a policy file or folder, without AWS');
const socket = () =>
  new Option('--socket <path>', 'admin socket of the gateway').default(undefined, DEFAULT_SOCKET);
const json = () => new Option('--json', 'one JSON document for machines');

const isFromFiles = ({ config, policy }: FileOptions) => config !== undefined || policy !== undefined;

function needsFiles(options: FileOptions): void {
  if (!isFromFiles(options))
    throw new Error('Cannot tell which policy is meant: give --config FILE or --policy PATH');
}

/** Numbers as people write ports: neither `0x1bb` nor `1e3` nor nothing. */
function parsePort(text: string): string {
  if (/^(?:0|[1-9][0-9]{0,4})$/.test(text) && Number(text) <= 65_535) return text;
  throw new Error(`Cannot explain: port ${JSON.stringify(text)} is not a number from 0 to 65535`);
}

function socketOf({ config, socket }: Options): string {
  return socket ?? (config === undefined ? DEFAULT_SOCKET : readConfig(config).admin.socket);
}

function show<T>(options: Options, value: T, text: (value: T) => void): void {
  if (options.json === true) sayJson(value);
  else text(value);
}

const program = new Command('sluice')
  .description('An egress firewall for serverless functions')
  .configureOutput({ writeErr: complain })
  .exitOverride((error) => {
    process.exit(error.exitCode === 0 ? EXIT.fine : EXIT.failed);
  });

program
  .command('run')
  .description('enforce policy on this machine until SIGTERM or SIGINT')
  .addOption(config().makeOptionMandatory())
  .action(({ config }: { config: string }) => runGateway(config));

program
  .command('check')
  .description('read configuration and policy, and say what is wrong or worth knowing')
  .option(
    '--kernel',
    'look at the kernel and at the tables of others instead, as sluice run does when it starts',
  )
  .addOption(config())
  .addOption(policy())
  .addOption(json())
  .action(async ({ kernel, ...options }: Options & { kernel?: boolean }) => {
    if (kernel === true) return checkKernel(options);
    needsFiles(options);
    const { wanted } = await readFiles(options);
    show(options, { warnings: wanted.warnings, ...counts(wanted) }, () => showCheck(wanted));
    if (wanted.warnings.length > 0) process.exitCode = EXIT.found;
  });

const EXIT_OF: Readonly<Record<Level, number>> = {
  ...{ ok: EXIT.fine, info: EXIT.fine, warning: EXIT.found, error: EXIT.failed },
};

async function checkKernel(options: Options): Promise<void> {
  if (!hasNetAdmin()) throw new Error('Cannot check kernel: it needs CAP_NET_ADMIN, run it as root');
  const findings = await preflight({ interfaces: readInterfaces(options.config) });
  show(options, { findings }, () => showKernel(findings));
  process.exitCode = Math.max(...findings.map(({ level }) => EXIT_OF[level]));
}

function counts({ content }: Awaited<ReturnType<typeof readFiles>>['wanted']) {
  return {
    rules: content.policy.rules.length,
    groups: content.groups.length,
    functions: content.inventory.functions.length,
  };
}

program
  .command('compile')
  .description('print the kernel program that policy makes, as an nft file')
  .addOption(config())
  .addOption(policy())
  .addOption(json())
  .action(async (options: Options) => {
    needsFiles(options);
    const { snapshot, interfaces } = await readFiles(options);
    const compiled = compilePolicy({
      policy: policyInForce(snapshot.policy, new Date()),
      groups: groupPrefixes(snapshot),
      excluded: [],
      epoch: '',
    });
    const text = printProgram(programOf(compiled, interfaces, 1));
    show(options, { program: text }, () => process.stdout.write(text));
  });

program
  .command('explain')
  .description('say whether a connection is permitted, and by which rule')
  .requiredOption('--src <address|function>', 'source address, or name or ARN of a function')
  .requiredOption('--dst <address>', 'destination address')
  .option('--protocol <name>', 'tcp, udp, icmp or a number', 'tcp')
  .option('--port <number>', 'destination port', parsePort)
  .addOption(config().argParser(String))
  .addOption(policy())
  .addOption(socket())
  .addOption(json())
  .action(
    async ({
      src,
      dst,
      protocol,
      port,
      ...options
    }: Options & Record<'src' | 'dst' | 'protocol' | 'port', string>) => {
      const query = { src, dst, protocol, ...(port !== undefined && { port }) };
      const parsed = questionSchema.safeParse(query);
      if (!parsed.success) {
        const { path, message } = parsed.error.issues[0]!;
        throw new Error(`Cannot explain: --${path.join('.')}: ${message}`);
      }
      const answer: ExplainAnswer = isFromFiles(options)
        ? answerExplain((await readFiles(options)).snapshot, [], parsed.data, new Date())
        : await ask(socketOf(options), '/explain', query);
      show(options, answer, showExplain);
      if (answer.verdict !== 'PERMIT') process.exitCode = EXIT.found;
    },
  );

program
  .command('status')
  .description('say what is in force, and whether it is what is wanted')
  .addOption(config())
  .addOption(socket())
  .addOption(json())
  .action(async (options: Options) => {
    const status = await ask<Status>(socketOf(options), '/status');
    show(options, status, showStatus);
    if (!status.ready) process.exitCode = EXIT.found;
  });

program
  .command('groups')
  .description('show groups and their prefixes')
  .argument('[name]', 'one group, in full')
  .addOption(config())
  .addOption(policy())
  .addOption(socket())
  .addOption(json())
  .action(async (name: string | undefined, options: Options) => {
    const groups = isFromFiles(options)
      ? answerGroups((await readFiles(options)).snapshot, name)
      : await ask<GroupAnswer[]>(socketOf(options), '/groups', name === undefined ? {} : { name });
    show(options, groups, (groups) => showGroups(groups, name !== undefined));
  });

program
  .command('inventory')
  .description('show the functions that AWS names, and how sure their addresses mean them')
  .addOption(config())
  .addOption(socket())
  .addOption(json())
  .action(async (options: Options) => {
    const inventory =
      options.config === undefined
        ? await ask<InventoryBody>(socketOf(options), '/inventory')
        : (await readFiles(options)).snapshot.inventory;
    show(options, inventory, showInventory);
  });

program
  .command('flows')
  .description('show the newest flow records')
  .option('--follow', 'go on until interrupted')
  .addOption(config())
  .addOption(socket())
  .addOption(json())
  .action(async ({ follow, ...options }: Options & { follow?: boolean }) => {
    let since = 0;
    do {
      const { records, next } = await ask<{ records: FlowRecord[]; next: number }>(
        socketOf(options),
        '/flows',
        {
          since: String(since),
        },
      );
      since = next;
      for (const record of records) show(options, record, showFlow);
      if (follow === true) await delay(FOLLOW_MS);
    } while (follow === true);
  });

program
  .command('version')
  .description('say which version this is')
  .addOption(json())
  .action((options: Options) => {
    const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
    show(options, { version, node: process.version }, () =>
      say(`sluice ${version}, node ${process.version}`),
    );
  });

try {
  await program.parseAsync();
} catch (error) {
  complain(error instanceof Error ? error.message : String(error));
  process.exitCode = EXIT.failed;
}
