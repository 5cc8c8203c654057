import { printAddress } from '../net/address.js';
import { BITS } from '../net/family.js';
import type { Chain, ElementData, KeyType, LiveSet, MapElement, NftMap, Program } from './program.js';
import { generationChain, TABLE } from './program.js';
import type { Field, Rule, Statement, StatementOf, Verdict } from './statement.js';

const hex = (value: number) => `0x${value.toString(16).padStart(8, '0')}`;
/** A class id as nft writes it. */
const classId = (value: number) =>
  value === 0 ? 'none' : `${(value >>> 16).toString(16)}:${(value & 0xffff).toString(16)}`;
const masked = (mask: number) => (mask === 0xffffffff ? 'meta mark' : `meta mark & ${hex(mask)}`);

const FIELD_TEXT: Readonly<Record<Field, string>> = {
  iifname: 'iifname',
  oifname: 'oifname',
  mark: 'meta mark',
  priority: 'meta priority',
  ctMark: 'ct mark',
  ctOriginalSource4: 'ct original ip saddr',
  ctOriginalSource6: 'ct original ip6 saddr',
  ctOriginalDestination4: 'ct original ip daddr',
  ctOriginalDestination6: 'ct original ip6 daddr',
  ctOriginalProtocol: 'ct original protocol',
  ctOriginalDestinationPort: 'ct original proto-dst',
  l4proto: 'meta l4proto',
  icmpType: 'icmp type',
  icmpv6Type: 'icmpv6 type',
  fibSourceOifname: 'fib saddr oifname',
};

function printVerdict(verdict: Verdict): string {
  return 'chain' in verdict ? `${verdict.kind} ${verdict.chain}` : verdict.kind;
}

function printValue(field: Field, value: string | number): string {
  if (typeof value === 'string') return `"${value}"`;
  return field === 'mark' || field === 'ctMark' ? hex(value) : String(value);
}

const STATEMENT_TEXT: {
  readonly [Kind in Statement['kind']]: (statement: StatementOf<Kind>) => string;
} = {
  match: ({ field, value }) => `${FIELD_TEXT[field]} ${printValue(field, value)}`,
  matchNot: ({ field, value }) => `${FIELD_TEXT[field]} != ${printValue(field, value)}`,
  matchMasked: ({ field, mask, value }) => `${FIELD_TEXT[field]} & ${hex(mask)} == ${hex(value)}`,
  matchOriginalPorts: ({ first, last }) =>
    `${FIELD_TEXT.ctOriginalDestinationPort} ${first === last ? first : `${first}-${last}`}`,
  matchSomeBits: ({ field, mask }) => `${FIELD_TEXT[field]} & ${hex(mask)} != ${hex(0)}`,
  matchState: ({ states }) => `ct state ${states.join(',')}`,
  matchNotBareSyn: () => 'tcp flags & (fin | syn | rst | ack) != syn',
  matchNoReversePath: () => 'fib saddr . mark . iif oif missing',
  setMark: ({ value }) => `meta mark set ${hex(value)}`,
  setMarkFromMap: ({ field, map }) => `meta mark set ${FIELD_TEXT[field]} map @${map}`,
  setMarkFromMarkIntervals: ({ map }) => `meta mark set meta mark map @${map}`,
  setPriority: ({ value }) => `meta priority set ${classId(value)}`,
  setPriorityFromMap: ({ field, map }) => `meta priority set ${FIELD_TEXT[field]} map @${map}`,
  orMark: ({ value }) => `meta mark set meta mark | ${hex(value)}`,
  setCtMark: ({ value }) => `ct mark set ${hex(value)}`,
  setCtMarkFromMark: ({ mask, value }) => `ct mark set ${masked(mask)} | ${hex(value)}`,
  maskMark: ({ mask, value }) => `meta mark set ${masked(mask)} | ${hex(value)}`,
  matchMaskedInSet: ({ field, mask, set }) => `${FIELD_TEXT[field]} & ${hex(mask)} == @${set}`,
  matchInSet: ({ field, set }) => `${FIELD_TEXT[field]} @${set}`,
  matchNotInSet: ({ field, set }) => `${FIELD_TEXT[field]} != @${set}`,
  matchOverRate: ({ fields, set, perSecond, burstPackets }) =>
    `update @${set} { ${fields.map((field) => FIELD_TEXT[field]).join(' . ')} limit rate over ${perSecond}/second burst ${burstPackets} packets }`,
  verdictMap: ({ field, map }) => `${FIELD_TEXT[field]} vmap @${map}`,
  counter: ({ name }) => `counter name "${name}"`,
  counterFromMap: ({ map }) => `counter name meta mark map @${map}`,
  limitFromMap: ({ map }) => `limit name meta mark map @${map}`,
  limit: ({ perSecond, burstPackets }) => `limit rate ${perSecond}/second burst ${burstPackets} packets`,
  log: ({ prefix, group, snaplenBytes }) => `log prefix "${prefix}" group ${group} snaplen ${snaplenBytes}`,
  rejectTcpReset: () => 'reject with tcp reset',
  rejectAdminProhibited: () => 'reject with icmpx admin-prohibited',
  masquerade: () => 'masquerade',
  snat: ({ to }) => `snat ${to.family === 4 ? 'ip' : 'ip6'} to ${printAddress(to)}`,
  verdict: ({ verdict }) => printVerdict(verdict),
};

/** One statement as nft writes it. */
export function printStatement(statement: Statement): string {
  return (STATEMENT_TEXT[statement.kind] as (statement: Statement) => string)(statement);
}

/** One rule as nft writes it. */
export function printRule(rule: Rule): string {
  return rule.map(printStatement).join(' ');
}

function printKey(type: KeyType, value: bigint): string {
  switch (type) {
    case 'ipv4_addr':
      return printAddress({ family: 4, value });
    case 'ipv6_addr':
      return printAddress({ family: 6, value });
    case 'mark':
      return hex(Number(value));
    case 'classid':
      return classId(Number(value));
    case 'inet_proto':
    case 'inet_service':
      return String(value);
    default:
      return type satisfies never;
  }
}

/** As nft does: a CIDR where the interval is one, else first-last. */
function printInterval(type: KeyType, { first, last }: MapElement<unknown>): string {
  if (first === last) return printKey(type, first);
  const bits = type === 'ipv4_addr' ? BITS[4] : type === 'ipv6_addr' ? BITS[6] : undefined;
  const size = last - first + 1n;
  if (bits !== undefined && (size & (size - 1n)) === 0n && first % size === 0n) {
    return `${printKey(type, first)}/${bits - (size.toString(2).length - 1)}`;
  }
  return `${printKey(type, first)}-${printKey(type, last)}`;
}

const DATA_TEXT: Readonly<Record<NftMap['data'], (data: ElementData) => string>> = {
  mark: (data) => ` : ${hex(data as number)}`,
  classid: (data) => ` : ${classId(data as number)}`,
  verdict: (data) => ` : ${printVerdict(data as Verdict)}`,
  counter: (data) => ` : "${data as string}"`,
  limit: (data) => ` : "${data as string}"`,
  none: () => '',
};

function printMap(map: NftMap): string {
  const print = DATA_TEXT[map.data];
  const elements: string[] = [];
  for (const element of map.elements) {
    elements.push(`${printInterval(map.key, element)}${print(element.data)}`);
  }
  return [
    map.data === 'none' ? `  set ${map.name} {` : `  map ${map.name} {`,
    map.data === 'none' ? `    type ${map.key}` : `    type ${map.key} : ${map.data}`,
    ...(map.interval ? ['    flags interval'] : []),
    ...(map.interval || ('grows' in map && map.grows) ? [] : [`    size ${map.elements.length}`]),
    ...(elements.length === 0 ? [] : [`    elements = { ${elements.join(',\n      ')} }`]),
    '  }',
  ].join('\n');
}

function printLiveSet({ name, key, elementsMax, idleSeconds }: LiveSet): string {
  return [
    `  set ${name} {`,
    `    type ${key.join(' . ')}`,
    `    size ${elementsMax}`,
    ...(idleSeconds === undefined ? [] : ['    flags dynamic,timeout', `    timeout ${idleSeconds}s`]),
    '  }',
  ].join('\n');
}

/** One chain as nft writes it. */
export function printChain(chain: Chain): string {
  const head =
    chain.base === undefined
      ? []
      : [
          `    type ${chain.base.type} hook ${chain.base.hook} priority ${chain.base.priority}; policy ${chain.base.policy};`,
        ];
  return [
    `  chain ${chain.name} {`,
    ...head,
    ...chain.rules.map((rule) => `    ${printRule(rule)}`),
    '  }',
  ].join('\n');
}

/** The program as an nft file, its objects in the order in which they are loaded: what `sluice compile` shows, and what the independent judge loads in tests. */
export function printProgram(program: Program): string {
  const { base, rest } = Object.groupBy(program.fixed, (chain) =>
    chain.base === undefined ? 'rest' : 'base',
  );
  const chains = [...(rest ?? []), ...program.chains, ...(base ?? []), generationChain(program.generation)];
  return [
    `table inet ${TABLE} {`,
    ...program.counters.map((name) => `  counter ${name} {\n  }`),
    ...program.limits.map(
      ({ name, perSecond, burstPackets }) =>
        `  limit ${name} {\n    rate ${perSecond}/second burst ${burstPackets} packets\n  }`,
    ),
    ...program.maps.map(printMap),
    ...program.liveSets.map(printLiveSet),
    ...chains.map(printChain),
    '}',
    '',
  ].join('\n');
}
