import { type Connection, type ConntrackEvent, TCP_STATES } from '../conntrack/decode.js';
import type { Tuple } from '../conntrack/tuple.js';
import type { FunctionOwner } from '../matcher/matcher.js';
import { parseAddress, printAddress } from '../net/address.js';
import type { NflogPacket } from '../nflog/decode.js';
import { encodeMark } from '../nft/mark.js';
import { type AssemblerOptions, FlowAssembler } from './assemble.js';
import type { Attributor } from './attribute.js';
import { type FlowRecord, flowRecordSchema } from './record.js';
import type { RuleFacts } from './rule-book.js';

const strictSchema = flowRecordSchema.strict();

export const RULES: readonly RuleFacts[] = [
  { name: 'default', priority: undefined, action: 'DENY', logging: true },
  { name: 'gatus-to-payments', priority: 10, action: 'PERMIT', logging: true },
  { name: 'quiet', priority: 20, action: 'PERMIT', logging: false },
  { name: 'no-telnet', priority: 5, action: 'REJECT', logging: true },
];
const GENERATIONS_KNOWN = 5;
export const mark = (generation: number, rule: number) => encodeMark({ generation, rule });

export const GATUS: FunctionOwner = {
  arn: 'arn:aws:lambda:us-east-1:111122223333:function:gatus',
  accountId: '111122223333',
  region: 'us-east-1',
  identity: 'dedicated-eni',
};
export const OTHER: FunctionOwner = {
  ...GATUS,
  arn: `${GATUS.arn}-2`,
  accountId: '444455556666',
  identity: 'shared',
};

class FakeMatcher implements Attributor {
  owners: readonly FunctionOwner[] = [GATUS];
  groups: Readonly<Record<string, readonly string[]>> = {
    '10.0.0.5': ['serverless', 'a'],
    '10.20.0.9': ['payments'],
  };

  groupsOf(address: Tuple['src']) {
    return this.groups[printAddress(address)] ?? [];
  }

  functionsOf(address: Tuple['src']) {
    return printAddress(address) === '10.0.0.5' ? this.owners : [];
  }
}

export const NOW = '2026-01-02T03:04:05.678Z';
export const START_MS = Date.parse('2026-01-02T03:00:00.123Z');
const STOP_MS = START_MS + 60_000;

export function assembler(options: Partial<AssemblerOptions> = {}) {
  const matcher = new FakeMatcher();
  const flows = new FlowAssembler({
    gateway: 'gw-a',
    rules: { ruleOf: ({ generation, rule }) => (generation <= GENERATIONS_KNOWN ? RULES[rule] : undefined) },
    matcher: () => matcher,
    now: () => new Date(NOW),
    connectionsMax: 100,
    ...options,
  });
  return { flows, matcher };
}

export const tcp = (src: string, srcPort: number, dst: string, dstPort: number): Tuple => ({
  src: parseAddress(src),
  dst: parseAddress(dst),
  protocol: 6,
  srcPort,
  dstPort,
  icmp: undefined,
});

export const ORIGINAL = tcp('10.0.0.5', 40_000, '10.20.0.9', 443);
export const REPLY = tcp('10.20.0.9', 443, '10.0.0.5', 40_000);
export const connection = (more: Partial<Connection> = {}): Connection => ({
  id: 7,
  status: 0,
  mark: mark(1, 1),
  zone: 0,
  family: 4,
  protocol: 6,
  original: ORIGINAL,
  reply: REPLY,
  counters: undefined,
  eventMs: undefined,
  startMs: undefined,
  stopMs: undefined,
  timeoutSeconds: undefined,
  tcpState: undefined,
  ...more,
});
export const event = (kind: ConntrackEvent['kind'], more: Partial<Connection> = {}): ConntrackEvent => ({
  ...connection(more),
  kind,
});
export const DESTROYED = {
  startMs: START_MS,
  stopMs: STOP_MS,
  counters: { original: { packets: 5, bytes: 600 }, reply: { packets: 4, bytes: 5_000 } },
  tcpState: TCP_STATES.indexOf('TIME_WAIT'),
} as const;

/** As JSON, so that absent is absent, after the strict schema has agreed. */
export function told(record: FlowRecord | undefined): Record<string, unknown> | undefined {
  if (record === undefined) return undefined;
  const plain = JSON.parse(JSON.stringify(record)) as Record<string, unknown>;
  strictSchema.parse(plain);
  return plain;
}

export const HEAD = { schema: 'sluice.flow/1', gateway: 'gw-a' };
export const ENDS = {
  src: {
    ip: '10.0.0.5',
    port: 40_000,
    functions: [GATUS.arn],
    groups: ['a', 'serverless'],
    identity: 'dedicated-eni',
    account: '111122223333',
    region: 'us-east-1',
  },
  dst: { ip: '10.20.0.9', port: 443, groups: ['payments'] },
  protocol: 'TCP',
  // Computed by another program, from the specification.
  communityId: '1:MT6Rb+xEaGnuIwq7LrwLW6OjN3k=',
};
export const PERMITTED = {
  verdict: 'PERMIT',
  enforced: true,
  reason: 'rule',
  rule: { name: 'gatus-to-payments', priority: 10 },
};

export const packet = (prefix: string, more: Partial<NflogPacket> = {}): NflogPacket => ({
  prefix,
  sequence: undefined,
  mark: mark(2, 3),
  indev: 2,
  outdev: 3,
  timestampMs: STOP_MS,
  hook: 2,
  protocol: 0x0800,
  tuple: ORIGINAL,
  tcp: { sequence: 1, acknowledgement: 0, flags: 0x02 },
  conntrack: undefined,
  conntrackInfo: undefined,
  ...more,
});
