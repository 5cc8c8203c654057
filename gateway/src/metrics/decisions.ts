import { setImmediate as nextTurn } from 'node:timers/promises';
import { ByGroup } from './by-group.js';
import { type Families, pulled, pulledNumber, type Source, shared } from './family.js';
import { type RuleCount, RuleSeries } from './rule-series.js';

/** Connections that a rule decided. */
export interface DecisionCount extends RuleCount {
  readonly reason: 'rule' | 'default';
  /** The groups that its sources are; of the default action, `Anywhere`. */
  readonly groups: readonly string[];
}

/** Packets that were dropped for one reason. */
export interface DroppedCount {
  readonly reason: string;
  readonly count: number | bigint;
}

type Detail = Pick<DecisionCount, 'action' | 'reason' | 'enforced'> & { count: number };
/** Counts by what stands in the labels beside the group. */
type Details = Map<string, Detail>;

function countByGroup(
  groups: ByGroup<Details>,
  rows: readonly DecisionCount[],
  increases: readonly number[],
): void {
  groups.retain(new Set(rows.flatMap((row) => row.groups)));
  for (const [index, { action, reason, enforced, groups: names }] of rows.entries()) {
    const key = `${action} ${reason} ${enforced}`;
    for (const name of names) {
      const details = groups.of(name);
      const detail = details.get(key) ?? { action, reason, enforced, count: 0 };
      detail.count += increases[index]!;
      details.set(key, detail);
    }
  }
}

function decidedMetrics(families: Families, rulesMax: number) {
  const rules = pulled(families, {
    name: 'sluice_decisions_total',
    help: 'Connections decided by a rule. enforced="false": what a MONITOR rule would have decided',
    labels: ['rule', 'action', 'enforced'],
    labelValuesMax: rulesMax + 1,
    kind: 'counter',
    merge: 'sum',
    of: ({ rule, action, enforced, count }: RuleCount) => ({
      labels: { rule, action, enforced: String(enforced) },
      value: Number(count),
    }),
  });
  const byGroup = pulled(families, {
    name: 'sluice_group_decisions_total',
    help: 'Connections decided since the gateway started, by source group of the rule: once for each group it names',
    labels: ['group', 'action', 'reason', 'enforced'],
    kind: 'counter',
    merge: 'sum',
    of: ({ group, action, reason, enforced, count }: Detail & { readonly group: string }) => ({
      labels: { group, action, reason, enforced: String(enforced) },
      value: count,
    }),
  });
  return (source: Source<DecisionCount>): void => {
    const series = new RuleSeries(rulesMax);
    const groups = new ByGroup<Details>(families.labelValuesMax - 1, () => new Map());
    const read = shared(async () => {
      const rows = await source();
      await nextTurn();
      const updated = series.update(rows);
      await nextTurn();
      countByGroup(groups, rows, updated.increases);
      return updated.series;
    });
    rules(read);
    byGroup(async () => {
      await read();
      return groups
        .entries()
        .flatMap(([group, details]) => [...details.values()].map((detail) => ({ group, ...detail })));
    });
  };
}

export function decisionMetrics(families: Families, rulesMax: number) {
  return {
    /** Asked at scrape: the kernel's counters by rule. */
    decisions: decidedMetrics(families, rulesMax),
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
    sourcesHeldBack: pulledNumber(families, {
      name: 'sluice_sources_held_back',
      help: 'Source addresses that may open no connections until some of theirs end',
    }),
    /** Asked at scrape: the kernel's counter. */
    unlimited: pulledNumber(families, {
      name: 'sluice_unlimited_connections_total',
      help: 'New connections that passed without a look at their rate, since too many sources are active',
      kind: 'counter',
    }),
  };
}
