import { hash as digest } from 'node:crypto';
import { ACTION_BITS, KIND, LOG_BIT, NUMBER_MAX } from '../nft/mark.js';
import { printChain } from '../nft/print.js';
import type { Chain, MapElement, NftMap, NumberMap } from '../nft/program.js';
import { counter, jump, match, type Rule, type Statement } from '../nft/statement.js';
import type { Decision } from './evaluate.js';
import { newConnection } from './fixed-chains.js';
import { type NumberedRule, type PolicyInForce, PROTOCOLS_ICMP, type RuleInForce } from './in-force.js';
import { LOG_LIMITS } from './log-limits.js';
import { type PortTable, type ServiceInterval, serviceTable } from './services.js';

const SLUG_LENGTH_MAX = 32;

/** A name with nothing in it but what nft takes for an identifier. */
function slug(name: string): string {
  return name.replace(/[^A-Za-z0-9]+/g, '_').slice(0, SLUG_LENGTH_MAX);
}

export const hash = (text: string): string => digest('sha256', text).slice(0, 16);

/** Names of the kernel's counters and limit of a rule. They live as long as it keeps its name, action and enforcement. */
export interface RuleObjects {
  readonly decided: string;
  readonly suppressed: string;
  readonly logLimit: string;
}

/** Objects by the rule they are of: names are hashes, and asked for at every compilation and every scrape. */
const known = new WeakMap<NumberedRule, RuleObjects>();

export function ruleObjects(rule: NumberedRule): RuleObjects {
  let objects = known.get(rule);
  if (objects === undefined) {
    const key = `${slug(rule.name)}_${hash(`${rule.name}\0${rule.action}\0${rule.enforced}`)}`;
    // A limit that is there is not written again: another rate has another name.
    const logLimit = `log_${LOG_LIMITS.rule.perSecond}_${key}`;
    objects = { decided: `decided_${key}`, suppressed: `suppressed_${key}`, logLimit };
    known.set(rule, objects);
  }
  return objects;
}

/** Whether the kernel makes log records of what the rule decides; permitted connections are told of by conntrack. */
export const logsPackets = (rule: NumberedRule) => rule.enforced && rule.action !== 'PERMIT' && rule.logging;

/** The packet mark that says that this rule decided. */
export const decisionMark = (rule: NumberedRule) =>
  KIND.decision | (logsPackets(rule) ? LOG_BIT : 0) | ACTION_BITS[rule.action] | rule.number;

/** What one list of rules is in the kernel: the chain that is jumped to, under its number in the mark. */
export interface ListContent {
  readonly number: number;
  readonly chain: string;
  readonly chains: readonly Chain[];
  readonly maps: readonly NftMap[];
  readonly monitors: readonly MonitorContent[];
}

/** MONITOR rules to be told of before a decision is carried out. */
export interface MonitorContent {
  readonly number: number;
  readonly chain: Chain;
}

/** Numbers of one kind in the packet mark, given out upwards: one that was used is not used again. */
class Numbers {
  #last = 0;

  next(): number {
    if (this.#last === NUMBER_MAX) throw new RangeError(`Cannot number content: ${NUMBER_MAX} are used up`);
    return ++this.#last;
  }
}

function monitorRule(rule: NumberedRule): Rule {
  return [
    ...newConnection,
    counter(ruleObjects(rule).decided),
    { kind: 'setMark', value: rule.number },
    jump('monitored'),
  ];
}

/**
 * Lists with equal maps share one up to so many: for each rule that refers to a map the kernel looks at all others that do
 * (`nf_tables_bind_set`, a third of the time that 28,000 lists with one map take to load).
 */
export const LISTS_A_MAP_MAX = 1_024;

/**
 * Lists of rules as chains and maps, kept by what is in them: a list that comes again is the same content under the
 * same number. Texts are long and many: hashes stand for them, of which nobody who writes policy knows the epoch.
 */
export class ListBook {
  readonly #epoch: string;
  readonly #lists = new Map<string, ListContent>();
  /** By chain, whose name stands for what they decide: rules that no packet reaches make no difference. */
  readonly #byChain = new Map<string, ListContent>();
  readonly #monitors = new Map<string, MonitorContent>();
  readonly #listNumbers = new Numbers();
  readonly #monitorNumbers = new Numbers();

  constructor(epoch: string) {
    this.#epoch = epoch;
  }

  /** `text`: all that the rules say. */
  contentOf(text: string, rules: readonly RuleInForce[], policy: PolicyInForce): ListContent {
    const key = hash(`${this.#epoch}\0${text}`);
    let content = this.#lists.get(key);
    if (content === undefined) {
      content = this.#compile(rules, policy);
      this.#lists.set(key, content);
    }
    return content;
  }

  /** Forgets the lists that are not among these. */
  keep(lists: ReadonlySet<ListContent>): void {
    for (const [key, content] of this.#lists) if (!lists.has(content)) this.#lists.delete(key);
    for (const [chain, content] of this.#byChain) if (!lists.has(content)) this.#byChain.delete(chain);
    const monitors = new Set([...lists].flatMap((list) => list.monitors));
    for (const [key, content] of this.#monitors) if (!monitors.has(content)) this.#monitors.delete(key);
  }

  #compile(rules: readonly RuleInForce[], policy: PolicyInForce): ListContent {
    const monitors = new Set<MonitorContent>();
    const mark = (decision: Decision): number => {
      if (decision.monitored.length === 0) return decisionMark(decision.decided);
      const monitor = this.#monitorOf(decision);
      monitors.add(monitor);
      return KIND.monitor | monitor.number;
    };
    const maps: NftMap[] = [];
    const body: Rule[] = [];
    const { protocols } = serviceTable(rules, policy.byDefault);
    const only = protocols.length === 1 ? protocols[0]!.to : undefined;
    if (only !== undefined && 'decided' in only) {
      body.push([{ kind: 'setMark', value: mark(only) }]);
    } else {
      const map = this.#map('protocols', 'inet_proto', protocols, (to) =>
        'decided' in to ? mark(to) : KIND.ports | to.protocol,
      );
      maps.push(map);
      body.push([{ kind: 'setMarkFromMap', field: 'ctOriginalProtocol', map: map.name }]);
      for (const { to } of protocols) {
        if ('decided' in to) continue;
        const few = fewPortRules(to, mark);
        if (few !== undefined) {
          body.push(...few);
          continue;
        }
        const ports = this.#map(`ports_${to.protocol}`, 'inet_service', to.ports, mark);
        maps.push(ports);
        body.push(
          ...forEachProtocol(to, {
            kind: 'setMarkFromMap',
            field: 'ctOriginalDestinationPort',
            map: ports.name,
          }),
        );
      }
    }
    const text = printChain({ name: 'list', rules: body });
    const name = `list_${hash(`${this.#epoch}\0${text}`)}`;
    const known = this.#byChain.get(name);
    if (known !== undefined) return known;
    const number = this.#listNumbers.next();
    const block = Math.floor(number / LISTS_A_MAP_MAX);
    const own = (map: string) => (block === 0 ? map : `${map}_${block}`);
    const ownBody = body.map((rule) =>
      rule.some(({ kind }) => kind === 'setMarkFromMap')
        ? rule.map((one) => (one.kind === 'setMarkFromMap' ? { ...one, map: own(one.map) } : one))
        : rule,
    );
    const content = {
      number,
      chain: name,
      chains: [{ name, rules: ownBody }],
      maps: maps.map((map) => ({ ...map, name: own(map.name) })),
      monitors: [...monitors],
    };
    this.#byChain.set(name, content);
    return content;
  }

  #map<T>(
    kind: string,
    key: NumberMap['key'],
    intervals: readonly ServiceInterval<T>[],
    mark: (to: T) => number,
  ): NumberMap {
    const elements: MapElement<number>[] = intervals.map(({ first, last, to }) => ({
      first: BigInt(first),
      last: BigInt(last),
      data: mark(to),
    }));
    const text = elements.map(({ first, last, data }) => `${first} ${last} ${data}`).join('\n');
    const name = `${kind}_${hash(`${this.#epoch}\0${text}`)}`;
    return { name, key, data: 'mark', interval: true, elements };
  }

  #monitorOf({ monitored, decided }: Decision): MonitorContent {
    const rules: Rule[] = [
      ...monitored.map(monitorRule),
      [{ kind: 'setMark', value: decisionMark(decided) }],
    ];
    const text = printChain({ name: 'monitor', rules });
    let content = this.#monitors.get(text);
    if (content === undefined) {
      const name = `monitor_${hash(`${this.#epoch}\0${text}`)}`;
      content = { number: this.#monitorNumbers.next(), chain: { name, rules } };
      this.#monitors.set(text, content);
    }
    return content;
  }
}

/** One object for each value: large policies have hundreds of thousands of rules that begin alike. */
function shared(make: (value: number) => Statement): (value: number) => Statement {
  const known = new Map<number, Statement>();
  return (value) => {
    const statement = known.get(value) ?? make(value);
    known.set(value, statement);
    return statement;
  };
}

const isForPortsOf = shared((protocol) => match('mark', KIND.ports | protocol));
const isCarriedBy = shared((protocol) => match('l4proto', protocol));

/** An ICMP error about a connection is judged as the connection is, by its original tuple. */
function forEachProtocol({ protocol }: PortTable, ...statements: readonly Statement[]): Rule[] {
  const begin = isForPortsOf(protocol);
  return [protocol, ...PROTOCOLS_ICMP].map((l4proto) => [begin, isCarriedBy(l4proto)].concat(statements));
}

/** Port ranges beside the one decision of all others up to which they are rules: a map costs more than few rules. */
const PORT_RULES_MAX = 4;

/** The ports of a list as rules, the most frequent decision last; undefined where they are too many. */
function fewPortRules(table: PortTable, mark: (to: Decision) => number): Rule[] | undefined {
  const marked = table.ports.map(({ first, last, to }) => ({ first, last, value: mark(to) }));
  const counts = new Map<number, number>();
  for (const { value } of marked) counts.set(value, (counts.get(value) ?? 0) + 1);
  const [[others]] = [...counts].sort(([, a], [, b]) => b - a) as [[number, number]];
  const ranges = marked.filter(({ value }) => value !== others);
  if (ranges.length > PORT_RULES_MAX) return undefined;
  return [
    ...ranges.flatMap(({ first, last, value }) =>
      forEachProtocol(table, { kind: 'matchOriginalPorts', first, last }, { kind: 'setMark', value }),
    ),
    [isForPortsOf(table.protocol), { kind: 'setMark', value: others }],
  ];
}
