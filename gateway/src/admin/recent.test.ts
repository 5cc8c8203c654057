import t from 'tap';
import type { ConntrackEvent } from '../conntrack/decode.js';
import type { FlowRecord } from '../flows/record.js';
import { type Address, parseAddress, printAddress } from '../net/address.js';
import { encodeMark } from '../nft/mark.js';
import { Busiest } from './busiest.js';
import { QuestionError } from './question.js';
import { RECENT_RECORDS_MAX, RecentFlows } from './recent-flows.js';

const ARN = 'arn:aws:lambda:us-east-1:111122223333:function:worker';

function record(fields: Partial<FlowRecord>): FlowRecord {
  return {
    ...{ schema: 'sluice.flow/1', time: '2026-01-02T03:04:05.678Z', gateway: 'gw-a', event: 'deny' },
    ...{ verdict: 'DENY', enforced: true, protocol: 'TCP', rule: { name: 'no' } },
    src: { ip: '10.0.1.10', port: 40_000, functions: [ARN], groups: ['workers'] },
    dst: { ip: '203.0.113.10', port: 443, groups: ['storage'] },
    ...fields,
  };
}

const RECORDS: Readonly<Record<string, FlowRecord>> = {
  denied: record({}),
  opened: record({ event: 'open', verdict: 'PERMIT', rule: { name: 'yes', priority: 1 } }),
  revoked: record({ event: 'revoke', permittedBy: { name: 'yes' } }),
  sixth: record({ dst: { ip: '2606:2800::10', port: 80, groups: [] } }),
  stranger: record({ src: { ip: '10.0.2.20', functions: [], groups: [] }, verdict: 'REJECT' }),
  unread: { ...record({}), src: undefined, dst: undefined },
  lost: record({ event: 'loss', loss: { source: 'nflog' }, verdict: undefined, rule: undefined }),
};

/** Filters, and the records that they let through. */
const FILTERS: readonly (readonly [question: Record<string, string>, names: readonly string[]])[] = [
  [{}, Object.keys(RECORDS)],
  [{ function: 'worker' }, ['denied', 'opened', 'revoked', 'sixth', 'lost']],
  [{ function: ARN }, ['denied', 'opened', 'revoked', 'sixth', 'lost']],
  [{ function: 'work' }, ['lost']],
  [{ group: 'storage' }, ['denied', 'opened', 'revoked', 'stranger', 'lost']],
  [{ rule: 'yes' }, ['opened', 'revoked', 'lost']],
  [{ verdict: 'reject' }, ['stranger', 'lost']],
  [{ cidr: '10.0.2.0/24' }, ['stranger', 'lost']],
  [{ cidr: '2606:2800::/32' }, ['sixth', 'lost']],
  [{ port: '80' }, ['sixth', 'lost']],
  [{ verdict: 'DENY', port: '443', rule: 'no' }, ['denied', 'revoked', 'lost']],
];

t.test('flows are filtered where they are kept', async (t) => {
  const recent = new RecentFlows();
  for (const one of Object.values(RECORDS)) recent.add(one);
  const names = new Map(Object.entries(RECORDS).map(([name, one]) => [one, name]));
  for (const [question, expected] of FILTERS) {
    const { records, next, missed } = recent.answer(question);
    t.strictSame(
      records.map((one) => names.get(one)),
      expected,
      JSON.stringify(question),
    );
    t.strictSame([next, missed], [7, 0]);
  }
  const refused: readonly (readonly [Record<string, string>, RegExp])[] = [
    [{ verdict: 'DROP' }, /^Cannot show flows: verdict "DROP" is not PERMIT, DENY or REJECT$/],
    [{ port: '080' }, /^Cannot show flows: port "080" is not a number from 0 to 65535$/],
    [{ cidr: '10.0.0.1/8' }, /^Cannot show flows: .*host bits set/],
    [{ since: 'x' }, /^Cannot show flows: /],
    [{ functoin: 'worker' }, /functoin/],
  ];
  for (const [question, message] of refused) {
    t.throws(() => recent.answer(question), { name: QuestionError.prototype.name, message });
  }
});

t.test('a follower gets every record once, and is told of those it came too late for', async (t) => {
  const recent = new RecentFlows();
  const at = (index: number) => record({ generation: index + 1 });
  for (let index = 0; index < 10; index++) recent.add(at(index));
  const first = recent.answer({});
  t.equal(first.records.length, 10);
  recent.add(at(10));
  const second = recent.answer({ since: String(first.next) });
  t.strictSame([second.records.map(({ generation }) => generation), second.missed], [[11], 0]);
  for (let index = 11; index < 11 + RECENT_RECORDS_MAX + 5; index++) recent.add(at(index));
  const third = recent.answer({ since: String(second.next), rule: 'no' });
  t.equal(third.missed, 5);
  t.equal(third.records.length, RECENT_RECORDS_MAX);
  t.equal(third.records[0]!.generation, 17, 'oldest first');
  t.equal(third.records.at(-1)!.generation, 11 + RECENT_RECORDS_MAX + 5);
  t.equal(
    recent.answer({ since: '999999' }).records.length,
    RECENT_RECORDS_MAX,
    'of a gateway before this one',
  );
});

const counters = (packets: number) => ({
  original: { packets: packets, bytes: packets * 100 },
  reply: { packets: packets, bytes: packets * 10 },
});

function event(from: string, to: string, kind: ConntrackEvent['kind'], packets = 0): ConntrackEvent {
  const [src, dst] = [parseAddress(from), parseAddress(to)];
  const original = { src, dst, protocol: 6, srcPort: 40_000, dstPort: 443, icmp: undefined };
  return {
    ...{ kind, id: 1, status: 0, zone: 0, family: 4, protocol: 6, original, reply: original },
    mark: encodeMark({ generation: 3, rule: 1 }),
    counters: kind === 'destroy' ? counters(packets) : undefined,
    ...{ startMs: undefined, stopMs: undefined, eventMs: undefined, timeoutSeconds: 0, tcpState: undefined },
  };
}

t.test('the busiest of the last minute', async (t) => {
  let nowMs = 0;
  const owner = { arn: ARN, accountId: '1', region: 'r', identity: 'shared' };
  const isWorker = (source: Address) => printAddress(source) === '10.0.1.10';
  const busiest = new Busiest(
    () => nowMs,
    (source) => (isWorker(source) ? [owner, owner] : []),
  );
  busiest.event(event('10.0.1.10', '203.0.113.10', 'new'));
  busiest.event(event('10.0.1.10', '203.0.113.10', 'destroy', 5));
  busiest.event(event('10.0.9.9', '203.0.113.20', 'new'));
  busiest.event({ ...event('10.0.9.9', '203.0.113.20', 'new'), mark: 0 });
  busiest.event(event('10.0.1.10', '203.0.113.10', 'update'));
  busiest.record(RECORDS.denied!);
  busiest.record(record({ suppressed: 3 }));
  busiest.record(record({ enforced: false }));
  busiest.record(RECORDS.opened!);
  busiest.record(RECORDS.lost!);
  const destination = { ip: '203.0.113.10', port: 443, protocol: 'TCP' };
  t.strictSame(busiest.answer({}), {
    seconds: 60,
    functions: [
      { label: { source: ARN, sharedBy: 2 }, connections: 1, bytes: { out: 500, in: 50 } },
      { label: { source: '10.0.9.9', sharedBy: 0 }, connections: 1, bytes: { out: 0, in: 0 } },
    ],
    destinations: [
      { label: destination, connections: 1, bytes: { out: 500, in: 50 } },
      { label: { ...destination, ip: '203.0.113.20' }, connections: 1, bytes: { out: 0, in: 0 } },
    ],
    denies: [
      {
        label: { source: ARN, sharedBy: 1, destination, rule: 'no' },
        connections: 5,
        bytes: { out: 0, in: 0 },
      },
    ],
  });
  t.equal(busiest.answer({ count: '1' }).functions.length, 1);
  t.throws(() => busiest.answer({ count: '0' }), {
    message: 'Cannot show top: count "0" is not a number from 1 to 100',
  });
  nowMs = 30_000;
  busiest.event(event('10.0.1.10', '203.0.113.10', 'new'));
  t.equal(busiest.answer({}).functions[0]!.connections, 2, 'of two stretches');
  nowMs = 60_000;
  t.equal(busiest.answer({}).functions[0]!.connections, 1, 'the first is a minute old');
  t.strictSame(busiest.answer({}).denies, []);
  nowMs = 10_000_000;
  t.strictSame(busiest.answer({}).functions, []);
});

t.test('who is busy costs no more memory than was said', async (t) => {
  const busiest = new Busiest(
    () => 0,
    () => [],
  );
  for (let index = 0; index < 2_000; index++) {
    const to = `10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`;
    busiest.event(event('10.0.1.10', to, 'new'));
  }
  const [others, first] = busiest.answer({}).destinations;
  t.strictSame(others, { connections: 2_000 - 1_024, bytes: { out: 0, in: 0 } }, 'the rest is one');
  t.equal(first!.connections, 1);
});
