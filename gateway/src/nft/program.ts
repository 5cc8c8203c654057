import type { Intervals } from './intervals.js';
import type { Rule, Verdict } from './statement.js';

/** The one table that is ours, of family inet. */
export const TABLE = 'sluice';

export interface BaseChain {
  readonly type: 'filter' | 'nat';
  readonly hook: 'prerouting' | 'input' | 'forward' | 'output' | 'postrouting';
  readonly priority: number;
  readonly policy: 'accept' | 'drop';
}

export interface Chain {
  readonly name: string;
  readonly base?: BaseChain;
  readonly rules: readonly Rule[];
}

/** The empty chain whose name says which generation is in force, to operators and to the next process. */
export function generationChain(generation: number): Chain {
  return { name: `generation_${generation}`, rules: [] };
}

/** What a map is looked up by. */
export type KeyType = 'ipv4_addr' | 'ipv6_addr' | 'mark' | 'classid' | 'inet_proto' | 'inet_service';

/** One key, or with `last` above `first` an interval, and what belongs to it. */
export interface MapElement<Data> {
  readonly first: bigint;
  readonly last: bigint;
  readonly data: Data;
}

interface MapOf<Type extends string, Data> {
  readonly name: string;
  readonly key: KeyType;
  readonly data: Type;
  /** Whether keys are intervals. Elements are then disjoint and ascending. */
  readonly interval: boolean;
  /** Elements come and go in place, under the same name: one that is added is not referred to before. */
  readonly grows?: boolean;
  readonly elements: readonly MapElement<Data>[];
}

/** A map from addresses, or classes, with as many elements as policy makes of them. */
export interface IntervalMap {
  readonly name: string;
  readonly key: 'ipv4_addr' | 'ipv6_addr' | 'mark';
  readonly data: 'mark' | 'classid';
  readonly interval: true;
  readonly elements: Intervals;
}

/** Plain numbers in a register: the packet mark, or the priority, which has the type of a class id. */
export type NumberMap = MapOf<'mark' | 'classid', number>;
export type VerdictMap = MapOf<'verdict', Verdict>;
/** From keys to named counters or limits. */
export type ObjectMap = MapOf<'counter' | 'limit', string>;
/** A set: keys alone. */
export type KeySet = MapOf<'none', undefined>;
export type NftMap = NumberMap | IntervalMap | VerdictMap | ObjectMap | KeySet;
export type ElementData = number | Verdict | string | undefined;

/** Elements of a map that go and come in place. */
export interface MapEdit {
  readonly map: IntervalMap;
  readonly remove: readonly MapElement<number>[];
  readonly add: readonly MapElement<number>[];
}

/** What comes into a program in force before anything refers to it. Maps that grow are given with what is new in them. */
export interface Additions extends Pick<Program, 'chains' | 'maps' | 'counters' | 'limits'> {
  /** Of maps that are there, where no packet looks up what changes. */
  readonly prepared: readonly MapEdit[];
}

type LiveKey = 'mark' | 'ipv4_addr' | 'ipv6_addr';

/**
 * A set whose elements are no content of the program, and stay from one to the next: the gateway puts them there, or,
 * where they end by themselves when idle, rules that look at rates.
 */
export interface LiveSet {
  readonly name: string;
  readonly key: readonly LiveKey[];
  readonly elementsMax: number;
  readonly idleSeconds?: number;
}

/** Packets a second, and at once, that a named limit lets by. */
export interface NamedLimit {
  readonly name: string;
  readonly perSecond: number;
  readonly burstPackets: number;
}

/**
 * The whole table as data.
 *
 * `fixed` chains have names that never change; a switch rewrites those whose rules change, and they alone know the
 * generation. `chains` and `maps` have names of their own and don't change, but for elements where the map says so:
 * another content has another name.
 */
export interface Program {
  readonly generation: number;
  readonly fixed: readonly Chain[];
  readonly chains: readonly Chain[];
  readonly maps: readonly NftMap[];
  readonly liveSets: readonly LiveSet[];
  readonly counters: readonly string[];
  readonly limits: readonly NamedLimit[];
}
