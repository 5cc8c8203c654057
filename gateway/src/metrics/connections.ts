import { type Connection, type ConntrackEvent, IPS_SRC_NAT } from '../conntrack/decode.js';
import { PROTOCOL_NAMES } from '../flows/fields.js';
import type { ConnectionObserver } from '../flows/watch.js';
import type { Address } from '../net/address.js';
import { isJudged } from '../nft/mark.js';
import { ByGroup } from './by-group.js';
import { type Families, pulled } from './family.js';

/** Pairs of translated address and destination whose connections are counted, about 0.2 kB each. */
const NAT_ENDPOINTS_MAX = 16_384;
/** Connections of which something was counted before their end. */
const COUNTED_MAX = 65_536;

type Direction = 'out' | 'in';

/** What passed of one source group's connections. */
type Traffic = Record<Direction, { packets: number; bytes: number }>;

const noTraffic = (): Traffic => ({ out: { packets: 0, bytes: 0 }, in: { packets: 0, bytes: 0 } });

const textOf = ({ family, value }: Address) => `${family} ${value.toString(36)}`;

/** With the source no other entry has the id at the same time. */
const keyOf = ({ id, original }: Connection) => `${id} ${textOf(original.src)}`;
const isTranslated = ({ status }: Connection) => (status & IPS_SRC_NAT) !== 0;

/** Sums over connections, from the kernel's events of them. */
export class ConnectionSums implements ConnectionObserver {
  readonly #groupsOf: (source: Address) => readonly string[];
  readonly #groups: ByGroup<Traffic>;
  readonly #counted = new Map<string, NonNullable<ConntrackEvent['counters']>>();
  readonly #natEndpoints = new Map<string, number>();

  /** `groupsOf` gives the groups of a source. */
  constructor(groupsMax: number, groupsOf: (source: Address) => readonly string[]) {
    this.#groupsOf = groupsOf;
    this.#groups = new ByGroup(groupsMax, noTraffic);
  }

  /** Bytes count where the kernel tells them: in listings and at the end. */
  event(event: ConntrackEvent): void {
    this.#take(event, event.kind === 'destroy');
    if (isTranslated(event) && event.kind !== 'update') this.#countNat(event, event.kind === 'new' ? 1 : -1);
  }

  /** Ports are counted anew. What passed before the first listing was counted by who was there then. */
  list(isFirst: boolean) {
    this.#natEndpoints.clear();
    const listed = (entry: Connection) => {
      const { counters } = entry;
      if (!isFirst) this.#take(entry, false);
      else if (counters !== undefined && this.#counted.size < COUNTED_MAX)
        this.#counted.set(keyOf(entry), counters);
      if (isTranslated(entry)) this.#countNat(entry, 1);
    };
    return { listed, end: () => {} };
  }

  traffic(groups: ReadonlySet<string>): readonly (readonly [group: string, traffic: Traffic])[] {
    this.#groups.retain(groups);
    return this.#groups.entries();
  }

  /** By protocol, the most connections that share one translated address and one destination. */
  natPorts(): ReadonlyMap<string, number> {
    const most = new Map<string, number>();
    for (const [endpoint, count] of this.#natEndpoints) {
      const protocol = PROTOCOL_NAMES.get(Number.parseInt(endpoint, 10)) ?? 'other';
      most.set(protocol, Math.max(most.get(protocol) ?? 0, count));
    }
    return most;
  }

  #take(entry: Connection, hasEnded: boolean): void {
    const now = entry.counters;
    if (!isJudged(entry.mark) || now === undefined) return;
    const key = keyOf(entry);
    const before = this.#counted.get(key);
    if (hasEnded) this.#counted.delete(key);
    else if (before !== undefined || this.#counted.size < COUNTED_MAX) this.#counted.set(key, now);
    else return;
    const since = (direction: 'original' | 'reply', what: 'packets' | 'bytes') =>
      now[direction][what] - (before?.[direction][what] ?? 0);
    const out = { packets: since('original', 'packets'), bytes: since('original', 'bytes') };
    const back = { packets: since('reply', 'packets'), bytes: since('reply', 'bytes') };
    for (const group of this.#groupsOf(entry.original.src)) {
      const traffic = this.#groups.of(group);
      traffic.out.packets += out.packets;
      traffic.out.bytes += out.bytes;
      traffic.in.packets += back.packets;
      traffic.in.bytes += back.bytes;
    }
  }

  #countNat({ protocol, original, reply }: Connection, change: 1 | -1): void {
    const to = `${textOf(original.dst)} ${original.dstPort ?? ''}`;
    const key = `${protocol} ${textOf(reply.dst)} ${to}`;
    const before = this.#natEndpoints.get(key);
    if (before === undefined && this.#natEndpoints.size >= NAT_ENDPOINTS_MAX) return;
    const count = Math.max((before ?? 0) + change, 0);
    if (count === 0) this.#natEndpoints.delete(key);
    else this.#natEndpoints.set(key, count);
  }
}

/** What passed of one group's connections in one direction. */
export interface GroupTraffic {
  readonly group: string;
  readonly direction: Direction;
  readonly packets: number;
  readonly bytes: number;
}

export function connectionMetrics(families: Families) {
  const traffic = (name: 'bytes' | 'packets', help: string) =>
    pulled(families, {
      name: `sluice_group_${name}_total`,
      help: `${help} of permitted connections since the gateway started, by source group, at their end`,
      labels: ['group', 'direction'],
      kind: 'counter',
      merge: 'sum',
      of: (row: GroupTraffic) => ({
        labels: { group: row.group, direction: row.direction },
        value: row[name],
      }),
    });
  const bytes = traffic('bytes', 'IP bytes');
  const packets = traffic('packets', 'Packets');
  const natPorts = pulled(families, {
    name: 'sluice_nat_ports',
    help: 'Most connections that share one translated address and one destination, of some 64,000 ports; an estimate',
    labels: ['protocol'],
    kind: 'gauge',
    merge: 'highest',
    of: ([protocol, ports]: readonly [string, number]) => ({ labels: { protocol }, value: ports }),
  });
  return {
    /** Asked at scrape, with the groups that are there. */
    connections(sums: ConnectionSums, groups: () => ReadonlySet<string>): void {
      const rows = () =>
        sums.traffic(groups()).flatMap(([group, { out, in: back }]): GroupTraffic[] => [
          { group, direction: 'out', ...out },
          { group, direction: 'in', ...back },
        ]);
      bytes(rows);
      packets(rows);
      natPorts(() => [...sums.natPorts()]);
    },
  };
}
