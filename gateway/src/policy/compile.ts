import { createHash } from 'node:crypto';
import type { Family } from '../net/family.js';
import type { Prefix } from '../net/prefix.js';
import { printChain } from '../nft/print.js';
import type { Chain, MapElement, MarkMap, NftMap, Program, VerdictMap } from '../nft/program.js';
import { counter, goto, jump, match, type Rule, type Statement, type Verdict } from '../nft/statement.js';
import { type Classification, classify } from './classify.js';
import type { Decision, GroupPrefixes } from './evaluate.js';
import { DROP_COUNTERS, fixedChains, type GatewayInterfaces, type TopMaps } from './fixed-chains.js';
import { type NumberedRule, type PolicyInForce, PROTOCOLS_ICMP } from './in-force.js';
import type { ClassInterval } from './partition.js';
import { type PortTable, type ServiceInterval, serviceTable } from './services.js';

/** What one compilation needs to know. */
export interface PolicyInput {
  readonly policy: PolicyInForce;
  readonly groups: GroupPrefixes;
  /** The gateway's own addresses: members of no group. */
  readonly excluded: readonly Prefix[];
  /** Part of every content name: another process's leftovers are never taken for ours. */
  readonly epoch: string;
}

/**
 * Source classes, destination classes and lists count from different bases, so that what a missed lookup leaves in
 * the mark is never a key of the next one. CLASSIFY_LIMITS keeps each below the next base.
 */
const SOURCE_BASE = 0x0100_0000;
const DESTINATION_BASE = 0x0200_0000;
const LIST_BASE = 0x0300_0000;

/** Denied packets of one rule that are logged each second; the rest are counted as suppressed. */
export const LOG_LIMIT = { perSecond: 100, burstPackets: 100 } as const;

const SLUG_LENGTH_MAX = 32;

/** A name with nothing in it but what nft takes for an identifier. */
function slug(name: string): string {
  return name.replace(/[^A-Za-z0-9]+/g, '_').slice(0, SLUG_LENGTH_MAX);
}

function hash(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}

/** Names of the kernel counters of a rule. They live as long as the rule keeps its name, action and enforcement. */
export function ruleCounters(rule: NumberedRule): { readonly decided: string; readonly suppressed: string } {
  const key = `${slug(rule.name)}_${hash(`${rule.name}\0${rule.action}\0${rule.enforced}`)}`;
  return { decided: `decided_${key}`, suppressed: `suppressed_${key}` };
}

/** Not one judged again: its state is `new` while nobody answers, but it has the last judgement's mark. */
const newConnection: readonly Statement[] = [{ kind: 'matchState', states: ['new'] }, match('ctMark', 0)];

function finalRules(rule: NumberedRule): Rule[] {
  const { decided, suppressed } = ruleCounters(rule);
  const head: Rule[] = [[...newConnection, counter(decided)], [{ kind: 'setMark', value: rule.number }]];
  switch (rule.action) {
    case 'PERMIT':
      return [...head, [goto('permitted')]];
    case 'DENY':
    case 'REJECT': {
      const chain = rule.action === 'DENY' ? 'denied' : 'rejected';
      if (!rule.logging) return [...head, [goto(chain)]];
      return [
        ...head,
        [{ kind: 'limit', ...LOG_LIMIT }, goto(`${chain}_logged`)],
        [counter(suppressed), goto(chain)],
      ];
    }
    default:
      return rule.action satisfies never;
  }
}

function monitorRule(rule: NumberedRule): Rule {
  return [
    ...newConnection,
    counter(ruleCounters(rule).decided),
    { kind: 'setMark', value: rule.number },
    jump('monitored'),
  ];
}

/** Collects chains and maps under names made from their content, each once. */
class Content {
  readonly chains = new Map<string, Chain>();
  readonly maps = new Map<string, NftMap>();
  readonly counters = new Set<string>(DROP_COUNTERS);
  readonly #epoch: string;

  constructor(epoch: string) {
    this.#epoch = epoch;
  }

  #name(kind: string, content: string): string {
    return `${kind}_${hash(`${this.#epoch}\0${content}`)}`;
  }

  chain(kind: string, rules: readonly Rule[]): string {
    const name = this.#name(kind, printChain({ name: kind, rules }));
    this.chains.set(name, { name, rules });
    return name;
  }

  markMap(kind: string, shape: Pick<MarkMap, 'key' | 'interval'>, elements: MarkMap['elements']): string {
    const content = createHash('sha256');
    for (const { first, last, data } of elements) content.update(`${first} ${last} ${data}\n`);
    const name = this.#name(kind, content.digest('hex'));
    this.maps.set(name, { name, ...shape, data: 'mark', elements });
    return name;
  }

  verdictMap(
    kind: string,
    shape: Pick<VerdictMap, 'key' | 'interval'>,
    elements: VerdictMap['elements'],
  ): string {
    const text = elements
      .map(({ first, last, data }) => `${first} ${last} ${JSON.stringify(data)}`)
      .join('\n');
    const name = this.#name(kind, text);
    this.maps.set(name, { name, ...shape, data: 'verdict', elements });
    return name;
  }

  decision({ decided, monitored }: Decision): Verdict {
    for (const rule of [...monitored, decided]) this.counters.add(ruleCounters(rule).decided);
    if (decided.action !== 'PERMIT' && decided.logging) this.counters.add(ruleCounters(decided).suppressed);
    const rules = [...monitored.map(monitorRule), ...finalRules(decided)];
    return { kind: 'goto', chain: this.chain(`rule_${decided.number}_${slug(decided.name)}`, rules) };
  }
}

function element<Data>({ first, last }: ServiceInterval<unknown>, data: Data): MapElement<Data> {
  return { first: BigInt(first), last: BigInt(last), data };
}

/** Ends a chain that is reached by `goto`, since the base chain's policy would drop what missed uncounted. */
const missed: Rule = [goto('unclassified')];

function portsVerdict(content: Content, { protocol, ports }: PortTable): Verdict {
  const map = content.verdictMap(
    `ports_${protocol}`,
    { key: 'inet_service', interval: true },
    ports.map((interval) => element(interval, content.decision(interval.to))),
  );
  // An ICMP error about a connection is judged as the connection is, by its original tuple.
  const chain = content.chain(`by_port_${protocol}`, [
    ...[protocol, ...PROTOCOLS_ICMP].map(
      (l4proto): Rule => [
        match('l4proto', l4proto),
        { kind: 'verdictMap', field: 'ctOriginalDestinationPort', map },
      ],
    ),
    missed,
  ]);
  return { kind: 'goto', chain };
}

/** The chain of one list of rules, reached by `goto`: everything it can lead to is an explicit element. */
function listChain(content: Content, rules: Classification['lists'][number], policy: PolicyInForce): string {
  const { protocols } = serviceTable(rules, policy.byDefault);
  const only = protocols.length === 1 ? protocols[0]!.to : undefined;
  if (only !== undefined && 'decided' in only) {
    const verdict = content.decision(only);
    return content.chain('list', [[{ kind: 'verdict', verdict }]]);
  }
  const map = content.verdictMap(
    'protocols',
    { key: 'inet_proto', interval: true },
    protocols.map((interval) =>
      element(
        interval,
        'decided' in interval.to ? content.decision(interval.to) : portsVerdict(content, interval.to),
      ),
    ),
  );
  return content.chain('list', [[{ kind: 'verdictMap', field: 'ctOriginalProtocol', map }], missed]);
}

const single = <Data>(key: number, data: Data): MapElement<Data> => ({
  first: BigInt(key),
  last: BigInt(key),
  data,
});

function addressMap(
  content: Content,
  kind: string,
  family: Family,
  intervals: readonly ClassInterval[],
  base: number,
): string {
  return content.markMap(
    `${kind}${family}`,
    { key: family === 4 ? 'ipv4_addr' : 'ipv6_addr', interval: true },
    intervals.map(({ first, last, classIndex }) => ({ first, last, data: base + classIndex })),
  );
}

/** The class maps, the source chains and the lists: everything above the decisions. */
function topMaps(content: Content, classes: Classification, policy: PolicyInForce): TopMaps {
  const lists = classes.lists.map((rules) => listChain(content, rules, policy));
  const destination4 = addressMap(content, 'destination', 4, classes.destinations[4], DESTINATION_BASE);
  const destination6 = addressMap(content, 'destination', 6, classes.destinations[6], DESTINATION_BASE);
  const fromChains = classes.listOf.map((row) => {
    const to = content.markMap(
      'to',
      { key: 'mark', interval: false },
      row.map((list, destination) => single(DESTINATION_BASE + destination, LIST_BASE + list)),
    );
    return content.chain('from', [
      [{ kind: 'setMarkFromMap', field: 'ctOriginalDestination4', map: destination4 }],
      [{ kind: 'setMarkFromMap', field: 'ctOriginalDestination6', map: destination6 }],
      [{ kind: 'setMarkFromMap', field: 'mark', map: to }],
    ]);
  });
  return {
    source4: addressMap(content, 'source', 4, classes.sources[4], SOURCE_BASE),
    source6: addressMap(content, 'source', 6, classes.sources[6], SOURCE_BASE),
    sources: content.verdictMap(
      'sources',
      { key: 'mark', interval: false },
      fromChains.map((chain, index) => single(SOURCE_BASE + index, { kind: 'jump', chain })),
    ),
    lists: content.verdictMap(
      'lists',
      { key: 'mark', interval: false },
      lists.map((chain, index) => single(LIST_BASE + index, { kind: 'goto', chain })),
    ),
  };
}

/** What policy makes of a program, whatever the generation: content, named after itself. */
export interface CompiledPolicy extends Pick<Program, 'chains' | 'maps' | 'counters'> {
  /** Undefined: everything is dropped. */
  readonly top: TopMaps | undefined;
}

/** What a gateway that knows no policy yet enforces: it drops everything it would forward. */
export const closedPolicy: CompiledPolicy = { top: undefined, chains: [], maps: [], counters: DROP_COUNTERS };

/** Compiles policy. Equal input gives equal content. Throws PolicyTooLargeError. */
export function compilePolicy({ policy, groups, excluded, epoch }: PolicyInput): CompiledPolicy {
  const content = new Content(epoch);
  const top = topMaps(content, classify(policy, groups, excluded), policy);
  return {
    top,
    chains: [...content.chains.values()],
    maps: [...content.maps.values()],
    counters: [...content.counters].sort(),
  };
}

/** The whole program: compiled policy under the fixed chains of one gateway and generation. */
export function programOf(
  compiled: CompiledPolicy,
  interfaces: GatewayInterfaces,
  generation: number,
): Program {
  const { top, ...content } = compiled;
  return { generation, fixed: fixedChains({ interfaces, generation, top }), ...content };
}
