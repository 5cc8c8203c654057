import { createHash } from 'node:crypto';
import type { FaultKind, Operation } from './state.js';

/** Where a call stands in a listing: the page's number, and the order of the last item before it. */
export interface Position {
  readonly page: number;
  readonly after: string;
}

export interface Page<T> {
  readonly items: readonly T[];
  /** Absent on the last page. */
  readonly marker?: string;
}

export const FIRST: Position = { page: 1, after: '' };

const hash = (text: string) => createHash('sha256').update(text).digest('hex');

/** AWS promises no order; this one is stable under insertion and removal, and is not the order of names. */
const orderOf = (id: string) => hash(id);

function printMarker(operation: Operation, position: Position): string {
  const text = JSON.stringify([operation, position.page, position.after]);
  return Buffer.from(`${hash(text).slice(0, 16)}${text}`).toString('base64');
}

/** Reads a marker of this operation; undefined for anything else. */
export function readMarker(operation: Operation, marker: string): Position | undefined {
  const decoded = Buffer.from(marker, 'base64').toString();
  const text = decoded.slice(16);
  if (hash(text).slice(0, 16) !== decoded.slice(0, 16)) return undefined;
  const [of, page, after] = JSON.parse(text) as [string, number, string];
  return of === operation ? { page, after } : undefined;
}

/** The page of at most `itemsMax` items at a position; `fault` spoils how it continues. */
export function pageOf<T>(
  operation: Operation,
  all: readonly T[],
  idOf: (item: T) => string,
  at: Position,
  itemsMax: number,
  fault: FaultKind | undefined,
): Page<T> {
  const rest = all
    .map((item) => ({ item, order: orderOf(idOf(item)) }))
    .filter(({ order }) => order > at.after)
    .sort((a, b) => (a.order < b.order ? -1 : 1));
  const entries = fault === 'empty' ? [] : rest.slice(0, itemsMax);
  const items = entries.map(({ item }) => item);
  const after = entries.at(-1)?.order ?? at.after;
  if (fault === 'loop') return { items, marker: printMarker(operation, at) };
  if (entries.length === rest.length) return { items };
  const marker = printMarker(operation, { page: at.page + 1, after });
  return { items, marker: fault === 'badMarker' ? marker.slice(0, -9) : marker };
}
