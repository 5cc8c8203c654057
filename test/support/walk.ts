import { decodeMark } from 'sluice-gateway/nft/mark.js';
import type { Chain, ElementData, MapElement, NftMap, Program } from 'sluice-gateway/nft/program.js';
import type { Field, Statement } from 'sluice-gateway/nft/statement.js';
import type { Connection } from 'sluice-gateway/policy/evaluate.js';

/** What became of a packet, and through which rule of policy: the number in the mark. */
export interface Walked {
  readonly verdict: 'accept' | 'drop' | 'reject';
  readonly rule: number;
  /** Names of the counters it passed. */
  readonly counters: readonly string[];
  /** Numbers of the MONITOR rules it was logged for. */
  readonly monitored: readonly number[];
}

class Packet {
  mark = 0;
  priority = 0;
  ctMark = 0;
  readonly counters: string[] = [];
  readonly monitored: number[] = [];

  constructor(readonly connection: Connection) {}

  /** The value of a field; undefined where the kernel's expression breaks off the rule. */
  field(field: Field): bigint | undefined {
    const { src, dst, protocol, dstPort } = this.connection;
    switch (field) {
      case 'mark':
        return BigInt(this.mark);
      case 'priority':
        return BigInt(this.priority);
      case 'ctMark':
        return BigInt(this.ctMark);
      case 'ctOriginalSource4':
        return src.family === 4 ? src.value : undefined;
      case 'ctOriginalSource6':
        return src.family === 6 ? src.value : undefined;
      case 'ctOriginalDestination4':
        return dst.family === 4 ? dst.value : undefined;
      case 'ctOriginalDestination6':
        return dst.family === 6 ? dst.value : undefined;
      case 'ctOriginalProtocol':
      case 'l4proto':
        return BigInt(protocol);
      case 'ctOriginalDestinationPort':
        return BigInt(dstPort);
      case 'iifname':
      case 'oifname':
      case 'icmpType':
      case 'icmpv6Type':
      case 'fibSourceOifname':
        return undefined;
      default:
        return field satisfies never;
    }
  }
}

type Step = 'next' | 'break' | 'return' | Walked['verdict'];

/** The first packet of a connection on its way through a program's forward chain, statement by statement. */
class Walk {
  readonly #chains: ReadonlyMap<string, Chain>;
  readonly #maps: ReadonlyMap<string, NftMap>;
  readonly #packet: Packet;

  constructor(program: Program, packet: Packet) {
    this.#chains = new Map([...program.fixed, ...program.chains].map((chain) => [chain.name, chain]));
    this.#maps = new Map(program.maps.map((map) => [map.name, map]));
    this.#packet = packet;
  }

  chain(name: string): Step {
    const chain = this.#chains.get(name)!;
    for (const rule of chain.rules) {
      for (const statement of rule) {
        const step = this.#statement(statement);
        if (step === 'break') break;
        if (step !== 'next') return step;
      }
    }
    return 'return';
  }

  #lookup(field: Field, name: string): ElementData {
    const key = this.#packet.field(field);
    if (key === undefined) return undefined;
    const elements: Iterable<MapElement<ElementData>> = this.#maps.get(name)!.elements;
    for (const { first, last, data } of elements) if (first <= key && key <= last) return data;
    return undefined;
  }

  #verdict(verdict: Extract<Statement, { kind: 'verdict' }>['verdict']): Step {
    switch (verdict.kind) {
      case 'accept':
      case 'drop':
        return verdict.kind;
      case 'goto':
        return this.chain(verdict.chain);
      case 'jump': {
        const step = this.chain(verdict.chain);
        return step === 'return' ? 'next' : step;
      }
      default:
        return verdict satisfies never;
    }
  }

  #statement(statement: Statement): Step {
    const packet = this.#packet;
    const when = (condition: boolean): Step => (condition ? 'next' : 'break');
    switch (statement.kind) {
      case 'match':
        return when(
          packet.field(statement.field) ===
            BigInt(typeof statement.value === 'number' ? statement.value : -1),
        );
      case 'matchNot':
        return when(
          packet.field(statement.field) !==
            BigInt(typeof statement.value === 'number' ? statement.value : -1),
        );
      case 'matchMasked':
        return when((Number(packet.field(statement.field)) & statement.mask) >>> 0 === statement.value);
      case 'matchOriginalPorts': {
        const port = packet.field('ctOriginalDestinationPort');
        return when(port !== undefined && statement.first <= port && port <= statement.last);
      }
      case 'matchSomeBits':
        return when((Number(packet.field(statement.field)) & statement.mask) !== 0);
      case 'matchState':
        return when(statement.states.includes('new'));
      case 'matchNotBareSyn':
      case 'matchNoReversePath':
        return 'break';
      case 'setMark':
        packet.mark = statement.value;
        return 'next';
      case 'setMarkFromMap': {
        const data = this.#lookup(statement.field, statement.map);
        if (typeof data !== 'number') return 'break';
        packet.mark = data;
        return 'next';
      }
      case 'setMarkFromMarkIntervals': {
        const data = this.#lookup('mark', statement.map);
        if (typeof data !== 'number') return 'break';
        packet.mark = data;
        return 'next';
      }
      case 'setPriority':
        packet.priority = statement.value;
        return 'next';
      case 'setPriorityFromMap': {
        const data = this.#lookup(statement.field, statement.map);
        if (typeof data !== 'number') return 'break';
        packet.priority = data;
        return 'next';
      }
      case 'matchMaskedInSet': {
        const key = BigInt((Number(packet.field(statement.field)) & statement.mask) >>> 0);
        return when([...this.#maps.get(statement.set)!.elements].some(({ first }) => first === key));
      }
      // Live sets: no source of a walk has many connections.
      case 'matchInSet':
      case 'matchNotInSet':
      case 'matchOverRate':
        return 'break';
      case 'maskMark':
        packet.mark = ((packet.mark & statement.mask) | statement.value) >>> 0;
        return 'next';
      case 'orMark':
        packet.mark = (packet.mark | statement.value) >>> 0;
        return 'next';
      case 'setCtMark':
        packet.ctMark = statement.value;
        return 'next';
      case 'setCtMarkFromMark':
        packet.ctMark = ((packet.mark & statement.mask) | statement.value) >>> 0;
        return 'next';
      case 'verdictMap': {
        const data = this.#lookup(statement.field, statement.map);
        return typeof data === 'object' ? this.#verdict(data) : 'break';
      }
      case 'counter':
        packet.counters.push(statement.name);
        return 'next';
      case 'counterFromMap': {
        const name = this.#lookup('mark', statement.map);
        if (typeof name !== 'string') return 'break';
        packet.counters.push(name);
        return 'next';
      }
      case 'limitFromMap':
        return when(typeof this.#lookup('mark', statement.map) === 'string');
      case 'log':
        if (statement.prefix === 'monitor') packet.monitored.push(decodeMark(packet.mark).rule);
        return 'next';
      case 'limit':
        return 'next';
      case 'rejectTcpReset':
      case 'rejectAdminProhibited':
        return 'reject';
      case 'masquerade':
      case 'snat':
        return 'accept';
      case 'verdict':
        return this.#verdict(statement.verdict);
      default:
        return statement satisfies never;
    }
  }
}

/** Walks the first packet of a new connection through a program; the policy of the forward chain is drop. */
export function walk(program: Program, connection: Connection): Walked {
  const packet = new Packet(connection);
  const step = new Walk(program, packet).chain('forward');
  const verdict = step === 'accept' || step === 'reject' ? step : 'drop';
  return {
    verdict,
    rule: decodeMark(packet.ctMark === 0 ? packet.mark : packet.ctMark).rule,
    counters: packet.counters,
    monitored: packet.monitored,
  };
}
