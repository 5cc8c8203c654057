import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline/promises';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { type ChangeAnswer, CONFIRM_SECONDS_MAX } from 'sluice-gateway/changes/held.js';
import { type Config, readConfig } from 'sluice-gateway/config/config.js';
import { tell } from '../ask.js';
import { installCandidate, putCandidate } from '../candidate.js';
import { readFiles } from '../files.js';
import { config, json, type Options, socket, socketOf } from '../options.js';
import { EXIT, say, show } from '../output.js';

const UNIT_SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600 };

function parseDuration(text: string): number {
  const [, count, unit] = /^([1-9][0-9]{0,5})([smh])$/.exec(text) ?? [];
  const seconds = Number(count) * (UNIT_SECONDS[unit ?? ''] ?? Number.NaN);
  if (!(seconds <= CONFIRM_SECONDS_MAX))
    throw new InvalidArgumentError('Give a time of at most 24h, as 30s, 10m or 1h.');
  return seconds;
}

interface ApplyOptions extends Options {
  readonly config: string;
  readonly policy: string;
  readonly confirm?: number;
  readonly canary?: string;
}

/** What `apply`, `confirm` and `revert` say. */
interface Outcome extends ChangeAnswer {
  readonly state: 'applied' | 'trial' | 'reverted';
  readonly why?: string;
}

const STATES: Readonly<Record<Outcome['state'], string>> = {
  applied: 'is in force for good, and policy.path names it',
  trial: 'is in force on trial',
  reverted: 'is in force again',
};

export function showChange({ revision, generation, changed }: ChangeAnswer, what: string): void {
  say(`Revision ${revision} ${what} (generation ${generation})`);
  say(`  changed: ${changed}`);
}

function showOutcome(outcome: Outcome): void {
  showChange(outcome, STATES[outcome.state]);
  if (outcome.until !== undefined) say(`  until ${outcome.until}: keep it with sluice confirm`);
  if (outcome.why !== undefined) say(`  reverted: ${outcome.why}`);
}

/**
 * Whether a command of the operator's succeeds; undefined: it had not ended in time. What it writes goes to standard
 * error.
 */
async function succeeds(command: string, until: string): Promise<boolean | undefined> {
  const leftMs = Math.max(1, Date.parse(until) - Date.now());
  const child = spawn('sh', ['-c', command], { stdio: ['ignore', 2, 2], timeout: leftMs });
  const [code] = await once(child, 'close');
  return child.killed ? undefined : code === 0;
}

/** Undefined: nobody answered in time. */
async function keeps(until: string): Promise<boolean | undefined> {
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  const signal = AbortSignal.timeout(Math.max(1, Date.parse(until) - Date.now()));
  try {
    const answer = await lines.question(`Keep it? It is taken back at ${until}. [y/N] `, { signal });
    return /^y(?:es)?$/i.test(answer.trim());
  } catch {
    return undefined;
  } finally {
    lines.close();
  }
}

async function confirm(options: Options, config: Config): Promise<Outcome> {
  const answer = await tell<ChangeAnswer>(socketOf(options), '/confirm');
  install(config);
  return { state: 'applied', ...answer };
}

function install(config: Config): void {
  try {
    installCandidate(config);
  } catch (cause) {
    const why = (cause as Error).message;
    throw new Error(
      `Cannot replace ${config.policy.path}: ${why}; save the policy there yourself, the gateway enforces what was applied until then`,
      { cause },
    );
  }
}

async function revert(options: Options, why: string): Promise<Outcome> {
  return { state: 'reverted', why, ...(await tell<ChangeAnswer>(socketOf(options), '/revert', { why })) };
}

async function apply(options: ApplyOptions): Promise<Outcome> {
  const read = readConfig(options.config);
  const files = await readFiles(options);
  const manifest = await putCandidate(read, options.policy, files).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === undefined) throw cause;
    const advice = cause.code === 'EACCES' ? ', run it as root' : '';
    throw new Error(`Cannot apply: ${cause.message}${advice}`, { cause });
  });
  const confirmSeconds = options.confirm && String(options.confirm);
  const query = { manifest, ...(confirmSeconds && { confirmSeconds }) };
  const answer = await tell<ChangeAnswer>(socketOf(options), '/apply', query);
  const { until } = answer;
  if (until === undefined) {
    install(read);
    return { state: 'applied', ...answer };
  }
  const isTime = new Error('Cannot confirm: the time is up, what was in force before is again');
  if (options.canary !== undefined) {
    const isFine = await succeeds(options.canary, until);
    if (isFine === undefined) throw isTime;
    if (!isFine) return revert(options, 'the canary failed');
  }
  if (options.json === true || !process.stdin.isTTY) return { state: 'trial', ...answer };
  showOutcome({ state: 'trial', ...answer });
  const kept = await keeps(until);
  if (kept === true) return confirm(options, read);
  if (kept === false) return revert(options, 'not confirmed');
  throw isTime;
}

/** Adds `sluice apply`, `confirm` and `revert`. */
export function addApply(program: Command): void {
  program
    .command('apply')
    .description('put a policy in the place of the one in force, on trial first if so wanted')
    .addOption(config().makeOptionMandatory())
    .addOption(new Option('--policy <path>', 'the policy file or folder to apply').makeOptionMandatory())
    .option('--confirm <time>', 'take it back after 30s, 10m, 1h, unless it is confirmed', parseDuration)
    .option('--canary <command>', 'with --confirm: take it back where this command fails')
    .addOption(socket())
    .addOption(json())
    .action(async (options: ApplyOptions) => {
      if (options.canary !== undefined && options.confirm === undefined)
        throw new Error('Cannot apply: --canary needs --confirm, such as --confirm 60s');
      const outcome = await apply(options);
      show(options, outcome, showOutcome);
      if (outcome.state === 'reverted') process.exitCode = EXIT.found;
    });
  program
    .command('confirm')
    .description('keep the policy that is on trial')
    .addOption(config().makeOptionMandatory())
    .addOption(socket())
    .addOption(json())
    .action(async (options: Options & { config: string }) =>
      show(options, await confirm(options, readConfig(options.config)), showOutcome),
    );
  program
    .command('revert')
    .description('take the policy that is on trial back')
    .addOption(config())
    .addOption(socket())
    .addOption(json())
    .action(async (options: Options) => show(options, await revert(options, 'asked'), showOutcome));
}
