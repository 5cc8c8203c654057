import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import t from 'tap';
import { reversed, type Tuple } from '../conntrack/tuple.js';
import { type Connection, ConnectionTable, type Known } from './connections.js';

const seed = process.env.TEST_SEED === undefined ? Date.now() & 0xffff_ffff : Number(process.env.TEST_SEED);

/** More than the table has slots for at first. */
const CONNECTIONS_MAX = 1_500;
const TUPLES = 2_500;

/** Of every kind: IPv4 and IPv6, with ports, without, and ICMP. */
function tupleOf(n: number): Tuple {
  const base = { protocol: 47, srcPort: undefined, dstPort: undefined, icmp: undefined };
  const ends =
    n % 2 === 0
      ? ({ src: { family: 4, value: BigInt(n) }, dst: { family: 4, value: 0xffff_ffffn } } as const)
      : ({ src: { family: 6, value: 1n << 127n }, dst: { family: 6, value: BigInt(n) } } as const);
  if (n % 5 === 0) return { ...base, ...ends };
  if (n % 5 === 1) return { ...base, ...ends, protocol: 1, icmp: { type: 8, code: n % 3, id: 0xffff - n } };
  return { ...base, ...ends, protocol: 6, srcPort: 0xffff, dstPort: n % 5 === 2 ? 0 : 443 };
}

const ownersOf = (n: number) => ({ groups: [`g${n}`] });

function connectionOf(n: number, id: number): Connection {
  return {
    id,
    original: tupleOf(n),
    startMs: n % 3 === 0 ? undefined : 1_800_000_000_000 + n,
    source: ownersOf(n),
    destination: ownersOf(n),
    mark: (0xffff_ffff - n) >>> 0,
    rule: n % 4 === 0 ? undefined : { name: `r${n}`, priority: n, action: 'PERMIT', logging: true },
    told: n % 2 === 0,
    revoked: n % 7 === 0,
    listing: n % 4,
    isFound: n % 3 === 0,
    toldMs: 1_800_000_000_000 + n,
    toldPackets: n * 2 ** 33,
  };
}

/** The same as the table, with what JavaScript has. */
class SlowTable {
  readonly live = new Map<number, Connection>();
  readonly ended = new Map<number, Connection>();
  forgotten = 0;

  get(n: number, id: number): Connection | undefined {
    const found = this.live.get(n);
    return found?.id === id ? found : undefined;
  }

  recall(n: number, id: number): Connection | undefined {
    const ended = this.ended.get(n);
    return this.get(n, id) ?? (ended?.id === id ? ended : undefined);
  }

  set(n: number, connection: Connection): void {
    this.ended.delete(n);
    this.live.delete(n);
    if (this.live.size === CONNECTIONS_MAX) {
      this.live.delete(this.live.keys().next().value!);
      this.forgotten++;
    }
    this.live.set(n, connection);
  }

  take(n: number, id: number): Connection | undefined {
    const found = this.get(n, id);
    if (found === undefined) return undefined;
    this.live.delete(n);
    if (found.revoked) this.ended.set(n, found);
    return found;
  }

  takeUnlisted(listing: number): readonly Connection[] {
    const unlisted = [...this.live].filter(([, known]) => known.listing < listing);
    for (const [n, known] of unlisted) {
      this.live.delete(n);
      this.ended.set(n, known);
    }
    return unlisted.map(([, known]) => known);
  }
}

const plain = (known: Connection | undefined) => {
  if (known === undefined) return undefined;
  const { slot: _, ...rest } = known as Known;
  return rest;
};

t.test(`the table and its slow twin tell the same (TEST_SEED=${seed})`, (t) => {
  const table = new ConnectionTable(CONNECTIONS_MAX);
  const slow = new SlowTable();
  const step = fc.record({
    verb: fc.constantFrom('set', 'set', 'set', 'get', 'recall', 'find', 'take', 'update'),
    n: fc.nat(TUPLES - 1),
    id: fc.nat(1),
  });
  const seen = { found: 0, missed: 0 };
  const same = (ours: Connection | undefined, theirs: Connection | undefined, what: string) => {
    seen[theirs === undefined ? 'missed' : 'found']++;
    // One assertion each would be more output than work.
    if (!isDeepStrictEqual(plain(ours), theirs)) t.strictSame(plain(ours), theirs, what);
  };
  for (const { verb, n, id } of fc.sample(step, { seed, numRuns: 12_000 })) {
    const tuple = tupleOf(n);
    if (verb === 'set') {
      same(table.set(connectionOf(n, id)), connectionOf(n, id), verb);
      slow.set(n, connectionOf(n, id));
    } else if (verb === 'get') same(table.get(id, tuple), slow.get(n, id), verb);
    else if (verb === 'recall') same(table.recall(id, tuple), slow.recall(n, id), verb);
    else if (verb === 'take') same(table.take(id, tuple), slow.take(n, id), verb);
    else if (verb === 'find') same(table.find(reversed(tuple)), slow.live.get(n) ?? slow.ended.get(n), verb);
    else {
      const change = { mark: n, told: false, revoked: n % 2 === 0, listing: 9, toldMs: 5, toldPackets: 6 };
      const [ours, theirs] = [table.get(id, tuple), slow.get(n, id)];
      if (ours !== undefined) table.update({ ...ours, ...change, rule: undefined });
      if (theirs !== undefined) Object.assign(theirs, { ...change, rule: undefined });
    }
    if (table.size !== slow.live.size) t.equal(table.size, slow.live.size);
  }
  t.same(table.takeUnlisted(2).map(plain), slow.takeUnlisted(2), 'unlisted: the oldest first');
  t.same([table.size, table.forgotten], [slow.live.size, slow.forgotten]);
  t.ok(slow.forgotten > 0 && seen.found > 1_000 && seen.missed > 1_000, JSON.stringify(seen));
  t.end();
});
