import { z } from 'zod';
import type { FlowRecord } from '../flows/record.js';
import { type Address, readAddress } from '../net/address.js';
import { BITS } from '../net/family.js';
import { type Prefix, parsePrefix, prefixContains, prefixInterval, printPrefix } from '../net/prefix.js';
import { type Explanation, explain } from '../policy/explain.js';
import { PROTOCOL_TCP, PROTOCOL_UDP } from '../policy/in-force.js';
import type { Origin } from '../snapshot/provenance.js';
import { groupPrefixes, type Snapshot } from '../snapshot/read.js';

/** What `sluice status` shows. */
export interface Status {
  readonly gateway: string;
  readonly ready: boolean;
  readonly reason: string;
  readonly generation: number | undefined;
  readonly revision: { readonly wanted: number | undefined; readonly applied: number | undefined };
  readonly rules: number;
  readonly groups: number;
  readonly functions: number;
  readonly scopes: Snapshot['inventory']['scopes'];
  readonly dropped: Readonly<Record<string, number>>;
  /** What preflight finds in the kernel and in the tables of others that is not as it should be. */
  readonly warnings: readonly string[];
}

/** What `sluice groups` shows of one group. */
export interface GroupAnswer {
  readonly name: string;
  readonly resolved: boolean;
  readonly prefixes: readonly string[];
  /** Functions whose addresses the group holds. */
  readonly functions: readonly string[];
  /** Why it holds each prefix, and since when; only of one group that was asked for by name. */
  readonly origins?: readonly Origin[];
}

/** A question that cannot be answered, in words for who asked. */
export class QuestionError extends Error {
  override readonly name = 'QuestionError';
}

/** A connection in the words of a person: addresses or function names, a protocol name or number. */
export const questionSchema = z.strictObject({
  src: z.string().min(1),
  dst: z.string().min(1),
  protocol: z.string().default('tcp'),
  port: z.coerce.number().int().min(0).max(65_535).optional(),
});
export type Question = z.output<typeof questionSchema>;

/** Addresses of a source that one answer looks at. */
const ALTERNATIVES_MAX = 1_000;

/** What `sluice explain` answers: one explanation for each address that the source may have. */
export interface ExplainAnswer extends Omit<Explanation, 'verdict'> {
  /** MIXED: it depends on which of the function's addresses the connection comes from. */
  readonly verdict: Explanation['verdict'] | 'MIXED';
  readonly alternatives: readonly Explanation[];
}

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

/** The prefixes that a source may mean: its own address, or those of the function of that name or ARN. */
function sourcePrefixes(snapshot: Snapshot, text: string): Prefix[] {
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
  return (others.length > 0 ? others : addresses).slice(0, ALTERNATIVES_MAX);
}

/** Answers `explain` from a snapshot. Throws QuestionError. */
export function answerExplain(
  snapshot: Snapshot,
  excluded: readonly Prefix[],
  question: Question,
  now: Date,
): ExplainAnswer {
  const dst = readAddress(question.dst);
  if (dst === undefined) {
    throw new QuestionError(`Cannot explain: destination ${JSON.stringify(question.dst)} is not an address`);
  }
  const sources = sourcePrefixes(snapshot, question.src).filter((prefix) => prefix.family === dst.family);
  if (sources.length === 0) {
    throw new QuestionError(
      `Cannot explain: the source has no IPv${dst.family} address, the destination is one`,
    );
  }
  const protocol = protocolNumber(question.protocol, dst.family);
  const needsPort = protocol === PROTOCOL_TCP || protocol === PROTOCOL_UDP;
  if (needsPort && question.port === undefined) {
    throw new QuestionError(`Cannot explain: protocol ${question.protocol} needs a port`);
  }
  const groups = groupPrefixes(snapshot);
  const edges = [...groups.values(), excluded].flat();
  const explanations = sources
    .flatMap((source) => representatives(source, edges, excluded))
    .map(({ family, value }) =>
      explain(
        snapshot.policy,
        groups,
        excluded,
        { src: { family, value }, dst, protocol, dstPort: question.port ?? 0 },
        now,
      ),
    );
  const [first] = explanations;
  const isMixed = explanations.some(
    ({ verdict, rule }) => verdict !== first!.verdict || rule.name !== first!.rule.name,
  );
  return {
    ...first!,
    verdict: isMixed ? 'MIXED' : first!.verdict,
    alternatives: isMixed ? explanations : [],
  };
}

/** The groups of a snapshot, or the one of that name. */
export function answerGroups(snapshot: Snapshot, name?: string): GroupAnswer[] {
  const wanted = snapshot.groups.filter((group) => name === undefined || group.name === name);
  if (name !== undefined && wanted.length === 0) {
    throw new QuestionError(`Cannot show group: there is none called ${JSON.stringify(name)}`);
  }
  return wanted.map(({ name, resolved, parts }) => {
    const texts = new Set(parts.flat().map(printPrefix));
    const functions = snapshot.inventory.functions.filter((one) =>
      [...one.prefixes, ...(one.addresses ?? [])].some((text) => texts.has(text)),
    );
    return { name, resolved, prefixes: [...texts], functions: functions.map(({ arn }) => arn) };
  });
}

/** Records kept for `sluice flows`; older ones are in the sinks only. */
export const RECENT_RECORDS_MAX = 1_000;

/** The newest flow records, each with a number by which a follower asks for what came after. */
export class RecentFlows {
  readonly #records: FlowRecord[] = [];
  #next = 0;

  add(record: FlowRecord): void {
    this.#records.push(record);
    this.#next++;
    if (this.#records.length > RECENT_RECORDS_MAX) this.#records.shift();
  }

  /** Records from number `since` on, oldest first, and the number to ask for next. */
  since(since: number): { readonly records: readonly FlowRecord[]; readonly next: number } {
    const first = this.#next - this.#records.length;
    return { records: this.#records.slice(Math.max(0, since - first)), next: this.#next };
  }
}
