import assert from 'node:assert/strict';
import type { Program } from 'sluice-gateway/nft/program.js';
import { type Connection, evaluate, type GroupPrefixes } from 'sluice-gateway/policy/evaluate.js';
import { dropCounter } from 'sluice-gateway/policy/fixed-chains.js';
import type { NumberedRule, PolicyInForce } from 'sluice-gateway/policy/in-force.js';
import type { Action } from 'sluice-gateway/policy/model.js';
import { ruleObjects } from 'sluice-gateway/policy/rule-content.js';
import type { TestPacket } from './frames.js';
import { here, sysctl } from './namespace.js';
import type { Stand } from './stand.js';
import { printConnection } from './try-property.js';
import { walk } from './walk.js';

/** What is asked of the judges: a connection of a source port that tells it from others. */
export interface Tried extends Connection {
  readonly srcPort: number;
}

/** What the walked program and the kernel say of a packet: `nothing` makes sense to nobody. */
export type Said = Action | 'nothing';

const SAID = { accept: 'PERMIT', drop: 'DENY', reject: 'REJECT' } as const;

/** What the walked program says, and through which rule. Throws where the two judges in memory differ. */
export function judgeInMemory(
  program: Program,
  policy: PolicyInForce,
  groups: GroupPrefixes,
  excluded: Parameters<typeof evaluate>[2],
  connection: Connection,
): { readonly decided: NumberedRule; readonly monitored: readonly NumberedRule[] } {
  const { decided, monitored } = evaluate(policy, groups, excluded, connection);
  const walked = walk(program, connection);
  const numbers = (rules: readonly number[]) =>
    rules.length === 0 ? '' : ` past MONITOR ${rules.join(', ')}`;
  const text = (said: Said, rule: number, passed: readonly number[]) =>
    `${said} by rule ${rule}${numbers(passed)}`;
  const isCounted = walked.counters.includes(ruleObjects(decided).decided);
  assert.equal(
    text(isCounted ? SAID[walked.verdict] : 'nothing', walked.rule, walked.monitored),
    text(
      decided.action,
      decided.number,
      monitored.map(({ number }) => number),
    ),
    `${printConnection(connection)}: the walked program says otherwise than evaluate`,
  );
  return { decided, monitored };
}

let lastTag = 0x4000_0000;
let lastPort = 1_024;

/** Connections that the kernel has not seen: by their source port, or where they have none, once of each. */
export function asNew(connections: readonly Connection[]): Tried[] {
  const tried = new Map<string, Tried>();
  for (const connection of connections) {
    lastPort = lastPort >= 65_000 ? 1_024 : lastPort + 1;
    const hasPort = [1, 6, 17, 58].includes(connection.protocol);
    const key = hasPort ? `${lastPort}` : printConnection({ ...connection, dstPort: 0 });
    tried.set(key, { ...connection, srcPort: lastPort });
  }
  return [...tried.values()];
}

/** The kernel answers each rejected packet, however many there are. */
export function answerAll(): void {
  here.run('sysctl', ['-qw', 'net.ipv4.icmp_ratemask=0', 'net.ipv6.icmp.ratemask=']);
  sysctl(here, 'net.ipv6.icmp.ratelimit', 0);
}

/**
 * Of other protocols the kernel rejects silently what does not end up as a right checksum over the payload: one tag in
 * some ten thousand does.
 */
const ANSWERED_PROTOCOLS = [1, 6, 17, 50, 58];

/** Sends a packet of each connection from function a, and gives what the kernel made of it. */
async function kernelSays(stand: Stand, tried: readonly Tried[]): Promise<Said[]> {
  const { a, internet } = stand.stations;
  const packets = tried.map((connection): TestPacket => ({ ...connection, tag: ++lastTag }));
  const resetsBefore = a.resets.length;
  await a.send(...packets);
  await stand.settle();
  const resets = new Set(
    a.resets.slice(resetsBefore).map(({ src, segment }) => `${src.value} ${segment.readUInt16BE(2)}`),
  );
  return packets.map(({ tag, protocol, dst, srcPort }) => {
    const isAnswered = protocol === 6 ? resets.has(`${dst.value} ${srcPort}`) : a.count(tag) > 0;
    if (internet.count(tag) > 0) return isAnswered ? 'nothing' : 'PERMIT';
    return isAnswered ? 'REJECT' : 'DENY';
  });
}

type Counters = Awaited<ReturnType<Stand['loader']['kernel']['counters']>>;

/** What is asked of the judges together. */
export interface Trial {
  readonly policy: PolicyInForce;
  readonly groups: GroupPrefixes;
  readonly tried: readonly Tried[];
  /** The kernel has seen none of the connections: it counts each for the rule that decides. */
  readonly isFirst: boolean;
}

/** Asks evaluate, the program that the stand's loader has in force, and the kernel. Throws where one differs. */
export async function judge(
  stand: Stand,
  { policy, groups, tried, isFirst }: Trial,
): Promise<Record<Action, number>> {
  const { kernel, program } = stand.loader;
  const count = { PERMIT: 0, DENY: 0, REJECT: 0 };
  const decided = tried.map((connection) => {
    const decision = judgeInMemory(program!, policy, groups, [], connection);
    count[decision.decided.action]++;
    return decision;
  });
  const before = await kernel.counters();
  const said = await kernelSays(stand, tried);
  const after = await kernel.counters();
  const differ = tried.flatMap((connection, index) => {
    const { action, name } = decided[index]!.decided;
    const maySayNothing = action === 'REJECT' && !ANSWERED_PROTOCOLS.includes(connection.protocol);
    if (said[index] === action || (maySayNothing && said[index] === 'DENY')) return [];
    return `${printConnection(connection)}: ${action} by ${name}, say evaluate and the walked program; the kernel: ${said[index]}`;
  });
  if (differ.length > 0) throw new Error(differ.join('\n'));
  const packets = (counters: Counters, name: string) => Number(counters.get(name)?.packets ?? 0n);
  const counted = (name: string) => packets(after, name) - packets(before, name);
  assert.equal(counted(dropCounter('unclassified')), 0, 'packets that no rule decided');
  assert.equal(counted(dropCounter('deny')), count.DENY, 'packets that a rule denied');
  assert.equal(counted(dropCounter('reject')), count.REJECT, 'packets that a rule rejected');
  if (!isFirst) return count;
  for (const rule of [...policy.rules, policy.byDefault]) {
    const times = decided.filter((decision) =>
      [decision.decided, ...decision.monitored].includes(rule),
    ).length;
    assert.equal(counted(ruleObjects(rule).decided), times, `connections that ${rule.name} decided`);
  }
  return count;
}
