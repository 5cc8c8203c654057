import fc from 'fast-check';
import t from 'tap';
import type { Tuple } from '../conntrack/tuple.js';
import { encodeMark } from '../nft/mark.js';
import {
  assembler,
  connection,
  DESTROYED,
  ENDS,
  event,
  HEAD,
  mark,
  NOW,
  ORIGINAL,
  PERMITTED,
  packet,
  REPLY,
  START_MS,
  tcp,
  told,
} from './fixture.js';
import { FLOW_EVENTS } from './record.js';

const seed = process.env.TEST_SEED === undefined ? Date.now() & 0xffff_ffff : Number(process.env.TEST_SEED);

t.test('refused packets', (t) => {
  const { flows } = assembler();
  const time = '2026-01-02T03:01:00.123Z';
  const refused = { ...HEAD, ...ENDS, time, event: 'deny', enforced: true };
  const rule = { reason: 'rule', rule: { name: 'no-telnet', priority: 5 }, generation: 2 };
  t.strictSame(told(flows.packet(packet('reject'))), { ...refused, verdict: 'REJECT', ...rule });
  const byDefault = { reason: 'default', rule: { name: 'default' }, generation: 2 };
  t.strictSame(told(flows.packet(packet('deny', { mark: mark(2, 0) }))), {
    ...refused,
    verdict: 'DENY',
    ...byDefault,
  });
  const conntrack = connection({ mark: 0 });
  t.match(
    told(flows.packet(packet('deny', { tuple: REPLY, conntrack }))),
    { event: 'deny', ...ENDS },
    'a reply packet',
  );
  for (const reason of ['unclassified', 'invalid']) {
    t.strictSame(told(flows.packet(packet(reason, { mark: 0 }))), { ...refused, verdict: 'DENY', reason });
  }
  const spoofed = told(flows.packet(packet('spoofed', { mark: 0 })))!;
  t.strictSame(
    spoofed.src,
    { ip: '10.0.0.5', port: 40_000, functions: [], groups: [] },
    'a spoofed source accuses nobody',
  );
  for (const foreign of [packet('another program: '), packet('deny', { mark: 3 })])
    t.equal(flows.packet(foreign), undefined);
  const unreadable = told(
    flows.packet(packet('invalid', { mark: 0, tuple: undefined, timestampMs: undefined })),
  );
  t.strictSame(unreadable, {
    ...HEAD,
    time: NOW,
    event: 'deny',
    verdict: 'DENY',
    enforced: true,
    reason: 'invalid',
  });
  t.end();
});

t.test('what MONITOR rules would have decided', (t) => {
  const { flows } = assembler();
  const monitored = (of: number) => told(flows.packet(packet('monitor', { mark: of })));
  t.match(monitored(mark(1, 3)), {
    event: 'deny',
    verdict: 'REJECT',
    enforced: false,
    rule: { name: 'no-telnet' },
  });
  t.match(monitored(mark(1, 1)), { event: 'open', verdict: 'PERMIT', enforced: false, generation: 1 });
  const unknown = monitored(mark(9, 1))!;
  t.match(unknown, { event: 'deny', enforced: false, generation: 9 });
  t.notOk('verdict' in unknown || 'rule' in unknown);
  t.end();
});

t.test('a connection that policy no longer permits', (t) => {
  const { flows, matcher } = assembler();
  flows.conntrack(event('new', { startMs: START_MS }));
  matcher.owners = [];
  const reply = tcp('10.20.0.9', 443, '203.0.113.7', 50_001);
  const conntrack = connection({ reply, counters: DESTROYED.counters });
  t.strictSame(told(flows.packet(packet('revoke', { tuple: REPLY, conntrack }))), {
    ...HEAD,
    ...ENDS,
    time: '2026-01-02T03:01:00.123Z',
    start: '2026-01-02T03:00:00.123Z',
    event: 'revoke',
    verdict: 'REJECT',
    enforced: true,
    reason: 'rule',
    rule: { name: 'no-telnet', priority: 5 },
    permittedBy: { name: 'gatus-to-payments', priority: 10 },
    generation: 2,
    nat: { ip: '203.0.113.7', port: 50_001 },
    bytes: { out: 600, in: 5_000 },
    packets: { out: 5, in: 4 },
  });
  t.match(told(flows.conntrack(event('destroy', DESTROYED))), {
    event: 'close',
    endReason: 'revoked',
    ...PERMITTED,
  });

  t.notOk(flows.packet(packet('revoke', { conntrack })), 'logged before its end, read later');

  flows.conntrack(event('new'));
  flows.packet(packet('revoke', { conntrack }));
  t.notOk(flows.revoked(connection(), mark(2, 3)), 'told once, whoever finds it');
  flows.conntrack(event('update', { mark: mark(3, 1) }));
  t.match(
    told(flows.conntrack(event('destroy', { mark: mark(3, 1) }))),
    { endReason: 'timeout' },
    'permitted again since',
  );
  flows.packet(packet('revoke', { conntrack }));
  t.match(told(flows.conntrack(event('destroy'))), { endReason: 'revoked' }, 'its beginning was never seen');
  t.match(told(flows.revoked(connection({ id: 8 }), mark(2, 0))), {
    event: 'revoke',
    time: NOW,
    verdict: 'DENY',
    reason: 'default',
    permittedBy: { name: 'gatus-to-payments' },
  });
  t.end();
});

t.test('where no connection came with a refused packet, the table tells what was permitted', (t) => {
  const { flows } = assembler();
  const revoked = (tuple: Tuple) => told(flows.packet(packet('revoke', { tuple })));
  const nat = tcp('10.20.0.9', 443, '203.0.113.7', 50_001);
  flows.conntrack(event('new', { reply: nat }));
  t.match(revoked(ORIGINAL), { event: 'revoke', ...ENDS, permittedBy: { name: 'gatus-to-payments' } });
  t.notOk(revoked(REPLY), 'told once, a reply packet too');
  t.match(told(flows.conntrack(event('destroy', { reply: nat }))), { endReason: 'revoked' });
  t.notOk(revoked(ORIGINAL), 'logged before its end, read later');
  flows.conntrack(event('new', { id: 8 }));
  t.match(revoked(REPLY), { event: 'revoke', ...ENDS }, 'its successor');
  const unknown = revoked(tcp('10.0.0.5', 40_001, '10.20.0.9', 443))!;
  t.match(unknown, { event: 'revoke', verdict: 'REJECT', src: { ip: '10.0.0.5', port: 40_001 } });
  t.notOk('permittedBy' in unknown);

  const noPorts = { srcPort: undefined, dstPort: undefined, protocol: 1 };
  const ping = { ...ORIGINAL, ...noPorts, icmp: { type: 8, code: 0, id: 9 } };
  flows.conntrack(event('new', { original: ping }));
  const pong = { ...REPLY, ...noPorts, icmp: { type: 0, code: 0, id: 9 } };
  t.match(revoked(pong), { event: 'revoke', src: { ip: '10.0.0.5' } });
  t.end();
});

t.test('loss', (t) => {
  const { flows } = assembler();
  const since = '2026-01-02T03:04:00.000Z';
  for (const loss of [
    { source: 'nflog' as const, since, events: 12 },
    { source: 'conntrack' as const, since },
  ]) {
    const record = flows.lost(loss.source, new Date(since), loss.events);
    t.strictSame(told(record), { ...HEAD, time: NOW, event: 'loss', loss });
  }
  t.end();
});

t.test('suppressed counts are exact, whatever happens to counters and rules', (t) => {
  const { flows } = assembler();
  const counts = (entries: Record<string, bigint>) =>
    flows.suppressedCounts(new Map(Object.entries(entries))).map(told);
  const suppressed = () => flows.packet(packet('reject'))!.suppressed;
  t.same(counts({ 'no-telnet': 4n, other: 2n }), []);
  t.equal(suppressed(), 4);
  t.equal(suppressed(), undefined);
  counts({ 'no-telnet': 5n, other: 2n });
  counts({ 'no-telnet': 9n, other: 2n });
  t.equal(suppressed(), 5);
  counts({ 'no-telnet': 2n, other: 2n });
  t.equal(suppressed(), 2, 'a new counter');
  counts({ 'no-telnet': 3n, other: 5n });
  const loss = (name: string, count: number) => ({
    ...HEAD,
    time: NOW,
    event: 'loss',
    rule: { name },
    suppressed: count,
  });
  t.strictSame(counts({ 'no-telnet': 3n }), [loss('other', 5)], 'a rule that is gone has no later record');
  t.strictSame(flows.finish().map(told), [loss('no-telnet', 1)]);
  t.same(flows.finish(), []);
  t.end();
});

t.test('any stream of events: valid records, and as many ends as beginnings', (t) => {
  t.comment(`TEST_SEED=${seed}`);
  const anyMark = fc.record({ generation: fc.integer({ min: 0, max: 6 }), rule: fc.nat(3) }).map(encodeMark);
  const anyTuple = fc
    .integer({ min: 1, max: 6 })
    .map((host) => tcp(`10.0.0.${host}`, 40_000, '10.20.0.9', 443));
  const anyTime = fc.option(fc.nat(2 ** 44), { nil: undefined });
  const anyConnection = fc
    .record({
      id: fc.nat(5),
      mark: anyMark,
      original: anyTuple,
      reply: anyTuple,
      startMs: anyTime,
      stopMs: anyTime,
      tcpState: fc.option(fc.nat(12), { nil: undefined }),
    })
    .map(connection);
  const anyEvent = fc
    .tuple(fc.constantFrom('new', 'update', 'destroy'), anyConnection)
    .map(([kind, more]) => event(kind, more));
  const anyPacket = fc
    .record({
      prefix: fc.constantFrom(
        'deny',
        'reject',
        'revoke',
        'monitor',
        'unclassified',
        'invalid',
        'spoofed',
        'x',
      ),
      mark: anyMark,
      tuple: fc.option(anyTuple, { nil: undefined }),
      conntrack: fc.option(anyConnection, { nil: undefined }),
    })
    .map((more) => packet(more.prefix, more));
  const seen = new Set<string>();
  fc.assert(
    fc.property(fc.array(fc.oneof(anyEvent, anyPacket), { maxLength: 60 }), (stream) => {
      const { flows } = assembler({ connectionsMax: 3 });
      for (const input of stream) {
        const record = 'kind' in input ? flows.conntrack(input) : flows.packet(input);
        if (record !== undefined) seen.add(record.event);
        told(record);
        if (flows.connections.known > 3) return false;
      }
      return true;
    }),
    { seed, numRuns: 2_000 },
  );
  t.same([...seen].sort(), FLOW_EVENTS.filter((name) => name !== 'loss').toSorted());

  const life = fc.array(
    anyMark.filter((value) => value >>> 14 > 0),
    { minLength: 1, maxLength: 6 },
  );
  fc.assert(
    fc.property(life, (marks) => {
      const { flows } = assembler();
      const records = [
        flows.conntrack(event('new', { mark: marks[0]! })),
        ...marks.slice(1).map((value) => flows.conntrack(event('update', { mark: value }))),
        flows.conntrack(event('destroy', { mark: marks.at(-1)! })),
      ];
      const events = records.flatMap((record) => (record === undefined ? [] : [record.event]));
      const begun = events.some((name) => name === 'open' || name === 'update');
      return !begun || (events.at(-1) === 'close' && events.indexOf('close') === events.length - 1);
    }),
    { seed, numRuns: 300 },
  );
  t.end();
});
