import { lookup } from 'node:dns/promises';
import type { Command } from 'commander';
import { answerOf, explainQuestion, questionSchema } from 'sluice-gateway/admin/explain.js';
import { addMemberships, type OriginsOf } from 'sluice-gateway/analysis/explain.js';
import type {
  ExplainAnswer,
  ExplainedRule,
  ExplainedSide,
  Explanation,
  KernelSays,
  PassedRule,
  Snat,
} from 'sluice-gateway/analysis/output.js';
import { PASSED_REASONS } from 'sluice-gateway/analysis/output.js';
import { snatOf } from 'sluice-gateway/analysis/snat.js';
import { matcherOf } from 'sluice-gateway/matcher/of-snapshot.js';
import { readAddress } from 'sluice-gateway/net/address.js';
import { prefixContains, printPrefix } from 'sluice-gateway/net/prefix.js';
import { ask } from '../ask.js';
import { type FileOptions, readFiles } from '../files.js';
import { config, isFromFiles, json, type Options, policy, socket, socketOf } from '../options.js';
import { EXIT, plural, sayWrapped, show } from '../output.js';

/** Rules that were passed over which the human form shows without --all. */
const PASSED_SHOWN_MAX = 20;
const MEMBERSHIPS_SHOWN_MAX = 4;

/** Numbers as people write ports: neither `0x1bb` nor `1e3` nor nothing. */
function parsePort(text: string): string {
  if (/^(?:0|[1-9][0-9]{0,4})$/.test(text) && Number(text) <= 65_535) return text;
  throw new Error(`Cannot explain: port ${JSON.stringify(text)} is not a number from 0 to 65535`);
}

function ruleText({ name, priority, action }: ExplainedRule): string {
  return priority === undefined
    ? `default action ${action}`
    : `rule "${name}" (priority ${priority}, ${action})`;
}

function showSide(word: string, { ip, groups, memberships = [] }: ExplainedSide, all: boolean): void {
  const named = groups.length === 0 ? 'no group' : groups.join(', ');
  sayWrapped(`  ${word.padEnd(4)} `, `${ip}, in ${named}`);
  const shown = all ? memberships : memberships.slice(0, MEMBERSHIPS_SHOWN_MAX);
  for (const { group, prefix, via, by, through, since } of shown) {
    const seen = since === undefined ? '' : `, since ${since}`;
    const how = [by, through && `in ${through}`].filter(Boolean).map((text) => ` (${text})`);
    sayWrapped(
      '       ',
      `${group}: ${prefix} by ${via.replace(/^arn:.*:function:/, 'function ')}${how.join('')}${seen}`,
    );
  }
  const hidden = memberships.length - shown.length;
  if (hidden > 0) sayWrapped('       ', `and by ${hidden} more, --all shows them`);
}

function snatText({ to, interfaces, egress, ip }: Snat): string {
  const configured = `source NAT to ${to} on ${interfaces.join(', ')}`;
  if (egress === undefined) return configured;
  return `leaves by ${egress} as ${ip ?? 'an address of it'} (${configured})`;
}

function kernelText({ state, verdict, rule, why }: KernelSays): string {
  if (state !== 'different' || verdict === undefined) return [state, why].filter(Boolean).join(', ');
  return `${state}, it says ${verdict}${rule === undefined ? '' : ` by "${rule}"`}: ${why}`;
}

const WHY_TEXT: Readonly<Record<PassedRule['why'], string>> = {
  source: 'its sources do not hold the address',
  destination: 'its destinations do not hold the address',
  protocol: 'it is for another protocol',
  port: 'it is for other ports',
  disabled: 'it matches, but is disabled',
  expired: 'it matches, but has expired',
  monitor: 'it matches, but only monitors',
};

/** The rules that came nearest to matching, in the order of evaluation. */
function nearest(passed: readonly PassedRule[], countMax: number): readonly PassedRule[] {
  if (passed.length <= countMax) return passed;
  const near = new Set(
    passed
      .toSorted((a, b) => PASSED_REASONS.indexOf(b.why) - PASSED_REASONS.indexOf(a.why))
      .slice(0, countMax),
  );
  return passed.filter((rule) => near.has(rule));
}

function showOne(explanation: Explanation, all: boolean): void {
  const { verdict, rule, passed, src, dst, snat, kernel } = explanation;
  sayWrapped('', `${verdict} by ${ruleText(rule)}`);
  showSide('from', src, all);
  showSide('to', dst, all);
  const shown = nearest(passed, all ? passed.length : PASSED_SHOWN_MAX);
  for (const rule of shown) sayWrapped('  past ', `${ruleText(rule)}: ${WHY_TEXT[rule.why]}`);
  const hidden = passed.length - shown.length;
  if (hidden > 0) sayWrapped('  past ', `${plural(hidden, 'rule')} that came less near, --all shows them`);
  if (snat !== undefined) sayWrapped('  ', snatText(snat));
  if (kernel !== undefined) sayWrapped('  kernel: ', kernelText(kernel));
}

function showExplain({ verdict, alternatives, ...first }: ExplainAnswer, all: boolean): void {
  if (verdict === 'MIXED') {
    sayWrapped('', 'MIXED: it depends on which address is meant');
    for (const explanation of alternatives) showOne(explanation, all);
  } else {
    showOne({ ...first, verdict }, all);
  }
}

const DNS_NAME = /^(?:[a-z0-9_](?:[a-z0-9_-]{0,62})\.)*[a-z][a-z0-9-]{0,62}\.?$/i;
const ADDRESSES_MAX = 16;

/** The addresses that a DNS name has now, by the resolver of this machine; anything else is left as it is. */
async function destinationsOf(text: string): Promise<readonly string[]> {
  const isName = text === 'localhost' || (text.includes('.') && DNS_NAME.test(text));
  if (!isName || readAddress(text) !== undefined) return [text];
  try {
    const found = await lookup(text, { all: true, order: 'ipv4first' });
    return [...new Set(found.map(({ address }) => address))].slice(0, ADDRESSES_MAX);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new Error(`Cannot explain: the name ${JSON.stringify(text)} can't be resolved: ${code}`, { cause });
  }
}

type Query = Readonly<Record<'src' | 'dst' | 'protocol', string>> & { readonly port?: string };
type Explainer = (query: Query) => Promise<ExplainAnswer>;

/** Explains from files: policy as it is on disk, and AWS as it was last known. */
async function explainerOf(options: FileOptions): Promise<Explainer> {
  const { snapshot, wanted, interfaces } = await readFiles(options);
  const known = { matcher: matcherOf(snapshot, []), now: new Date() };
  const originsOf: OriginsOf = async (group, address) =>
    (wanted.content.groups.find(({ name }) => name === group)?.members ?? [])
      .filter(({ prefix }) => prefixContains(prefix, address))
      .map(({ prefix, seenAt: _, ...origin }) => ({ ...origin, prefix: printPrefix(prefix) }));
  const snat = snatOf(interfaces);
  return async (query) => {
    const explained = explainQuestion(snapshot, known, [], questionSchema.parse(query));
    const told = await Promise.all(explained.map((one) => addMemberships(one, originsOf)));
    return answerOf(
      told.map(({ explanation }) =>
        snat === undefined || explanation.verdict !== 'PERMIT' ? explanation : { ...explanation, snat },
      ),
    );
  };
}

/** One answer for all addresses of a name; those of a family that the source has none of are left out. */
async function explainAll(explainer: Explainer, query: Query): Promise<ExplainAnswer> {
  const answers: ExplainAnswer[] = [];
  let refused: unknown;
  for (const dst of await destinationsOf(query.dst)) {
    try {
      answers.push(await explainer({ ...query, dst }));
    } catch (error) {
      refused ??= error;
    }
  }
  if (answers.length === 0) throw refused;
  const explanations = answers.flatMap(({ alternatives, ...first }) =>
    first.verdict === 'MIXED' ? alternatives : [{ ...first, verdict: first.verdict }],
  );
  return answerOf(
    [...new Map(explanations.toReversed().map((one) => [one.rule.name, one])).values()].reverse(),
  );
}

/** Adds `sluice explain`. */
export function addExplain(program: Command): void {
  program
    .command('explain')
    .description('say whether a connection is permitted, by which rule, and what the kernel would do')
    .requiredOption('--src <address|function>', 'source address, or name or ARN of a function')
    .requiredOption('--dst <address|name>', 'destination address, DNS name, or a function')
    .option('--protocol <name>', 'tcp, udp, icmp or a number', 'tcp')
    .option('--port <number>', 'destination port', parsePort)
    .option('--all', `every rule that was passed over, not the nearest ${PASSED_SHOWN_MAX}`)
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
        all = false,
        ...options
      }: Options & Record<'src' | 'dst' | 'protocol' | 'port', string> & { all?: boolean }) => {
        const query = { src, dst, protocol, ...(port !== undefined && { port }) };
        const parsed = questionSchema.safeParse(query);
        if (!parsed.success) {
          const { path, message } = parsed.error.issues[0]!;
          throw new Error(`Cannot explain: --${path.join('.')}: ${message}`);
        }
        const explainer: Explainer = isFromFiles(options)
          ? await explainerOf(options)
          : (query) => ask(socketOf(options), '/explain', { ...query });
        const answer = await explainAll(explainer, query);
        show(options, answer, (answer) => showExplain(answer, all));
        if (answer.verdict !== 'PERMIT') process.exitCode = EXIT.found;
      },
    );
}
