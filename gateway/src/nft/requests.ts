/** For tests: what the product asks of the kernel, each beside the command of nft that asks the same. */
import { parseAddress } from '../net/address.js';
import type { Family } from '../net/family.js';
import { wordsOf } from '../net/words.js';
import type { Batch } from './batch.js';
import { Intervals } from './intervals.js';
import { printRule } from './print.js';
import type {
  Chain,
  IntervalMap,
  KeySet,
  LiveSet,
  NamedLimit,
  NftMap,
  NumberMap,
  ObjectMap,
  VerdictMap,
} from './program.js';
import {
  accept,
  counter,
  drop,
  type Field,
  goto,
  jump,
  match,
  type Rule,
  type Statement,
} from './statement.js';

const fromMap = (field: Field, map: string): Statement => ({ kind: 'setMarkFromMap', field, map });
const byVerdict = (field: Field, map: string): Statement => ({ kind: 'verdictMap', field, map });
const overRate = (set: string, ...fields: [Field] | ['mark', Field]): Statement => ({
  ...{ kind: 'matchOverRate', fields, set, perSecond: 1000, burstPackets: 20 },
});
const tcp = match('l4proto', 6);

export const RULES: Readonly<Record<'filter' | 'nat', readonly Rule[]>> = {
  filter: [
    [match('iifname', 'lam0'), accept],
    [match('oifname', 'a23456789012345'), drop],
    [match('mark', 0x8000_0001), goto('to')],
    [match('ctMark', 0x4001), jump('to')],
    [match('icmpType', 8)],
    [match('icmpv6Type', 135)],
    [match('fibSourceOifname', 'lam1')],
    [{ kind: 'matchMasked', field: 'ctMark', mask: 0xffff_c000, value: 0x4000 }],
    [{ kind: 'matchMasked', field: 'mark', mask: 0x8000_0000, value: 0x8000_0000 }],
    [{ kind: 'matchSomeBits', field: 'ctMark', mask: 0xffff_c000 }],
    [tcp, { kind: 'matchOriginalPorts', first: 443, last: 443 }],
    [tcp, { kind: 'matchOriginalPorts', first: 8000, last: 8100 }],
    [{ kind: 'matchState', states: ['invalid'] }],
    [{ kind: 'matchState', states: ['established', 'related', 'new', 'untracked'] }],
    [tcp, { kind: 'matchNotBareSyn' }],
    [{ kind: 'matchNoReversePath' }],
    [{ kind: 'setMark', value: 0x0102_0304 }],
    [fromMap('ctOriginalSource4', 'source4')],
    [fromMap('ctOriginalSource6', 'source6')],
    [fromMap('ctOriginalDestination4', 'source4')],
    [fromMap('ctOriginalDestination6', 'source6')],
    [fromMap('mark', 'to_1')],
    [{ kind: 'orMark', value: 0x8000_0000 }],
    [{ kind: 'setCtMarkFromMark', mask: 0x3fff, value: 0x4000 }],
    [{ kind: 'setMarkFromMarkIntervals', map: 'to_2' }],
    [{ kind: 'setPriority', value: 0 }],
    [{ kind: 'setPriority', value: 0x12_0034 }],
    [{ kind: 'setPriorityFromMap', field: 'ctOriginalSource4', map: 'classes4' }],
    [{ kind: 'setPriorityFromMap', field: 'ctOriginalSource6', map: 'classes6' }],
    [{ kind: 'maskMark', mask: 0x3fff, value: 0x4000 }],
    [{ kind: 'matchMaskedInSet', field: 'ctMark', mask: 0xffff_c000, set: 'judged_1' }, accept],
    [{ kind: 'matchInSet', field: 'ctOriginalSource4', set: 'over4' }],
    [{ kind: 'matchNotInSet', field: 'ctOriginalSource6', set: 'rates6' }],
    [overRate('rates6', 'ctOriginalSource6')],
    [overRate('pairs6', 'mark', 'ctOriginalSource6')],
    [{ kind: 'counterFromMap', map: 'decided' }],
    [{ kind: 'limitFromMap', map: 'log_limits' }],
    [byVerdict('ctOriginalSource4', 'shards4')],
    [byVerdict('ctOriginalDestination6', 'shards6')],
    [byVerdict('priority', 'sources')],
    [byVerdict('mark', 'lists')],
    [fromMap('ctOriginalProtocol', 'protocols')],
    [tcp, fromMap('ctOriginalDestinationPort', 'ports')],
    [counter('dropped_deny')],
    [{ kind: 'limit', perSecond: 1000, burstPackets: 20 }],
    [{ kind: 'log', prefix: 'deny', group: 1, snaplenBytes: 128 }],
    [tcp, { kind: 'rejectTcpReset' }],
    [{ kind: 'rejectAdminProhibited' }],
    [
      { kind: 'matchState', states: ['related'] },
      { kind: 'matchNot', field: 'l4proto', value: 1 },
      { kind: 'matchNot', field: 'l4proto', value: 58 },
      { kind: 'setCtMark', value: 0 },
    ],
  ],
  nat: [
    [{ kind: 'masquerade' }],
    [{ kind: 'snat', to: parseAddress('198.18.0.1') }],
    [{ kind: 'snat', to: parseAddress('fd00::1') }],
  ],
};

const base = (name: string, base: Chain['base']): Chain => ({ name, ...(base && { base }), rules: [] });
export const CHAINS = {
  to: base('to', undefined),
  filter: base('filter', { type: 'filter', hook: 'forward', priority: 0, policy: 'drop' }),
  raw: base('raw', { type: 'filter', hook: 'prerouting', priority: -300, policy: 'accept' }),
  in: base('in', { type: 'filter', hook: 'input', priority: 0, policy: 'accept' }),
  out: base('out', { type: 'filter', hook: 'output', priority: 0, policy: 'accept' }),
  nat: base('nat', { type: 'nat', hook: 'postrouting', priority: 100, policy: 'accept' }),
};

const number = (text: string) => parseAddress(text).value;
export const marks = (
  name: string,
  shape: Pick<NumberMap, 'key' | 'interval'>,
  ...elements: readonly (readonly [bigint, bigint, number])[]
): NumberMap => ({
  name,
  ...shape,
  data: 'mark',
  elements: elements.map(([first, last, data]) => ({ first, last, data })),
});
const verdicts = (
  name: string,
  shape: Pick<VerdictMap, 'key' | 'interval'>,
  ...elements: readonly (readonly [bigint, bigint, Statement])[]
): VerdictMap => ({
  name,
  ...shape,
  data: 'verdict',
  elements: elements.map(([first, last, statement]) => ({
    first,
    last,
    data: (statement as Extract<Statement, { kind: 'verdict' }>).verdict,
  })),
});
/** The same in typed arrays, as address maps have it. */
const packed = ({ name, elements }: NumberMap, family: Family, data: IntervalMap['data']): IntervalMap => ({
  name,
  key: `ipv${family}_addr`,
  data,
  interval: true,
  elements: new Intervals(
    Uint32Array.from(elements.flatMap(({ first: value }) => [...wordsOf({ family, value })])),
    Uint32Array.from(elements, ({ data }) => data),
    wordsOf({ family, value: elements.at(-1)!.last }),
  ),
});
const objects = (
  name: string,
  data: ObjectMap['data'],
  ...elements: readonly (readonly [bigint, string])[]
): ObjectMap => ({
  name,
  ...byMark,
  grows: true,
  data,
  elements: elements.map(([key, data]) => ({ first: key, last: key, data })),
});
export const intervals4 = { key: 'ipv4_addr', interval: true } as const;
export const intervals6 = { key: 'ipv6_addr', interval: true } as const;
export const byMark = { key: 'mark', interval: false } as const;
const top4 = number('255.255.255.255');
const top6 = (1n << 128n) - 1n;

/** Each map with the words of nft for what it holds. */
export const MAPS: readonly (readonly [NftMap, type: string, elements: string])[] = [
  [
    packed(
      marks(
        'source4',
        intervals4,
        [0n, number('9.255.255.255'), 0x0100_0000],
        [number('10.0.0.0'), number('10.255.255.255'), 0x0100_0001],
        [number('11.0.0.0'), top4, 0x0100_0000],
      ),
      4,
      'mark',
    ),
    'type ipv4_addr : mark; flags interval;',
    '0.0.0.0-9.255.255.255 : 0x01000000, 10.0.0.0/8 : 0x01000001, 11.0.0.0-255.255.255.255 : 0x01000000',
  ],
  [
    packed(
      marks(
        'source6',
        intervals6,
        [0n, number('fd00::') - 1n, 0x0100_0000],
        [number('fd00::'), number('fe00::') - 1n, 0x0100_0001],
        [number('fe00::'), top6, 0x0100_0000],
      ),
      6,
      'mark',
    ),
    'type ipv6_addr : mark; flags interval;',
    '::-fcff:ffff:ffff:ffff:ffff:ffff:ffff:ffff : 0x01000000, fd00::/8 : 0x01000001, fe00::/7 : 0x01000000',
  ],
  [
    packed(
      marks(
        'classes4',
        intervals4,
        [0n, number('9.255.255.255'), 1],
        [number('10.0.0.0'), number('10.0.0.255'), 0x12_0034],
        [number('10.0.1.0'), number('127.255.255.255'), 1],
      ),
      4,
      'classid',
    ),
    'type ipv4_addr : classid; flags interval;',
    '0.0.0.0-9.255.255.255 : 0:1, 10.0.0.0/24 : 12:34, 10.0.1.0-127.255.255.255 : 0:1',
  ],
  [
    packed(marks('classes6', intervals6, [0n, top6, 1]), 6, 'classid'),
    'type ipv6_addr : classid; flags interval;',
    '::/0 : 0:1',
  ],
  [
    marks('whole4', intervals4, [0n, top4, 0x0200_0000]),
    'type ipv4_addr : mark; flags interval;',
    '0.0.0.0/0 : 0x02000000',
  ],
  [
    marks('whole6', intervals6, [0n, top6, 0x0200_0000]),
    'type ipv6_addr : mark; flags interval;',
    '::/0 : 0x02000000',
  ],
  [
    verdicts(
      'shards4',
      intervals4,
      [0n, number('127.255.255.255'), jump('to')],
      [1n << 31n, top4, jump('to')],
    ),
    'type ipv4_addr : verdict; flags interval;',
    '0.0.0.0/1 : jump to, 128.0.0.0/1 : jump to',
  ],
  [
    verdicts('shards6', intervals6, [0n, top6, jump('to')]),
    'type ipv6_addr : verdict; flags interval;',
    '::/0 : jump to',
  ],
  [
    marks(
      'to_1',
      byMark,
      [0x0200_0000n, 0x0200_0000n, 0x0300_0001],
      [0x0200_0001n, 0x0200_0001n, 0x0300_0000],
    ),
    'type mark : mark; size 2;',
    '0x02000000 : 0x03000001, 0x02000001 : 0x03000000',
  ],
  [
    marks(
      'to_2',
      { key: 'mark', interval: true },
      [0n, 0x0200_0001n, 0x0300_0001],
      [0x0200_0002n, 0x02ff_ffffn, 0x0300_0002],
    ),
    'type mark : mark; flags interval;',
    '0x00000000-0x02000001 : 0x03000001, 0x02000002-0x02ffffff : 0x03000002',
  ],
  [
    verdicts(
      'sources',
      { key: 'classid', interval: false },
      [1n, 1n, jump('to')],
      [0x12_0034n, 0x12_0034n, jump('to')],
    ),
    'type classid : verdict; size 2;',
    '0:1 : jump to, 12:34 : jump to',
  ],
  [
    {
      ...verdicts(
        'lists',
        byMark,
        [0x0300_0000n, 0x0300_0000n, goto('to')],
        [0x0300_0001n, 0x0300_0001n, jump('to')],
      ),
      grows: true,
    },
    'type mark : verdict;',
    '0x03000000 : goto to, 0x03000001 : jump to',
  ],
  [
    objects('decided', 'counter', [0x0400_4001n, 'dropped_deny'], [0x0400_8000n, 'decided_x']),
    'type mark : counter;',
    '0x04004001 : "dropped_deny", 0x04008000 : "decided_x"',
  ],
  [objects('log_limits', 'limit', [0x0401_8000n, 'log_x']), 'type mark : limit;', '0x04018000 : "log_x"'],
  [
    marks(
      'protocols',
      { key: 'inet_proto', interval: true },
      [0n, 5n, 0x0400_8000],
      [6n, 6n, 0x0600_0006],
      [7n, 255n, 0x0400_4001],
    ),
    'type inet_proto : mark; flags interval;',
    '0-5 : 0x04008000, 6 : 0x06000006, 7-255 : 0x04004001',
  ],
  [
    marks(
      'ports',
      { key: 'inet_service', interval: true },
      [0n, 442n, 0x0400_8000],
      [443n, 443n, 0x0400_4001],
      [444n, 65_535n, 0x0400_8000],
    ),
    'type inet_service : mark; flags interval;',
    '0-442 : 0x04008000, 443 : 0x04004001, 444-65535 : 0x04008000',
  ],
];
const JUDGED: KeySet = {
  name: 'judged_1',
  key: 'mark',
  data: 'none',
  interval: false,
  elements: [{ first: 0x4000n, last: 0x4000n, data: undefined }],
};
const OVER: LiveSet = { name: 'over4', key: ['ipv4_addr'], elementsMax: 10 };
const RATES: LiveSet = { name: 'rates6', key: ['ipv6_addr'], elementsMax: 65_535, idleSeconds: 60 };
const PAIRS: LiveSet = { ...RATES, name: 'pairs6', key: ['mark', 'ipv6_addr'] };
const GROWING = { ...verdicts('lists', byMark, [0x0300_0001n, 0x0300_0001n, jump('to')]), grows: true };
const LIMIT: NamedLimit = { name: 'log_x', perSecond: 100, burstPackets: 50 };
const classes4 = MAPS.find(([{ name }]) => name === 'classes4')![0];
const removed = { first: number('10.0.0.0'), last: number('10.0.0.255'), data: 0x12_0034 };
const added = { first: number('200.0.0.0'), last: number('200.0.0.255'), data: 5 };
const gone = marks('gone', byMark, [0n, 0n, 0]);

/** What we do, by the command of nft that does the same. */
export const OURS: ReadonlyMap<string, (batch: Batch) => unknown> = new Map<
  string,
  (batch: Batch) => unknown
>([
  ['add table inet sluice', (batch) => batch.addTable()],
  ['add chain inet sluice to', (batch) => batch.addChain(CHAINS.to)],
  ...[CHAINS.filter, CHAINS.raw, CHAINS.in, CHAINS.out, CHAINS.nat].map((chain) => {
    const { type, hook, priority, policy } = chain.base!;
    const words = `{ type ${type} hook ${hook} priority ${priority}; policy ${policy}; }`;
    return [`add chain inet sluice ${chain.name} ${words}`, (batch: Batch) => batch.addChain(chain)] as const;
  }),
  ['add counter inet sluice dropped_deny', (batch) => batch.addCounter('dropped_deny')],
  ['add counter inet sluice decided_x', (batch) => batch.addCounter('decided_x')],
  ['add limit inet sluice log_x { rate 100/second burst 50 packets; }', (batch) => batch.addLimit(LIMIT)],
  ['add set inet sluice judged_1 { type mark; size 1; }', (batch) => batch.addMap(JUDGED)],
  ['add set inet sluice over4 { type ipv4_addr; size 10; }', (batch) => batch.addLiveSet(OVER)],
  ...[RATES, PAIRS].map((set) => {
    const words = `{ type ${set.key.join(' . ')}; size 65535; flags dynamic,timeout; timeout 60s; }`;
    return [`add set inet sluice ${set.name} ${words}`, (batch: Batch) => batch.addLiveSet(set)] as const;
  }),
  ['add element inet sluice judged_1 { 0x00004000 }', (batch) => batch.addElements(JUDGED)],
  ...MAPS.flatMap(
    ([map, type, elements]) =>
      [
        [`add map inet sluice ${map.name} { ${type} }`, (batch: Batch) => batch.addMap(map)],
        [`add element inet sluice ${map.name} { ${elements} }`, (batch: Batch) => batch.addElements(map)],
      ] as const,
  ),
  ...Object.entries(RULES).flatMap(([chain, rules]) =>
    rules.map(
      (rule) =>
        [
          `add rule inet sluice ${chain} ${printRule(rule)}`,
          (batch: Batch) => batch.addRule(chain, rule),
        ] as const,
    ),
  ),
  [
    'delete element inet sluice judged_1 { 0x00004000 }',
    (batch) => batch.deleteElements(JUDGED, JUDGED.elements),
  ],
  [
    'delete element inet sluice classes4 { 10.0.0.0/24 }',
    (batch) => batch.deleteElements(classes4, [removed]),
  ],
  [
    'add element inet sluice classes4 { 200.0.0.0/24 : 0:5 }',
    (batch) => batch.addSomeElements(classes4, [added]),
  ],
  [
    'delete element inet sluice lists { 0x03000001 }',
    (batch) => batch.deleteElements(GROWING, GROWING.elements),
  ],
  ['flush set inet sluice over4', (batch) => batch.flushSet('over4')],
  ['flush chain inet sluice raw', (batch) => batch.flushChain('raw')],
  ['delete chain inet sluice raw', (batch) => batch.deleteChain('raw')],
  ['delete chain inet sluice in', (batch) => batch.deleteChain('in')],
  ['add map inet sluice gone { type mark : mark; size 1; }', (batch) => batch.addMap(gone)],
  ['delete map inet sluice gone', (batch) => batch.deleteMap('gone')],
  ['add counter inet sluice gone', (batch) => batch.addCounter('gone')],
  ['delete counter inet sluice gone', (batch) => batch.deleteCounter('gone')],
  [
    'add limit inet sluice gone_limit { rate 100/second burst 50 packets; }',
    (batch) => batch.addLimit({ ...LIMIT, name: 'gone_limit' }),
  ],
  ['delete limit inet sluice gone_limit', (batch) => batch.deleteLimit('gone_limit')],
  ['delete table inet sluice', (batch) => batch.deleteTable()],
]);
