import { here } from './namespace.js';

/** How many packets of one kind came in to the gateway, and how many left it. */
export interface Passage {
  readonly in: number;
  readonly out: number;
}

interface ListedCounter {
  readonly counter?: { readonly name: string; readonly packets: number };
}

/**
 * Counts packets at both ends of the gateway's own way, in a table beside ours. Exact where far ends are not: a busy
 * machine loses packets on the wire, and those are nobody's verdict.
 */
export class Meter<Kind extends string> {
  readonly #kinds: readonly Kind[];

  /** `matches` say in words of nft which packets are of a kind; names are identifiers. */
  constructor(matches: Readonly<Record<Kind, string>>) {
    this.#kinds = Object.keys(matches) as Kind[];
    const counters = this.#kinds.map((kind) => `counter in_${kind} {}\ncounter out_${kind} {}`);
    const rules = (way: 'in' | 'out') =>
      this.#kinds.map((kind) => `${matches[kind]} counter name ${way}_${kind}`).join('\n');
    const input = `table inet metered {
      ${counters.join('\n')}
      chain in { type filter hook prerouting priority -400;\n${rules('in')}\n}
      chain out { type filter hook postrouting priority 400;\n${rules('out')}\n}
    }`;
    here.run('nft', ['-f', '-'], { input });
  }

  read(): Readonly<Record<Kind, Passage>> {
    const { nftables } = JSON.parse(
      here.run('nft', ['-j', 'list', 'counters', 'table', 'inet', 'metered']),
    ) as {
      nftables: ListedCounter[];
    };
    const packets = (name: string) =>
      nftables.find(({ counter }) => counter?.name === name)!.counter!.packets;
    const entries = this.#kinds.map((kind) => [
      kind,
      { in: packets(`in_${kind}`), out: packets(`out_${kind}`) },
    ]);
    return Object.fromEntries(entries) as Record<Kind, Passage>;
  }

  remove(): void {
    here.run('nft', ['delete', 'table', 'inet', 'metered']);
  }
}
