import { CallError, type Operation } from './permissions.js';

/** Lambda gives 50 a page at most, so that this is 100,000 functions; EC2 gives up to 1000. */
const pagesMax = 2000;

/** Calls AWS. Throws CallError. */
export async function call<T>(operation: Operation | 'credentials', send: () => Promise<T>): Promise<T> {
  try {
    return await send();
  } catch (cause) {
    throw new CallError(operation, cause);
  }
}

/** One page, and the marker of the next. */
export interface Page<T> {
  readonly items: readonly T[] | undefined;
  readonly marker: string | undefined;
}

/**
 * Reads pages until one has no marker, and turns each item into what is kept of it; of two items with one key,
 * on two pages while things come and go, the later counts. A marker seen before would go round for ever: throws.
 */
export async function readPages<T, R>(
  operation: Operation,
  read: (marker: string | undefined) => Promise<Page<T>>,
  keep: (item: T) => readonly [key: string, kept: R],
): Promise<R[]> {
  const all = new Map<string, R>();
  const seen = new Set<string>();
  let marker: string | undefined;
  do {
    const page = await call(operation, () => read(marker));
    if (page.items === undefined) throw new Error(`${operation} gave a page without a list`);
    for (const item of page.items) all.set(...keep(item));
    // Lambda says the end by leaving the marker out, EC2 and Tagging also by an empty one.
    marker = page.marker === '' ? undefined : page.marker;
    if (marker !== undefined) {
      if (seen.has(marker)) throw new Error(`${operation} gave the marker of a page that was read before`);
      if (seen.size === pagesMax) throw new Error(`${operation} gave more than ${pagesMax} pages`);
      seen.add(marker);
    }
  } while (marker !== undefined);
  return [...all.values()];
}

/** The value of a member that AWS always gives. */
export function given<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new Error(`${what} is missing in AWS's answer`);
  return value;
}

const byKey = ([a]: readonly [string, string], [b]: readonly [string, string]) =>
  a < b ? -1 : a > b ? 1 : 0;

export function sortedTags(tags: Iterable<readonly [string, string]>): Record<string, string> {
  return Object.fromEntries([...tags].sort(byKey));
}

/** Tags as EC2 and Tagging give them. */
export function tagsOf(
  tags: readonly { readonly Key?: string | undefined; readonly Value?: string | undefined }[] | undefined,
): Record<string, string> {
  return sortedTags((tags ?? []).map(({ Key, Value }) => [given(Key, 'a tag key'), Value ?? '']));
}
