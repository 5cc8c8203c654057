import t from 'tap';
import {
  assembler,
  connection,
  DESTROYED,
  ENDS,
  event,
  HEAD,
  mark,
  NOW,
  PERMITTED,
  REPLY,
  START_MS,
  tcp,
  told,
} from './fixture.js';

const NEVER = Number.POSITIVE_INFINITY;
const TAKEN_OVER = { tellsMissed: false, updateMs: NEVER };
const MISSED = { tellsMissed: true, updateMs: NEVER };
const from = (srcPort: number) => ({ id: srcPort, original: tcp('10.0.0.5', srcPort, '10.20.0.9', 443) });

t.test('what was there before is learnt and not told, but its end is', (t) => {
  const { flows } = assembler();
  flows.beginListing();
  t.equal(flows.listed(connection(), TAKEN_OVER), undefined);
  t.equal(flows.listed(connection({ id: 8, mark: 0 }), MISSED), undefined, 'none of ours');
  t.same(flows.connections, { known: 1, forgotten: 0 });
  t.match(told(flows.conntrack(event('destroy', DESTROYED))), { event: 'close', ...ENDS });
  t.end();
});

t.test('long connections: counters when they are due and have changed', (t) => {
  let now = Date.parse(NOW);
  const { flows } = assembler({ now: () => new Date(now) });
  flows.conntrack(event('new', { startMs: START_MS }));
  const list = (more: Parameters<typeof connection>[0] = {}) => {
    flows.beginListing();
    return told(
      flows.listed(connection({ counters: DESTROYED.counters, ...more }), {
        tellsMissed: false,
        updateMs: 60_000,
      }),
    );
  };
  now += 59_999;
  t.equal(list(), undefined, 'not due');
  now += 1;
  const reply = { ...REPLY, dst: tcp('203.0.113.7', 1, '203.0.113.7', 1).dst, dstPort: 50_001 };
  t.strictSame(list({ reply }), {
    ...HEAD,
    ...PERMITTED,
    ...ENDS,
    time: new Date(now).toISOString(),
    start: '2026-01-02T03:00:00.123Z',
    event: 'update',
    generation: 1,
    nat: { ip: '203.0.113.7', port: 50_001 },
    bytes: { out: 600, in: 5_000 },
    packets: { out: 5, in: 4 },
  });
  now += 60_000;
  t.equal(list(), undefined, 'nothing passed since');
  const original = { packets: 6, bytes: 700 };
  t.match(list({ counters: { ...DESTROYED.counters, original } }), { event: 'update', packets: { out: 6 } });
  t.equal(list({ counters: undefined }), undefined, 'a kernel that does not count');
  t.match(list({ mark: mark(2, 3) }), { event: 'update', generation: 2 }, 'and judged again meanwhile');
  now += 60_000;
  flows.conntrack(event('new', { ...from(2), mark: mark(1, 2) }));
  now += 60_000;
  t.equal(list({ ...from(2), mark: mark(1, 2) }), undefined, 'no logging, no update');
  t.end();
});

t.test('a listing makes up for lost events: each beginning and end is told once', (t) => {
  const { flows } = assembler();
  for (const port of [1, 2]) flows.conntrack(event('new', from(port)));
  flows.conntrack(event('new', { ...from(3), mark: mark(1, 2) }));
  const listing = flows.beginListing();
  t.equal(flows.listed(connection(from(1)), MISSED), undefined);
  t.match(told(flows.listed(connection({ ...from(4), startMs: START_MS }), MISSED)), {
    event: 'open',
    start: '2026-01-02T03:00:00.123Z',
    src: { port: 4 },
  });
  flows.conntrack(event('new', from(5)));
  t.equal(flows.conntrack(event('new', from(4))), undefined, 'its event was late, not lost');
  // That of long connections, which has shown none of them yet.
  flows.beginListing();
  const ended = flows.endListing(listing).map(told);
  t.strictSame(
    ended.map((record) => [record!.event, (record!.src as { port: number }).port]),
    [['close', 2]],
    'not those that began since, nor those whose rule does not log',
  );
  t.equal(ended[0]!.end, NOW);
  t.notOk('endReason' in ended[0]! || 'bytes' in ended[0]!, 'nobody told');
  t.equal(
    flows.conntrack(event('destroy', { ...from(2), ...DESTROYED })),
    undefined,
    'nor twice when it comes late',
  );
  for (const port of [1, 4, 5])
    t.match(told(flows.conntrack(event('destroy', { ...from(port), ...DESTROYED }))), {
      endReason: 'closed',
    });
  t.equal(flows.connections.known, 0);
  t.end();
});
