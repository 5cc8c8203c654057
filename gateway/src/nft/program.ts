import type { Rule, Verdict } from './statement.js';

/** The one table that is ours, of family inet. */
export const TABLE = 'sluice';

export interface BaseChain {
  readonly type: 'filter' | 'nat';
  readonly hook: 'prerouting' | 'input' | 'forward' | 'postrouting';
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
export type KeyType = 'ipv4_addr' | 'ipv6_addr' | 'mark' | 'inet_proto' | 'inet_service';

/** One key, or with `last` above `first` an interval, and the mark or verdict that belongs to it. */
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
  readonly elements: readonly MapElement<Data>[];
}

export type MarkMap = MapOf<'mark', number>;
export type VerdictMap = MapOf<'verdict', Verdict>;
export type NftMap = MarkMap | VerdictMap;

/**
 * The whole table as data.
 *
 * `fixed` chains have names that never change; every switch rewrites their rules, and they alone know the
 * generation. `chains` and `maps` are named after their content and never change: another content has another name.
 */
export interface Program {
  readonly generation: number;
  readonly fixed: readonly Chain[];
  readonly chains: readonly Chain[];
  readonly maps: readonly NftMap[];
  readonly counters: readonly string[];
}
