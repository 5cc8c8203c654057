import { z } from 'zod';
import { type Explained, explain, type Known } from '../analysis/explain.js';
import type { ExplainAnswer, Explanation } from '../analysis/output.js';
import { type Address, readAddress } from '../net/address.js';
import { BITS } from '../net/family.js';
import { type Prefix, parsePrefix, prefixContains, prefixInterval } from '../net/prefix.js';
import type { Connection } from '../policy/evaluate.js';
import { PROTOCOL_TCP, PROTOCOL_UDP } from '../policy/in-force.js';
import { groupPrefixes, type Snapshot } from '../snapshot/read.js';
import { QuestionError } from './question.js';

/** A connection in the words of a person: addresses or function names, a protocol name or number. */
export const questionSchema = z.strictObject({
  src: z.string().min(1),
  dst: z.string().min(1),
  protocol: z.string().default('tcp'),
  port: z.coerce.number().int().min(0).max(65_535).optional(),
});
export type Question = z.output<typeof questionSchema>;

/** Pairs of addresses that one answer looks at. */
const ALTERNATIVES_MAX = 1_000;

const PROTOCOL_NUMBERS: Readonly<Record<string, { readonly 4: number; readonly 6: number }>> = {
  tcp: { 4: PROTOCOL_TCP, 6: PROTOCOL_TCP },
  udp: { 4: PROTOCOL_UDP, 6: PROTOCOL_UDP },
  icmp: { 4: 1, 6: 58 },
};

function protocolNumber(text: string, family: 4 | 6): number {
  const known = PROTOCOL_NUMBERS[text.toLowerCase()];
  if (known !== undefined) return known[family];
  if (/^(?:0|[1-9][0-9]{0,2})$/.test(text) && Number(text) <= 255) return Number(text);
  throw new QuestionError(
    `Cannot explain: protocol ${JSON.stringify(text)} is not tcp, udp, icmp or 0 to 255`,
  );
}

/** The prefixes that an end may mean: its own address, or those of the function of that name or ARN. */
function endPrefixes(snapshot: Snapshot, text: string): Prefix[] {
  const address = readAddress(text);
  if (address !== undefined) return [{ ...address, length: BITS[address.family] }];
  const functions = snapshot.inventory.functions.filter(({ arn, name }) => arn === text || name === text);
  const [only] = functions;
  if (only === undefined) {
    throw new QuestionError(
      `Cannot explain: ${JSON.stringify(text)} is neither an address nor a known function`,
    );
  }
  if (functions.length > 1) {
    throw new QuestionError(
      `Cannot explain: ${functions.length} functions are called ${JSON.stringify(text)}, give the ARN of one`,
    );
  }
  if (only.prefixes.length === 0) {
    throw new QuestionError(
      `Cannot explain: function ${JSON.stringify(text)} is not in a VPC, its traffic does not pass the gateway`,
    );
  }
  return only.prefixes.map(parsePrefix);
}

/**
 * Addresses of a prefix that stand for all of them: its first, and the first behind each boundary inside it. Of a
 * subnet without the gateway's own addresses, which no function has.
 */
function representatives(source: Prefix, edges: readonly Prefix[], excluded: readonly Prefix[]): Address[] {
  const { family, first, last } = prefixInterval(source);
  const starts = edges
    .filter((edge) => edge.family === family)
    .map(prefixInterval)
    .flatMap((edge) => [edge.first, edge.last + 1n])
    .filter((start) => start > first && start <= last);
  const addresses = [...new Set([first, ...starts])].map((value) => ({ family, value }));
  const others = addresses.filter((address) => !excluded.some((prefix) => prefixContains(prefix, address)));
  return others.length > 0 ? others : addresses;
}

/** Every connection that a question may mean, as far as policy tells them apart. Throws QuestionError. */
function connectionsOf(snapshot: Snapshot, excluded: readonly Prefix[], question: Question): Connection[] {
  const sources = endPrefixes(snapshot, question.src);
  const targets = endPrefixes(snapshot, question.dst);
  const pairs = sources.flatMap((source) =>
    targets.filter(({ family }) => family === source.family).map((target) => [source, target] as const),
  );
  if (pairs.length === 0) {
    const { family } = targets[0]!;
    throw new QuestionError(`Cannot explain: the source has no IPv${family} address, the destination is one`);
  }
  const isSingle = ({ family, length }: Prefix) => length === BITS[family];
  // Addresses have no boundaries inside: a million prefixes are not looked at for them.
  const isExact = pairs.every((pair) => pair.every(isSingle));
  const edges = isExact ? [] : [...[...groupPrefixes(snapshot).values()].flat(), ...excluded];
  const connections: Connection[] = [];
  for (const [source, target] of pairs) {
    const protocol = protocolNumber(question.protocol, source.family);
    if ((protocol === PROTOCOL_TCP || protocol === PROTOCOL_UDP) && question.port === undefined) {
      throw new QuestionError(`Cannot explain: protocol ${question.protocol} needs a port`);
    }
    const ends = representatives(target, edges, []);
    for (const src of representatives(source, edges, excluded)) {
      for (const dst of ends) {
        if (connections.length === ALTERNATIVES_MAX) return connections;
        connections.push({ src, dst, protocol, dstPort: question.port ?? 0 });
      }
    }
  }
  return connections;
}

/** Explains a question from a snapshot: one connection for each rule that may decide. Throws QuestionError. */
export function explainQuestion(
  snapshot: Snapshot,
  known: Omit<Known, 'policy'>,
  excluded: readonly Prefix[],
  question: Question,
): Explained[] {
  const byRule = new Map<string, Explained>();
  for (const connection of connectionsOf(snapshot, excluded, question)) {
    const explanation = explain({ ...known, policy: snapshot.policy }, connection);
    if (!byRule.has(explanation.rule.name)) byRule.set(explanation.rule.name, { connection, explanation });
  }
  return [...byRule.values()];
}

/** One answer from explanations that each have another rule. */
export function answerOf(explanations: readonly Explanation[]): ExplainAnswer {
  const [first, ...others] = explanations;
  if (others.length === 0) return { ...first!, alternatives: [] };
  return { ...first!, verdict: 'MIXED', alternatives: [...explanations] };
}
