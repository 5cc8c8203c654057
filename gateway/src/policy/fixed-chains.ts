import type { Address } from '../net/address.js';
import {
  ACTION_BITS,
  ACTION_MASK,
  encodeMark,
  GENERATION_MASK,
  GUARD_BIT,
  KIND,
  KIND_MASK,
  LOG_BIT,
  PASS_BIT,
  RESET_MARK,
  RULE_MASK,
} from '../nft/mark.js';
import type { Chain } from '../nft/program.js';
import { accept, counter, drop, goto, jump, match, type Rule, type Statement } from '../nft/statement.js';
import { type Fairness, fairChain, UNLIMITED_COUNTER } from './fairness.js';
import { PROTOCOLS_ICMP } from './in-force.js';
import { noisySources } from './log-limits.js';

/** Where packets come in and go out, and what sources may do, from the configuration. */
export interface GatewayInterfaces extends Fairness {
  /** The Lambda subnets are behind these. */
  readonly lambda: readonly string[];
  readonly egress: readonly string[];
  readonly snat?: { readonly interfaces: readonly string[]; readonly to: 'masquerade' | Address };
  /** Whether functions may ping the gateway. */
  readonly inputIcmp: boolean;
}

/** The maps that the forward chain goes through, in this order. Without them nothing is permitted. */
export interface TopMaps {
  /** Address -> the shard that has its class. */
  readonly source4: string;
  readonly source6: string;
  readonly destination4: string;
  readonly destination6: string;
  /** Source class -> chain that turns a destination class into a list. */
  readonly sources: string;
  /** List -> chain that decides by protocol and port. */
  readonly lists: string;
  /** What MONITOR rules are to be told of, if any are -> chain that tells. */
  readonly monitors: string | undefined;
  /** Decision -> counter of connections, limit of log records, counter of those held back. */
  readonly decided: string;
  readonly logLimits: string;
  readonly suppressed: string;
}

/** The NFLOG group that our log statements write to. */
export const LOG_GROUP = 1;
const LOG_SNAPLEN_BYTES = 128;

/** Log prefixes: why a packet was logged. */
export const LOG_REASONS = [
  'deny',
  'reject',
  'revoke',
  'monitor',
  'invalid',
  'spoofed',
  'unclassified',
  'limited',
] as const;
export type LogReason = (typeof LOG_REASONS)[number];

/** Reasons of `sluice_dropped_packets_total`, each a counter in the kernel. */
export const DROP_REASONS = [
  'deny',
  'reject',
  /** Rejected without an answer: there were more than may be answered. */
  'unanswered',
  'invalid',
  'spoofed',
  'unclassified',
  /** Permitted, but its source has too many connections, or opens them too fast. */
  'limited',
  'input',
] as const;
export type DropReason = (typeof DROP_REASONS)[number];
export const dropCounter = (reason: DropReason) => `dropped_${reason}`;
export const FIXED_COUNTERS: readonly string[] = [...DROP_REASONS.map(dropCounter), UNLIMITED_COUNTER];

/** Packets a second that are logged of each kind that is not a decision of a rule. */
const ANOMALY_LOG_LIMIT: Statement = { kind: 'limit', perSecond: 10, burstPackets: 20 };
const MONITOR_LOG_LIMIT: Statement = { kind: 'limit', perSecond: 1_000, burstPackets: 1_000 };
/** Packets of revoked connections; of one that is not logged, the next tells, or the sweep. */
const REVOKE_LOG_LIMIT: Statement = { kind: 'limit', perSecond: 1_000, burstPackets: 1_000 };
/** TCP resets, and ICMP answers, that rejected packets have a second. */
export const ANSWER_LIMIT = { perSecond: 1_000, burstPackets: 1_000 } as const;

/** ICMPv6 without which IPv6 does not work: router and neighbour solicitation and advertisement. */
const NEIGHBOUR_DISCOVERY_TYPES = [133, 134, 135, 136];
const ECHO_REQUEST = 8;
const ECHO_REQUEST_6 = 128;

const PRIORITY_RAW = -300;
const PRIORITY_FILTER = 0;
const PRIORITY_GATE = 10;
const PRIORITY_SRCNAT = 100;

const pass: Statement = { kind: 'setMark', value: PASS_BIT };

const log = (reason: LogReason): Statement => ({
  kind: 'log',
  prefix: reason,
  group: LOG_GROUP,
  snaplenBytes: LOG_SNAPLEN_BYTES,
});

/** Marks what our table has seen; a routing rule sends the rest to a blackhole, so that without us nothing passes. */
function guardChains({ lambda }: GatewayInterfaces): Chain[] {
  const seen: Rule = [{ kind: 'orMark', value: GUARD_BIT }];
  return [
    {
      name: 'guard',
      base: { type: 'filter', hook: 'prerouting', priority: PRIORITY_RAW, policy: 'accept' },
      rules: [
        ...lambda.map((name): Rule => [match('iifname', name), goto('guard_lambda')]),
        ...lambda.map((name): Rule => [match('fibSourceOifname', name), goto('spoofed')]),
        seen,
      ],
    },
    { name: 'guard_lambda', rules: [seen] },
  ];
}

function inputChains({ lambda, inputIcmp }: GatewayInterfaces): Chain[] {
  const echo: Rule[] = inputIcmp
    ? [
        [match('icmpType', ECHO_REQUEST), accept],
        [match('icmpv6Type', ECHO_REQUEST_6), accept],
      ]
    : [];
  return [
    {
      name: 'input',
      base: { type: 'filter', hook: 'input', priority: PRIORITY_FILTER, policy: 'accept' },
      rules: lambda.map((name): Rule => [match('iifname', name), goto('input_lambda')]),
    },
    {
      name: 'input_lambda',
      rules: [
        [{ kind: 'matchState', states: ['established', 'related'] }, accept],
        ...NEIGHBOUR_DISCOVERY_TYPES.map((type): Rule => [match('icmpv6Type', type), accept]),
        ...echo,
        [counter(dropCounter('input')), drop],
      ],
    },
  ];
}

/** Not one judged again: its state is `new` while nobody answers, but it has the last judgement's mark. */
export const newConnection: readonly Statement[] = [
  { kind: 'matchState', states: ['new'] },
  match('ctMark', 0),
];

/** The kind too: numbers of the other kinds, which a missed lookup leaves, have the same bits. */
const isDecision = (mask: number, value: number): Statement => ({
  kind: 'matchMasked',
  field: 'mark',
  mask: (KIND_MASK | mask) >>> 0,
  value: KIND.decision | value,
});

/** From addresses to a decision in the mark; what misses anywhere keeps a mark that is none. */
function classify(top: TopMaps): Rule[] {
  return [
    [{ kind: 'verdictMap', field: 'ctOriginalSource4', map: top.source4 }],
    [{ kind: 'verdictMap', field: 'ctOriginalSource6', map: top.source6 }],
    [{ kind: 'verdictMap', field: 'ctOriginalDestination4', map: top.destination4 }],
    [{ kind: 'verdictMap', field: 'ctOriginalDestination6', map: top.destination6 }],
    [{ kind: 'verdictMap', field: 'priority', map: top.sources }],
    [{ kind: 'setPriority', value: 0 }],
    [{ kind: 'verdictMap', field: 'mark', map: top.lists }],
    ...(top.monitors === undefined
      ? []
      : [[{ kind: 'verdictMap', field: 'mark', map: top.monitors } satisfies Statement]]),
  ];
}

const refused: readonly Rule[] = [
  [isDecision(ACTION_MASK, ACTION_BITS.DENY), goto('denied')],
  [isDecision(ACTION_MASK, ACTION_BITS.REJECT), goto('rejected')],
];

/**
 * Carries out the decision in the mark. The generation stands here and not in chains that are reached by maps: a
 * packet goes by one version of this chain from its first lookup on, however long it takes.
 */
function carryOut(top: TopMaps, generation: number): Rule[] {
  const value = encodeMark({ generation, rule: 0 });
  const named: Statement = { kind: 'maskMark', mask: RULE_MASK, value };
  const logged = (action: 'DENY' | 'REJECT', chain: string): Rule => [
    isDecision(ACTION_MASK | LOG_BIT, ACTION_BITS[action] | LOG_BIT),
    { kind: 'limitFromMap', map: top.logLimits },
    named,
    goto(chain),
  ];
  const revoked = (action: 'DENY' | 'REJECT', chain: string): Rule => [
    isDecision(ACTION_MASK, ACTION_BITS[action]),
    { kind: 'matchSomeBits', field: 'ctMark', mask: GENERATION_MASK },
    named,
    goto(chain),
  ];
  return [
    [...newConnection, isDecision(ACTION_MASK, ACTION_BITS.PERMIT), jump('fair')],
    [...newConnection, { kind: 'counterFromMap', map: top.decided }],
    [
      isDecision(ACTION_MASK, ACTION_BITS.PERMIT),
      { kind: 'setCtMarkFromMark', mask: RULE_MASK, value },
      pass,
      accept,
    ],
    revoked('DENY', 'denied_revoked'),
    revoked('REJECT', 'rejected_revoked'),
    ...noisySources(isDecision(LOG_BIT, LOG_BIT), top.suppressed),
    logged('DENY', 'denied_logged'),
    logged('REJECT', 'rejected_logged'),
    [isDecision(LOG_BIT, LOG_BIT), { kind: 'counterFromMap', map: top.suppressed }],
    ...refused,
  ];
}

/** The set of the one generation whose marks count. Empty, every connection is judged again. */
export const judgedSet = (generation: number) => `judged_${generation}`;

function forwardChain({ lambda }: GatewayInterfaces, generation: number, top: TopMaps | undefined): Chain {
  return {
    name: 'forward',
    base: { type: 'filter', hook: 'forward', priority: PRIORITY_FILTER, policy: 'drop' },
    rules: [
      ...lambda.map(
        (name): Rule => [match('iifname', name), { kind: 'matchNoReversePath' }, goto('spoofed')],
      ),
      // What a conntrack helper expected inherits the mark of the connection that announced it, unjudged.
      [
        { kind: 'matchState', states: ['related'] },
        ...PROTOCOLS_ICMP.map((value): Statement => ({ kind: 'matchNot', field: 'l4proto', value })),
        { kind: 'setCtMark', value: 0 },
      ],
      [
        { kind: 'matchMaskedInSet', field: 'ctMark', mask: GENERATION_MASK, set: judgedSet(generation) },
        pass,
        accept,
      ],
      [{ kind: 'matchState', states: ['invalid', 'untracked'] }, goto('invalid')],
      [
        { kind: 'matchState', states: ['new'] },
        match('l4proto', 6),
        { kind: 'matchNotBareSyn' },
        goto('invalid'),
      ],
      [{ kind: 'setMark', value: 0 }],
      [{ kind: 'setPriority', value: 0 }],
      ...(top === undefined ? [] : [...classify(top), ...carryOut(top, generation)]),
      [goto('unclassified')],
    ],
  };
}

/** Lets pass what `forward` permitted. Without `forward`, by whatever hand, nothing has. */
const gateChain: Chain = {
  name: 'gate',
  base: { type: 'filter', hook: 'forward', priority: PRIORITY_GATE, policy: 'drop' },
  rules: [
    [
      { kind: 'matchMasked', field: 'mark', mask: PASS_BIT, value: PASS_BIT },
      { kind: 'setMark', value: 0 },
      accept,
    ],
    [counter(dropCounter('unclassified')), drop],
  ],
};

/** Where packets that are not permitted end, and what is logged of them. */
function verdictChains(generation: number): Chain[] {
  const value = encodeMark({ generation, rule: 0 });
  const answerLimit: Statement = { kind: 'limit', ...ANSWER_LIMIT };
  const dropped = (reason: DropReason): Rule => [counter(dropCounter(reason)), drop];
  const anomaly = (reason: 'invalid' | 'spoofed' | 'unclassified' | 'limited'): Chain => ({
    name: reason,
    rules: [[{ kind: 'setMark', value: 0 }], [ANOMALY_LOG_LIMIT, log(reason)], dropped(reason)],
  });
  return [
    { name: 'denied', rules: [dropped('deny')] },
    { name: 'denied_logged', rules: [[log('deny')], dropped('deny')] },
    { name: 'denied_revoked', rules: [[REVOKE_LOG_LIMIT, log('revoke')], dropped('deny')] },
    {
      name: 'rejected',
      rules: [
        [match('l4proto', 6), answerLimit, counter(dropCounter('reject')), { kind: 'rejectTcpReset' }],
        [match('l4proto', 6), goto('unanswered')],
        [answerLimit, counter(dropCounter('reject')), { kind: 'rejectAdminProhibited' }],
        [goto('unanswered')],
      ],
    },
    { name: 'unanswered', rules: [dropped('unanswered')] },
    { name: 'rejected_logged', rules: [[log('reject')], [goto('rejected')]] },
    { name: 'rejected_revoked', rules: [[REVOKE_LOG_LIMIT, log('revoke')], [goto('rejected')]] },
    { name: 'unlogged', rules: refused },
    { name: 'monitored', rules: [[{ kind: 'orMark', value }], [MONITOR_LOG_LIMIT, log('monitor')]] },
    anomaly('invalid'),
    anomaly('spoofed'),
    anomaly('unclassified'),
    anomaly('limited'),
  ];
}

/**
 * Answers what the gateway says in the name of one end of a rejected connection, so that the other end is reset:
 * our own packets alone, and none of them goes out.
 */
const resetChain: Chain = {
  name: 'resets',
  base: { type: 'filter', hook: 'output', priority: PRIORITY_FILTER, policy: 'accept' },
  rules: [[match('mark', RESET_MARK), match('l4proto', 6), { kind: 'rejectTcpReset' }]],
};

function snatChains({ snat }: GatewayInterfaces): Chain[] {
  if (snat === undefined) return [];
  const { to } = snat;
  const translate: Statement = to === 'masquerade' ? { kind: 'masquerade' } : { kind: 'snat', to };
  return [
    {
      name: 'postrouting',
      base: { type: 'nat', hook: 'postrouting', priority: PRIORITY_SRCNAT, policy: 'accept' },
      rules: snat.interfaces.map((name): Rule => [match('oifname', name), translate]),
    },
  ];
}

/**
 * The chains whose names never change, callees first. Without `top`, as at a start with no snapshot, every
 * forwarded packet is dropped as unclassified.
 */
export function fixedChains(input: {
  readonly interfaces: GatewayInterfaces;
  readonly generation: number;
  readonly top: TopMaps | undefined;
}): Chain[] {
  return [
    ...verdictChains(input.generation),
    ...guardChains(input.interfaces),
    ...inputChains(input.interfaces),
    fairChain(input.interfaces),
    forwardChain(input.interfaces, input.generation, input.top),
    gateChain,
    resetChain,
    ...snatChains(input.interfaces),
  ];
}
