import type { Command } from 'commander';
import { answerExplain, type ExplainAnswer, questionSchema } from 'sluice-gateway/admin/answers.js';
import type { ExplainedRule, Explanation } from 'sluice-gateway/policy/explain.js';
import { ask } from '../ask.js';
import { readFiles } from '../files.js';
import { config, isFromFiles, json, type Options, policy, socket, socketOf } from '../options.js';
import { EXIT, say, show } from '../output.js';

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

function sideText({ ip, groups }: Explanation['src']): string {
  return `${ip}, in ${groups.length === 0 ? 'no group' : groups.join(', ')}`;
}

function showOne(explanation: Explanation): void {
  say(`${explanation.verdict} by ${ruleText(explanation.rule)}`);
  say(`  from ${sideText(explanation.src)}`);
  say(`  to   ${sideText(explanation.dst)}`);
  for (const rule of explanation.monitored) say(`  monitored by ${ruleText(rule)}`);
}

function showExplain({ verdict, alternatives, ...first }: ExplainAnswer): void {
  if (verdict === 'MIXED') {
    say('MIXED: it depends on which address the function connects from');
    for (const explanation of alternatives) showOne(explanation);
  } else {
    showOne({ ...first, verdict });
  }
}

/** Adds `sluice explain`. */
export function addExplain(program: Command): void {
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
}
