import { type Families, pulled } from './family.js';

/** What the driver of an interface counts, by its names. */
export interface DriverStats {
  readonly interface: string;
  readonly stats: ReadonlyMap<string, bigint>;
}

interface Stat {
  readonly interface: string;
  readonly name: string;
  readonly value: bigint;
}

const EXCEEDED = '_allowance_exceeded';

const statsWhere = (all: readonly DriverStats[], isWanted: (name: string) => boolean): Stat[] =>
  all.flatMap(({ interface: name, stats }) =>
    [...stats]
      .filter(([stat]) => isWanted(stat))
      .map(([stat, value]) => ({ interface: name, name: stat, value })),
  );

/**
 * What the network of an EC2 instance held back because the instance had used up what it may, by the counters of the
 * ENA driver. Interfaces of other drivers have no series.
 * https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/monitoring-network-performance-ena.html
 */
export function allowanceMetrics(families: Families) {
  const exceeded = pulled(families, {
    name: 'sluice_ena_allowance_exceeded_total',
    help: 'Packets that EC2 queued or dropped for an exceeded allowance of the instance, by interface and allowance',
    labels: ['interface', 'allowance'],
    kind: 'counter',
    merge: 'sum',
    of: ({ interface: name, name: stat, value }: Stat) => ({
      labels: { interface: name, allowance: stat.slice(0, -EXCEEDED.length) },
      value: Number(value),
    }),
  });
  const available = pulled(families, {
    name: 'sluice_ena_conntrack_available',
    help: 'Connections that EC2 can still track for the instance, by interface',
    labels: ['interface'],
    kind: 'gauge',
    merge: 'sum',
    of: ({ interface: name, value }: Stat) => ({ labels: { interface: name }, value: Number(value) }),
  });
  return {
    /** Asked at scrape. */
    allowances(read: () => readonly DriverStats[]): void {
      exceeded(() => statsWhere(read(), (name) => name.endsWith(EXCEEDED)));
      available(() => statsWhere(read(), (name) => name === 'conntrack_allowance_available'));
    },
  };
}
