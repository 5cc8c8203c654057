import fc from 'fast-check';
import t from 'tap';
import { readFixture } from '../conntrack/fixture.js';
import { readMessages } from '../netlink/reader.js';
import { Batch, type Transaction } from './batch.js';
import { requestText, sideBySide } from './fixture.js';
import { generationChain } from './program.js';
import { byMark, CHAINS, intervals4, intervals6, MAPS, marks, OURS, RULES } from './requests.js';
import type { Field, Statement } from './statement.js';

const seed = process.env.TEST_SEED === undefined ? Date.now() & 0xffff_ffff : Number(process.env.TEST_SEED);

/** Requests of nft, by the command that made each. */
const fixture = readFixture('nft/fixtures/nft.hex');

/** Every kind and field that a rule can have, so that one which is new fails to compile until it is tried. */
const KINDS: Readonly<Record<Statement['kind'], true>> = {
  match: true,
  matchNot: true,
  matchMasked: true,
  matchOriginalPorts: true,
  matchSomeBits: true,
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
  matchMaskedInSet: true,
  matchInSet: true,
  matchNotInSet: true,
  matchOverRate: true,
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
    'classid verdict hash',
    'inet_proto mark interval',
    'inet_service mark interval',
    'ipv4_addr classid interval',
    'ipv4_addr mark interval',
    'ipv4_addr verdict interval',
    'ipv6_addr classid interval',
    'ipv6_addr mark interval',
    'ipv6_addr verdict interval',
    'mark counter hash',
    'mark limit hash',
    'mark mark hash',
    'mark mark interval',
    'mark verdict hash',
  ]);
  const hooks = Object.values(CHAINS).flatMap(({ base }) => (base === undefined ? [] : [base.hook]));
  t.strictSame(hooks.sort(), ['forward', 'input', 'output', 'postrouting', 'prerouting']);
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
