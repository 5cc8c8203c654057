import type { Inventory, Scope } from '../inventory.js';

type Lists = Omit<Inventory, 'scopes'>;
export type ListName = keyof Lists;
type Item = Inventory[ListName][number];
type Place = Pick<Scope, 'accountId' | 'region'>;

export const LIST_NAMES = Object.keys({
  functions: true,
  subnets: true,
  vpcs: true,
  interfaces: true,
  instances: true,
  prefixLists: true,
} satisfies Record<ListName, true>) as ListName[];

const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);

export const byPlace = (a: Place, b: Place) =>
  compare(a.accountId, b.accountId) || compare(a.region, b.region);

export const scopeKey = ({ accountId, region }: Place) => `${accountId} ${region}`;

/** ARN of a function, id of anything else. */
export const idOf = (item: Item): string => ('arn' in item ? item.arn : item.id);

const isAt =
  (place: Place) =>
  ({ accountId, region }: Place): boolean =>
    accountId === place.accountId && region === place.region;

/** What is known of one account and region. */
export function listsAt(inventory: Inventory, place: Place): Lists {
  return Object.fromEntries(
    LIST_NAMES.map((name) => [name, (inventory[name] as readonly Item[]).filter(isAt(place))]),
  ) as unknown as Lists;
}

/** The inventory with other content of one account and region; lists that are not given stay. */
export function withScope(inventory: Inventory, scope: Scope, lists: Partial<Lists>): Inventory {
  const isHere = isAt(scope);
  const merged = LIST_NAMES.flatMap((name) => {
    const own = lists[name] as readonly Item[] | undefined;
    if (own === undefined) return [];
    const others = (inventory[name] as readonly Item[]).filter((item) => !isHere(item));
    return [[name, [...others, ...own].sort((a, b) => compare(idOf(a), idOf(b)) || byPlace(a, b))]];
  });
  const scopes = [...inventory.scopes.filter((other) => !isHere(other)), scope].sort(byPlace);
  return { ...inventory, ...Object.fromEntries(merged), scopes };
}

/** The inventory with one item put, replaced or (`undefined`) removed. */
export function withItem(
  inventory: Inventory,
  name: ListName,
  id: string,
  place: Place,
  item: Item | undefined,
): Inventory {
  const list = inventory[name] as readonly Item[];
  const isHere = isAt(place);
  const at = list.findIndex((other) => idOf(other) === id && isHere(other));
  if (at >= 0) return { ...inventory, [name]: list.toSpliced(at, 1, ...(item === undefined ? [] : [item])) };
  if (item === undefined) return inventory;
  const next = list.findIndex((other) => (compare(idOf(other), id) || byPlace(other, place)) > 0);
  return { ...inventory, [name]: list.toSpliced(next < 0 ? list.length : next, 0, item) };
}
