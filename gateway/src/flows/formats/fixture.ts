import type { FlowRecord } from '../record.js';

const ARN = 'arn:aws:lambda:us-east-1:111122223333:function:gatus';
const head = { schema: 'sluice.flow/1', gateway: 'gw-a' } as const;
const rule = { name: 'gatus-to-payments', priority: 10 };
const src = {
  ip: '10.0.0.5',
  port: 40_000,
  functions: [ARN],
  groups: ['serverless'],
  identity: 'dedicated-eni',
  account: '111122223333',
  region: 'us-east-1',
};
const dst = { ip: '203.0.113.9', port: 443, groups: ['payments'] };
const tcp = { ...head, src, dst, protocol: 'TCP', communityId: '1:MT6Rb+xEaGnuIwq7LrwLW6OjN3k=' } as const;
const permitted = { verdict: 'PERMIT', enforced: true, reason: 'rule', rule, generation: 3 } as const;
const denied = {
  verdict: 'DENY',
  enforced: true,
  reason: 'default',
  rule: { name: 'default' },
  generation: 3,
} as const;
const start = '2026-01-02T03:00:00.123Z';
const nat = { ip: '198.51.100.7', port: 50_001 };
const ping: Omit<FlowRecord, 'event' | 'time'> = {
  ...head,
  src: { ip: '2001:db8::5', functions: [], groups: [] },
  dst: { ip: '2001:db8:1::9', groups: [] },
  protocol: 'ICMP',
  icmp: { type: 128, code: 0 },
  communityId: '1:0bf7hyMJUwt3fMED7z8LIfRpBeo=',
};

/** One record of each kind that a format may have a form for, and what strangers might call things. */
export const RECORDS: readonly FlowRecord[] = [
  { ...tcp, ...permitted, event: 'open', time: start, start, nat },
  {
    ...tcp,
    ...permitted,
    event: 'update',
    time: '2026-01-02T03:00:30.000Z',
    start,
    nat,
    bytes: { out: 500, in: 900 },
    packets: { out: 4, in: 3 },
  },
  {
    ...tcp,
    ...permitted,
    event: 'close',
    time: '2026-01-02T03:01:00.623Z',
    start,
    end: '2026-01-02T03:01:00.623Z',
    nat,
    bytes: { out: 600, in: 5_000 },
    packets: { out: 5, in: 4 },
    endReason: 'closed',
  },
  {
    ...ping,
    ...permitted,
    event: 'close',
    time: '2026-01-02T03:02:00.000Z',
    end: '2026-01-02T03:02:00.000Z',
    bytes: { out: 104, in: 0 },
    packets: { out: 1, in: 0 },
    endReason: 'timeout',
  },
  { ...tcp, ...denied, event: 'deny', time: '2026-01-12T03:03:00.000Z', suppressed: 41 },
  { ...ping, ...denied, verdict: 'REJECT', event: 'deny', time: '2026-01-12T03:03:01.000Z' },
  { ...tcp, ...denied, enforced: false, event: 'deny', time: '2026-01-12T03:03:02.000Z' },
  { ...tcp, ...denied, event: 'revoke', time: '2026-01-12T03:03:03.000Z', start, permittedBy: rule },
  {
    ...tcp,
    ...denied,
    gateway: 'gw a\n<0>\u001b[2J',
    rule: { name: 'no \u001b[31m"telnet"\nDENY', priority: 1 },
    src: { ...src, functions: ['arn:\u202e\n x'], account: 'a b\n' },
    event: 'deny',
    time: '2026-01-12T03:03:04.000Z',
  },
  {
    ...head,
    event: 'loss',
    time: '2026-01-12T03:04:00.000Z',
    loss: { source: 'conntrack', since: '2026-01-12T03:03:59.000Z', events: 7 },
  },
];
