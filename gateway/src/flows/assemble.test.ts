import { readFileSync, writeFileSync } from 'node:fs';
import t from 'tap';
import { type Connection, TCP_STATES } from '../conntrack/decode.js';
import type { FunctionOwner } from '../matcher/matcher.js';
import { parseAddress } from '../net/address.js';
import {
  assembler,
  DESTROYED,
  ENDS,
  event,
  GATUS,
  HEAD,
  mark,
  NOW,
  ORIGINAL,
  OTHER,
  PERMITTED,
  START_MS,
  tcp,
  told,
} from './fixture.js';
import { flowJsonSchema, RECORD_NAMES_MAX } from './record.js';

t.test('the published schema is the one in the code', (t) => {
  const path = new URL('../../../deploy/flow.schema.json', import.meta.url);
  const text = `${JSON.stringify(flowJsonSchema(), undefined, 2)}\n`;
  if (process.env.UPDATE_SCHEMA === '1') writeFileSync(path, text);
  t.equal(readFileSync(path, 'utf8'), text, 'else: UPDATE_SCHEMA=1 and run this file again');
  t.end();
});

t.test('a connection from open to close, attributed as it was when it was made', (t) => {
  const { flows, matcher } = assembler();
  t.strictSame(told(flows.conntrack(event('new'))), {
    ...HEAD,
    ...PERMITTED,
    ...ENDS,
    time: NOW,
    start: NOW,
    event: 'open',
    generation: 1,
  });
  matcher.owners = [OTHER];
  matcher.groups = {};
  t.strictSame(told(flows.conntrack(event('destroy', DESTROYED))), {
    ...HEAD,
    ...PERMITTED,
    ...ENDS,
    time: '2026-01-02T03:01:00.123Z',
    start: '2026-01-02T03:00:00.123Z',
    end: '2026-01-02T03:01:00.123Z',
    event: 'close',
    generation: 1,
    bytes: { out: 600, in: 5_000 },
    packets: { out: 5, in: 4 },
    endReason: 'closed',
  });
  t.same(flows.connections, { known: 0, forgotten: 0 });
  const unknown = told(flows.conntrack(event('destroy')));
  t.match(
    unknown,
    { event: 'close', time: NOW, end: NOW, src: { functions: [OTHER.arn], groups: [] } },
    'unknown: as now',
  );
  t.notOk('start' in unknown! || 'bytes' in unknown!);
  t.end();
});

t.test('only what a logging rule permits is told, and the end of what was told', (t) => {
  const { flows } = assembler();
  const quiet = { mark: mark(1, 2) };
  t.equal(flows.conntrack(event('new', quiet)), undefined);
  t.equal(flows.conntrack(event('destroy', quiet)), undefined);
  t.equal(flows.conntrack(event('new', { mark: 0 })), undefined);
  t.equal(flows.conntrack(event('new', { mark: 3 })), undefined, 'generation 0 is not ours');
  t.equal(flows.connections.known, 0);
  flows.conntrack(event('new'));
  t.equal(flows.conntrack(event('update', { mark: mark(2, 2) })), undefined);
  t.match(told(flows.conntrack(event('destroy', { mark: mark(2, 2) }))), {
    event: 'close',
    rule: { name: 'quiet' },
    generation: 2,
  });
  const forgotten = told(flows.conntrack(event('destroy', { mark: mark(9, 2) })));
  t.match(
    forgotten,
    { event: 'close', verdict: 'PERMIT', reason: 'rule', generation: 9 },
    'rule no longer known',
  );
  t.notOk('rule' in forgotten!);
  const byDefault = told(flows.conntrack(event('new', { id: 8, mark: mark(1, 0) })));
  t.strictSame([byDefault!.reason, byDefault!.rule], ['default', { name: 'default' }]);
  t.end();
});

t.test('judged again: an update record when another rule permits it', (t) => {
  const { flows, matcher } = assembler();
  flows.conntrack(event('new', { mark: mark(1, 2), startMs: START_MS }));
  matcher.owners = [OTHER];
  t.equal(flows.conntrack(event('update', { mark: mark(1, 2) })), undefined, 'same mark');
  const updated = told(flows.conntrack(event('update', { mark: mark(2, 1) })));
  t.match(updated, {
    event: 'update',
    time: NOW,
    start: '2026-01-02T03:00:00.123Z',
    ...PERMITTED,
    generation: 2,
    ...ENDS,
  });
  t.equal(flows.conntrack(event('update', { mark: mark(3, 1) })), undefined, 'same rule, next generation');
  t.match(told(flows.conntrack(event('destroy', { mark: mark(3, 1) }))), { generation: 3, ...ENDS });
  t.equal(flows.conntrack(event('update', { id: 9 })), undefined, 'not seen before: learnt, not told');
  matcher.owners = [];
  t.match(told(flows.conntrack(event('destroy', { id: 9 }))), {
    time: NOW,
    src: { functions: [OTHER.arn] },
  });
  t.end();
});

t.test('the end tells who permitted it last, whatever was lost before', (t) => {
  const { flows } = assembler();
  flows.conntrack(event('new', { mark: mark(1, 2) }));
  t.match(told(flows.conntrack(event('destroy', { mark: mark(2, 1) }))), { ...PERMITTED, generation: 2 });
  flows.conntrack(event('new'));
  t.match(
    told(flows.conntrack(event('destroy', { mark: 0 }))),
    { ...PERMITTED, generation: 1 },
    'mark taken away',
  );
  t.equal(flows.conntrack(event('destroy', { mark: 0 })), undefined);
  t.equal(flows.connections.known, 0);
  t.end();
});

t.test('source NAT, ICMP, other protocols', (t) => {
  const { flows } = assembler();
  const nat = tcp('10.20.0.9', 443, '203.0.113.7', 50_001);
  t.strictSame(told(flows.conntrack(event('new', { reply: nat })))!.nat, { ip: '203.0.113.7', port: 50_001 });
  const port = tcp('10.20.0.9', 443, '10.0.0.5', 50_001);
  t.strictSame(told(flows.conntrack(event('new', { reply: port })))!.nat, { ip: '10.0.0.5', port: 50_001 });
  const noPorts = { srcPort: undefined, dstPort: undefined };
  const ping = { src: parseAddress('fd00::5'), dst: parseAddress('fd00::9'), protocol: 58, ...noPorts };
  const pinged = told(
    flows.conntrack(
      event('new', {
        original: { ...ping, icmp: { type: 128, code: 0, id: 77 } },
        reply: {
          ...ping,
          src: ping.dst,
          dst: parseAddress('fd00::1'),
          icmp: { type: 129, code: 0, id: 77 },
        },
      }),
    ),
  );
  t.match(pinged, { protocol: 'ICMP', nat: { ip: 'fd00::1' } });
  t.strictSame(pinged!.icmp, { type: 128, code: 0 });
  t.strictSame(pinged!.src, { ip: 'fd00::5', functions: [], groups: [] });
  const gre = { ...ORIGINAL, ...noPorts, protocol: 47 };
  const told47 = told(
    flows.conntrack(event('new', { original: gre, reply: { ...gre, src: gre.dst, dst: gre.src } })),
  );
  t.equal(told47!.protocol, 47);
  t.notOk('nat' in told47!);
  t.end();
});

t.test('why it ended', (t) => {
  const reason = (more: Partial<Connection>) =>
    assembler().flows.conntrack(event('destroy', more))!.endReason;
  t.equal(reason({ tcpState: TCP_STATES.indexOf('CLOSE'), timeoutSeconds: 3 }), 'closed');
  t.equal(reason({ tcpState: TCP_STATES.indexOf('ESTABLISHED') }), 'timeout');
  t.equal(reason({}), 'timeout');
  t.equal(reason({ tcpState: TCP_STATES.indexOf('ESTABLISHED'), timeoutSeconds: 431_000 }), 'deleted');
  t.end();
});

t.test('several functions behind one address', (t) => {
  const { flows, matcher } = assembler();
  matcher.owners = [GATUS, OTHER];
  t.strictSame(told(flows.conntrack(event('new')))!.src, {
    ...{ ip: '10.0.0.5', port: 40_000, functions: [GATUS.arn, OTHER.arn], groups: ['a', 'serverless'] },
    ...{ identity: 'shared', region: 'us-east-1' },
  });
  matcher.owners = Array<FunctionOwner>(RECORD_NAMES_MAX + 3).fill(OTHER);
  matcher.groups = { '10.20.0.9': Array.from({ length: RECORD_NAMES_MAX + 1 }, (_, index) => `g${index}`) };
  const record = flows.conntrack(event('new'))!;
  told(record);
  t.equal(record.src!.functions.length, RECORD_NAMES_MAX);
  t.match(record, { src: { functionsOmitted: 3, account: '444455556666' }, dst: { groupsOmitted: 1 } });
  t.equal(record.dst!.groups.length, RECORD_NAMES_MAX);
  t.end();
});

t.test('the table is bounded, and an id that means two connections confuses neither', (t) => {
  const { flows, matcher } = assembler({ connectionsMax: 2 });
  const from = (srcPort: number) => tcp('10.0.0.5', srcPort, '10.20.0.9', 443);
  for (const id of [1, 2, 3]) flows.conntrack(event('new', { id: id % 2, original: from(id) }));
  t.same(flows.connections, { known: 2, forgotten: 1 });
  matcher.owners = [];
  const functions = (id: number, srcPort: number) =>
    flows.conntrack(event('destroy', { id, original: from(srcPort) }))!.src!.functions;
  t.same(functions(1, 1), [], 'the oldest was forgotten');
  t.same(functions(1, 2), [], 'same tuple, another connection');
  t.same(functions(0, 2), [GATUS.arn]);
  t.same(functions(1, 3), [GATUS.arn], 'same id as the first');
  t.equal(flows.connections.known, 0);
  t.end();
});
