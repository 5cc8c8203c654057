import { setImmediate as nextTurn } from 'node:timers/promises';
import { ethtoolStats, NetlinkSystemError } from 'nftables-napi';
import { conntrackStats } from '../conntrack/stats.js';
import type { FlowSink } from '../flows/queue.js';
import type { Crowd } from '../live/crowd.js';
import type { NetlinkConnection } from '../netlink/connection.js';
import { NftKernel } from '../nft/kernel.js';
import { UNLIMITED_COUNTER } from '../policy/fairness.js';
import type { Reconciler } from '../reconcile.js';
import { RuleCounters } from '../rule-counters.js';
import { prefixCountOf } from '../snapshot/read.js';
import type { DriverStats } from './allowance.js';
import type { SetSize } from './apply.js';
import type { ConnectionSums } from './connections.js';
import type { DecisionCount } from './decisions.js';
import { shared } from './family.js';
import type { Metrics } from './metrics.js';

/** Where the metrics that are asked for at scrape come from. */
export interface MetricsSources {
  /** One of its own: a transaction would have a scrape wait. */
  readonly connection: NetlinkConnection;
  readonly reconciler: Pick<Reconciler, 'applied' | 'isCurrent'>;
  readonly sums: ConnectionSums;
  readonly crowd: Pick<Crowd, 'size'>;
  readonly sinks: readonly FlowSink[];
  readonly interfaces: readonly string[];
}

/** The chains that drop what no rule permits. */
const FORWARD_CHAINS = ['forward', 'gate'];
/** The group whose sources the default action is for. */
const EVERYONE = 'Anywhere';

function decisionsOf(
  { applied }: Pick<Reconciler, 'applied'>,
  decided: ReadonlyMap<string, bigint>,
): DecisionCount[] {
  if (applied === undefined) return [];
  const { rules, byDefault } = applied.policy;
  const rows = [
    ...rules.map((rule) => ({ rule, reason: 'rule' as const, groups: rule.rule.src })),
    { rule: byDefault, reason: 'default' as const, groups: [EVERYONE] },
  ];
  return rows.map(({ rule, reason, groups }) => ({
    ...{ rule: rule.name, action: rule.action, enforced: rule.enforced, reason, groups },
    count: decided.get(rule.name) ?? 0n,
  }));
}

/** The maps of a program have names of their kind and, but for few, of their content. */
function setSizes({ applied }: Pick<Reconciler, 'applied'>): SetSize[] {
  return (applied?.compiled?.maps ?? []).map(({ name, elements }) => ({
    kind: name.replace(/_[0-9a-f]{16}$/, ''),
    elements: elements.length,
  }));
}

function driverStats(interfaces: readonly string[]): DriverStats[] {
  return interfaces.flatMap((name) => {
    try {
      return [{ interface: name, stats: ethtoolStats(name) }];
    } catch (error) {
      // There is none of this name now, or its driver tells nothing.
      if (error instanceof NetlinkSystemError) return [];
      throw error;
    }
  });
}

/** Names the source of every metric that is asked for at scrape; the kernel's counters are read once for all. */
export function exportSources(metrics: Metrics, sources: MetricsSources): void {
  const { connection, reconciler, sums, crowd, sinks, interfaces } = sources;
  const kernel = new NftKernel(connection);
  const counters = shared(async () => {
    const values = await kernel.counters();
    await nextTurn();
    return values;
  });
  const snapshot = () => reconciler.applied?.snapshot;
  const scopes = () => snapshot()?.inventory.scopes ?? [];
  const ofPolicy = new RuleCounters({ counters }, () => reconciler.applied?.policy);
  metrics.decisions(async () => decisionsOf(reconciler, await ofPolicy.decisions()));
  metrics.dropped(async () =>
    Object.entries(await ofPolicy.dropped()).map(([reason, count]) => ({ reason, count })),
  );
  metrics.sourcesHeldBack(() => [crowd.size]);
  metrics.unlimited(async () => [(await counters()).get(UNLIMITED_COUNTER)?.packets ?? 0n]);
  metrics.isCurrent(() => [Number(reconciler.isCurrent)]);
  metrics.generation(() => [reconciler.applied?.generation ?? 0]);
  metrics.defaultDrop(async () => [Number(await kernel.hasDefaultDrop(FORWARD_CHAINS))]);
  metrics.setSizes(() => setSizes(reconciler));
  metrics.inventoryAge(() =>
    scopes().flatMap(({ accountId: account, region, refreshedAt }) =>
      refreshedAt === undefined
        ? []
        : [{ account, region, ageSeconds: (Date.now() - Date.parse(refreshedAt)) / 1000 }],
    ),
  );
  metrics.inventoryFailing(() =>
    scopes().map(({ accountId: account, region, error }) => ({
      ...{ account, region, isFailing: error !== undefined },
    })),
  );
  metrics.groupPrefixes(() =>
    (snapshot()?.groups ?? []).map((group) => ({ group: group.name, prefixes: prefixCountOf(group) })),
  );
  metrics.connections(sums, () => new Set((snapshot()?.groups ?? []).map(({ name }) => name)));
  metrics.conntrackStats(async () => [...(await conntrackStats(connection))]);
  metrics.allowances(() => driverStats(interfaces));
  metrics.flowRecords(() =>
    sinks.flatMap((sink) => {
      const { written, dropped } = sink.counts();
      return [
        { sink: sink.name, outcome: 'written' as const, count: written },
        { sink: sink.name, outcome: 'dropped' as const, count: dropped },
      ];
    }),
  );
  metrics.queued(() => sinks.map((sink) => ({ sink: sink.name, records: sink.counts().queued })));
}
