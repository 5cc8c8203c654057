import fc from 'fast-check';
import t from 'tap';
import { readFixture } from '../conntrack/fixture.js';
import { parseAddress } from '../net/address.js';
import { readMessages } from '../netlink/reader.js';
import { Batch, type Transaction } from './batch.js';
import { requestText, sideBySide } from './fixture.js';
import { printRule } from './print.js';
import { type Chain, generationChain, type NftMap, type NumberMap, type VerdictMap } from './program.js';
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

const seed = process.env.TEST_SEED === undefined ? Date.now() & 0xffff_ffff : Number(process.env.TEST_SEED);

/** Requests of nft, by the command that made each. */
const fixture = readFixture('nft/fixtures/nft.hex');

const fromMap = (field: Field, map: string): Statement => ({ kind: 'setMarkFromMap', field, map });
const byVerdict = (field: Field, map: string): Statement => ({ kind: 'verdictMap', field, map });
const tcp = match('l4proto', 6);

const RULES: Readonly<Record<'filter' | 'nat', readonly Rule[]>> = {
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
    [byVerdict('mark', 'lists')],
    [byVerdict('ctOriginalProtocol', 'protocols')],
    [tcp, byVerdict('ctOriginalDestinationPort', 'ports')],
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

/** Every kind and field that a rule can have, so that one which is new fails to compile until it is tried. */
const KINDS: Readonly<Record<Statement['kind'], true>> = {
  match: true,
  matchNot: true,
  matchMasked: true,
  matchState: true,
  matchNotBareSyn: true,
  matchNoReversePath: true,
  setMark: true,
  setMarkFromMap: true,
  setMarkFromMarkIntervals: true,
  setPriority: true,
  setPriorityFromMap: true,
  orMark: true,
  maskMark: true,
  matchInSet: true,
  counterFromMap: true,
  limitFromMap: true,
  setCtMark: true,
  setCtMarkFromMark: true,
  verdictMap: true,
  counter: true,
  limit: true,
  log: true,
  rejectTcpReset: true,
  rejectAdminProhibited: true,
  masquerade: true,
  snat: true,
  verdict: true,
};
const FIELDS: Readonly<Record<Field, true>> = {
  iifname: true,
  oifname: true,
  mark: true,
  priority: true,
  ctMark: true,
  ctOriginalSource4: true,
  ctOriginalSource6: true,
  ctOriginalDestination4: true,
  ctOriginalDestination6: true,
  ctOriginalProtocol: true,
  ctOriginalDestinationPort: true,
  l4proto: true,
  icmpType: true,
  icmpv6Type: true,
  fibSourceOifname: true,
};

const base = (name: string, base: Chain['base']): Chain => ({ name, ...(base && { base }), rules: [] });
const CHAINS = {
  to: base('to', undefined),
  filter: base('filter', { type: 'filter', hook: 'forward', priority: 0, policy: 'drop' }),
  raw: base('raw', { type: 'filter', hook: 'prerouting', priority: -300, policy: 'accept' }),
  in: base('in', { type: 'filter', hook: 'input', priority: 0, policy: 'accept' }),
  nat: base('nat', { type: 'nat', hook: 'postrouting', priority: 100, policy: 'accept' }),
};

const number = (text: string) => parseAddress(text).value;
const marks = (
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
const intervals4 = { key: 'ipv4_addr', interval: true } as const;
const intervals6 = { key: 'ipv6_addr', interval: true } as const;
const byMark = { key: 'mark', interval: false } as const;
const top4 = number('255.255.255.255');
const top6 = (1n << 128n) - 1n;

/** Each map with the words of nft for what it holds. */
const MAPS: readonly (readonly [NftMap, type: string, elements: string])[] = [
  [
    marks(
      'source4',
      intervals4,
      [0n, number('9.255.255.255'), 0x0100_0000],
      [number('10.0.0.0'), number('10.255.255.255'), 0x0100_0001],
      [number('11.0.0.0'), top4, 0x0100_0000],
    ),
    'type ipv4_addr : mark; flags interval;',
    '0.0.0.0-9.255.255.255 : 0x01000000, 10.0.0.0/8 : 0x01000001, 11.0.0.0-255.255.255.255 : 0x01000000',
  ],
  [
    marks(
      'source6',
      intervals6,
      [0n, number('fd00::') - 1n, 0x0100_0000],
      [number('fd00::'), number('fe00::') - 1n, 0x0100_0001],
      [number('fe00::'), top6, 0x0100_0000],
    ),
    'type ipv6_addr : mark; flags interval;',
    '::-fcff:ffff:ffff:ffff:ffff:ffff:ffff:ffff : 0x01000000, fd00::/8 : 0x01000001, fe00::/7 : 0x01000000',
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
    verdicts(
      'lists',
      byMark,
      [0x0300_0000n, 0x0300_0000n, goto('to')],
      [0x0300_0001n, 0x0300_0001n, jump('to')],
    ),
    'type mark : verdict; size 2;',
    '0x03000000 : goto to, 0x03000001 : jump to',
  ],
  [
    verdicts(
      'protocols',
      { key: 'inet_proto', interval: true },
      [0n, 5n, drop],
      [6n, 6n, goto('to')],
      [7n, 255n, accept],
    ),
    'type inet_proto : verdict; flags interval;',
    '0-5 : drop, 6 : goto to, 7-255 : accept',
  ],
  [
    verdicts(
      'ports',
      { key: 'inet_service', interval: true },
      [0n, 442n, goto('to')],
      [443n, 443n, accept],
      [444n, 65_535n, drop],
    ),
    'type inet_service : verdict; flags interval;',
    '0-442 : goto to, 443 : accept, 444-65535 : drop',
  ],
];
const gone = marks('gone', byMark, [0n, 0n, 0]);

/** What we do, by the command of nft that does the same. */
const OURS: ReadonlyMap<string, (batch: Batch) => unknown> = new Map<string, (batch: Batch) => unknown>([
  ['add table inet sluice', (batch) => batch.addTable()],
  ['add chain inet sluice to', (batch) => batch.addChain(CHAINS.to)],
  ...[CHAINS.filter, CHAINS.raw, CHAINS.in, CHAINS.nat].map((chain) => {
    const { type, hook, priority, policy } = chain.base!;
    const words = `{ type ${type} hook ${hook} priority ${priority}; policy ${policy}; }`;
    return [`add chain inet sluice ${chain.name} ${words}`, (batch: Batch) => batch.addChain(chain)] as const;
  }),
  ['add counter inet sluice dropped_deny', (batch) => batch.addCounter('dropped_deny')],
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
  ['flush chain inet sluice raw', (batch) => batch.flushChain('raw')],
  ['delete chain inet sluice raw', (batch) => batch.deleteChain('raw')],
  ['delete chain inet sluice in', (batch) => batch.deleteChain('in')],
  ['add map inet sluice gone { type mark : mark; size 1; }', (batch) => batch.addMap(gone)],
  ['delete map inet sluice gone', (batch) => batch.deleteMap('gone')],
  ['add counter inet sluice gone', (batch) => batch.addCounter('gone')],
  ['delete counter inet sluice gone', (batch) => batch.deleteCounter('gone')],
  ['delete table inet sluice', (batch) => batch.deleteTable()],
]);

/** The messages of a transaction as bytes, its begin and end too. */
function messagesOf({ bytes }: Transaction): Uint8Array[] {
  const messages: Uint8Array[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at < bytes.length; ) {
    const length = view.getUint32(at, true);
    messages.push(bytes.subarray(at, at + length));
    at += (length + 3) & ~3;
  }
  return messages;
}

t.test('each request says what that of nft says', (t) => {
  t.strictSame([...OURS.keys()].sort(), [...fixture.keys()].sort(), 'the same commands');
  for (const [command, write] of OURS) {
    const batch = new Batch();
    write(batch);
    const [begin, ours, end, ...more] = messagesOf(batch.finish());
    if (begin === undefined || end === undefined || more.length > 0) t.fail(`${command}: not one message`);
    const [left, right] = [requestText(ours!), requestText(fixture.get(command)!)];
    t.ok(left === right, command, {
      diff: `ours on the left, nft's on the right\n${sideBySide(left, right)}`,
    });
  }
  t.end();
});

t.test('every kind of statement, field, key type and hook is tried', (t) => {
  const rules = Object.values(RULES).flat();
  const kinds = new Set(rules.flat().map(({ kind }) => kind));
  t.strictSame([...kinds].sort(), Object.keys(KINDS).sort());
  const fields = rules.flat().flatMap((statement) => ('field' in statement ? [statement.field] : []));
  t.strictSame([...new Set(fields)].sort(), Object.keys(FIELDS).sort());
  const shapes = new Set(
    MAPS.map(([{ key, data, interval }]) => `${key} ${data} ${interval ? 'interval' : 'hash'}`),
  );
  t.strictSame([...shapes].sort(), [
    'inet_proto verdict interval',
    'inet_service verdict interval',
    'ipv4_addr mark interval',
    'ipv6_addr mark interval',
    'mark mark hash',
    'mark verdict hash',
  ]);
  const hooks = Object.values(CHAINS).flatMap(({ base }) => (base === undefined ? [] : [base.hook]));
  t.strictSame(hooks.sort(), ['forward', 'input', 'postrouting', 'prerouting']);
  t.end();
});

t.test('a transaction has a begin and an end, and asks for one acknowledgement', (t) => {
  const batch = new Batch();
  t.equal(batch.isEmpty, true);
  const begin = batch.bytes;
  batch
    .addTable()
    .addChain(generationChain(7))
    .addRules({ ...CHAINS.filter, rules: RULES.filter });
  t.equal(batch.isEmpty, false);
  const added = batch.bytes - begin;
  const transaction = batch.finish();
  t.equal(transaction.bytes.length, added + 2 * begin, 'begin and end are alike');
  const messages = [...readMessages(transaction.bytes)];
  t.strictSame(
    messages.map(({ sequence }) => sequence),
    messages.map((_, index) => index),
    'sequence numbers are indexes of operations',
  );
  const NFNL_MSG_BATCH_BEGIN = 0x10;
  const NFNL_MSG_BATCH_END = 0x11;
  const ofNftables = [0, 0, 0, 10];
  t.match(messages[0], { type: NFNL_MSG_BATCH_BEGIN, flags: 1, payload: Uint8Array.from(ofNftables) });
  t.match(messages.at(-1), { type: NFNL_MSG_BATCH_END, flags: 1, payload: Uint8Array.from(ofNftables) });
  const NLM_F_ACK = 4;
  const asking = messages.filter(({ flags }) => (flags & NLM_F_ACK) !== 0).map(({ sequence }) => sequence);
  t.strictSame(asking, [transaction.lastSequence]);
  t.equal(transaction.lastSequence, messages.length - 2);
  t.equal(transaction.operations.length, messages.length - 1);
  t.strictSame(transaction.operations.slice(0, 4), [
    'begin',
    'add table',
    'add chain "generation_7"',
    'add rule to "filter"',
  ]);
  t.end();
});

t.test(`elements are split over messages that the kernel can take (TEST_SEED=${seed})`, (t) => {
  const ATTRIBUTE_BYTES_MAX = 65_535;
  const shapes = [
    { shape: intervals6, step: 1n << 100n },
    { shape: intervals4, step: 1n << 10n },
    { shape: byMark, step: 1n },
  ] as const;
  const sizes = fc.record({ which: fc.constantFrom(...shapes), count: fc.integer({ min: 0, max: 5_000 }) });
  let split = 0;
  fc.assert(
    fc.property(sizes, ({ which: { shape, step }, count }) => {
      const width = shape.interval ? step - 1n : 0n;
      const map = marks(
        'm',
        shape,
        ...Array.from(
          { length: count },
          (_, index) => [BigInt(index) * step, BigInt(index) * step + width, index] as const,
        ),
      );
      const batch = new Batch();
      const froms: number[] = [];
      for (let next = 0; next < count; ) {
        froms.push(next);
        next = batch.addElements(map, next);
      }
      if (froms.length > 1) split++;
      const whole = messagesOf(batch.finish())
        .slice(1, -1)
        .map((message) => {
          if (message.length > ATTRIBUTE_BYTES_MAX) throw new Error(`${message.length} bytes`);
          return requestText(message)
            .split('\n')
            .filter((line) => /^ +-$/.test(line)).length;
        });
      const entries = whole.reduce((sum, entries) => sum + entries, 0);
      return entries === (shape.interval ? 2 : 1) * count && whole.length === froms.length;
    }),
    { seed, numRuns: 30 },
  );
  t.ok(split > 0, `${split} maps were split`);
  t.end();
});
