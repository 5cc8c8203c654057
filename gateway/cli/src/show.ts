import type { Wanted } from 'sluice-controller-client/wanted.js';
import type { ExplainAnswer, GroupAnswer, Status } from 'sluice-gateway/admin/answers.js';
import type { FlowRecord } from 'sluice-gateway/flows/record.js';
import type { ExplainedRule, Explanation } from 'sluice-gateway/policy/explain.js';
import type { Finding } from 'sluice-gateway/preflight/finding.js';
import type { InventoryBody } from 'sluice-gateway/snapshot/format.js';
import { say, sayTable } from './output.js';

const plural = (count: number, word: string) => `${count} ${word}${count === 1 ? '' : 's'}`;

export function showCheck({ content, warnings }: Wanted): void {
  for (const warning of warnings) say(`warning: ${warning}`);
  const { rules, defaultAction } = content.policy;
  const functions = content.inventory.functions.length;
  const counts = `${plural(rules.length, 'rule')}, ${plural(content.groups.length, 'group')}, ${plural(functions, 'function')}`;
  say(`The policy can be enforced: ${counts}, default ${defaultAction.action}`);
}

const COLUMNS_MAX = 100;
const GAP_COLUMNS = 2;

/** The text in lines that fit, cut at spaces; a longer word keeps a line of its own. */
function wrap(text: string, columns: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= columns) lines[lines.length - 1] += ` ${word}`;
    else lines.push(word);
  }
  return lines;
}

const TOPICS = [
  ['KERNEL', /^(?=kernel$)|^(?=problem\.)/],
  ['FEATURE', /^feature\./],
  ['SYSCTL', /^sysctl\./],
  ['OTHER TABLES', /^foreign\./],
] as const;

function showTopic(head: string, name: RegExp, findings: readonly Finding[]): void {
  const rows = findings
    .filter((finding) => name.test(finding.name))
    .map((finding) => [finding.name.replace(name, ''), finding.level, finding.expected ?? '', finding.value]);
  const heads = [head, 'LEVEL', 'EXPECTED', 'FOUND'];
  const widths = [0, 1, 2].map((column) => Math.max(...[heads, ...rows].map((row) => row[column]!.length)));
  const left = widths.reduce((sum, width) => sum + width + GAP_COLUMNS, 0);
  const cut = (text: string) =>
    left + text.length <= COLUMNS_MAX ? text : `${text.slice(0, COLUMNS_MAX - left - 1)}…`;
  sayTable(
    heads,
    rows.map((row) => [...row.slice(0, -1), cut(row.at(-1)!)]),
  );
}

/** Tables by topic, then in words what is not as it should be. */
export function showKernel(findings: readonly Finding[]): void {
  for (const [head, name] of TOPICS) {
    showTopic(head, name, findings);
    say();
  }
  for (const { name, level, detail } of findings.filter((finding) => finding.level !== 'ok')) {
    const indent = ' '.repeat('warning  '.length);
    const [first, ...rest] = wrap(`${name}: ${detail}`, COLUMNS_MAX - indent.length);
    say(`${level.padEnd(indent.length)}${first}`);
    for (const line of rest) say(`${indent}${line}`);
  }
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

export function showExplain({ verdict, alternatives, ...first }: ExplainAnswer): void {
  if (verdict === 'MIXED') {
    say('MIXED: it depends on which address the function connects from');
    for (const explanation of alternatives) showOne(explanation);
  } else {
    showOne({ ...first, verdict });
  }
}

const AGES = [
  [86_400, 'day'],
  [3_600, 'hour'],
  [60, 'minute'],
  [1, 'second'],
] as const;

/** How long ago a time was, in its largest unit. */
function age(time: string): string {
  const seconds = Math.max(0, (Date.now() - Date.parse(time)) / 1_000);
  const [unitSeconds, word] = AGES.find(([unit]) => seconds >= unit) ?? AGES.at(-1)!;
  return plural(Math.floor(seconds / unitSeconds), word);
}

export function showStatus(status: Status): void {
  say(`${status.gateway}: ${status.ready ? 'ready' : 'NOT READY'}, ${status.reason}`);
  say(
    `  generation ${status.generation ?? '-'}, revision ${status.revision.applied ?? '-'} of ${status.revision.wanted ?? '-'}`,
  );
  say(
    `  ${plural(status.rules, 'rule')}, ${plural(status.groups, 'group')}, ${plural(status.functions, 'function')}`,
  );
  for (const { accountId, region, refreshedAt, error } of status.scopes) {
    const asOf = refreshedAt === undefined ? 'never read' : `as of ${refreshedAt} (${age(refreshedAt)} ago)`;
    say(`  AWS ${accountId} ${region}: ${asOf}${error === undefined ? '' : `, ${error}`}`);
  }
  const dropped = Object.entries(status.dropped).map(([reason, count]) => `${reason} ${count}`);
  say(`  packets dropped: ${dropped.join(', ')}`);
  for (const warning of status.warnings) say(`  warning: ${warning}`);
}

export function showGroups(groups: readonly GroupAnswer[], isInFull: boolean): void {
  if (!isInFull) {
    sayTable(
      ['GROUP', 'PREFIXES', 'FUNCTIONS', 'RESOLVED'],
      groups.map(({ name, prefixes, functions, resolved }) => [
        name,
        String(prefixes.length),
        String(functions.length),
        resolved ? 'yes' : 'no',
      ]),
    );
    return;
  }
  for (const { name, prefixes, functions, resolved } of groups) {
    say(
      `${name}: ${plural(prefixes.length, 'prefix').replace(/xs$/, 'xes')}${resolved ? '' : ', not resolved yet'}`,
    );
    for (const prefix of prefixes) say(`  ${prefix}`);
    for (const arn of functions) say(`  holds ${arn}`);
  }
}

export function showInventory({ functions, scopes }: InventoryBody): void {
  sayTable(
    ['FUNCTION', 'ACCOUNT', 'REGION', 'IDENTITY', 'PREFIXES'],
    functions.map(({ name, accountId, region, identity, prefixes }) => [
      name,
      accountId,
      region,
      identity,
      prefixes.length === 0 ? 'not enforceable' : prefixes.join(' '),
    ]),
  );
  for (const { accountId, region, error } of scopes)
    if (error !== undefined) say(`${accountId} ${region}: ${error}`);
}

function endText(side: FlowRecord['src'] | FlowRecord['dst']): string {
  if (side === undefined) return '?';
  const address =
    side.port === undefined
      ? side.ip
      : side.ip.includes(':')
        ? `[${side.ip}]:${side.port}`
        : `${side.ip}:${side.port}`;
  const names = 'functions' in side && side.functions.length > 0 ? side.functions : side.groups;
  const short = names.map((name) => name.replace(/^arn:.*:function:/, ''));
  return short.length === 0 ? address : `${address} (${short.join(', ')})`;
}

export function showFlow(record: FlowRecord): void {
  const verdict =
    record.verdict === undefined
      ? ''
      : ` ${record.verdict}${record.enforced === false ? ' (monitored)' : ''}`;
  const why = record.rule?.name ?? record.reason ?? '';
  const traffic = record.bytes === undefined ? '' : ` ${record.bytes.out} bytes out, ${record.bytes.in} in`;
  say(
    `${record.time} ${record.event.padEnd(6)}${verdict} ${record.protocol ?? ''} ${endText(record.src)} -> ${endText(record.dst)} by ${why}${traffic}`,
  );
}
