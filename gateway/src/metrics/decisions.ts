import type { Action } from '../policy/model.js';
import { type Families, pulled } from './family.js';

/** Connections that a rule decided. */
export interface DecisionCount {
  readonly rule: string;
  readonly action: Action;
  readonly enforced: boolean;
  readonly count: number | bigint;
}

/** Packets that were dropped for one reason. */
export interface DroppedCount {
  readonly reason: string;
  readonly count: number | bigint;
}

export function decisionMetrics(families: Families) {
  return {
    /** Asked at scrape: the kernel's counters by rule. */
    decisions: pulled(families, {
      name: 'sluice_decisions_total',
      help: 'Connections decided by a rule. enforced="false": what a MONITOR rule would have decided',
      labels: ['rule', 'action', 'enforced'],
      kind: 'counter',
      merge: 'sum',
      of: ({ rule, action, enforced, count }: DecisionCount) => ({
        labels: { rule, action, enforced: String(enforced) },
        value: Number(count),
      }),
    }),
    /** Asked at scrape: the kernel's drop counters. */
    dropped: pulled(families, {
      name: 'sluice_dropped_packets_total',
      help: 'Packets dropped by the kernel program, by reason',
      labels: ['reason'],
      kind: 'counter',
      merge: 'sum',
      of: ({ reason, count }: DroppedCount) => ({ labels: { reason }, value: Number(count) }),
    }),
    /** Asked at scrape. */
    sourcesHeldBack: pulled(families, {
      name: 'sluice_sources_held_back',
      help: 'Source addresses that may open no connections until some of theirs end',
      labels: [],
      kind: 'gauge',
      merge: 'sum',
      of: (count: number) => ({ labels: {}, value: count }),
    }),
    /** Asked at scrape: the kernel's counter. */
    unlimited: pulled(families, {
      name: 'sluice_unlimited_connections_total',
      help: 'New connections that passed without a look at their rate, since too many sources are active',
      labels: [],
      kind: 'counter',
      merge: 'sum',
      of: (count: number | bigint) => ({ labels: {}, value: Number(count) }),
    }),
  };
}
