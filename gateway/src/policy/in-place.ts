import type { Additions, MapEdit } from '../nft/program.js';
import { type Books, chainsOf, objectsOf } from './books.js';
import type { RulePositions } from './classes.js';
import type { PolicyInForce, RuleInForce } from './in-force.js';
import type { NumberedClasses, PairNumbers, Row } from './rows.js';
import type { RulesChange } from './rule-index.js';
import type { ShardSuccession, SideName } from './shard-content.js';
import type { ShardChange } from './side.js';

/** A change of the program in force: what edits lead to, and then the edits, which take effect together. */
export interface InPlace {
  readonly added: Additions | undefined;
  readonly edits: readonly MapEdit[];
}

/**
 * Moves addresses of one side to other classes. A class that was not there gets its row, or its column in all rows, before
 * any address has it. Undefined where that can't be done in place.
 */
export function moveAddresses(
  books: Books,
  policy: PolicyInForce,
  name: SideName,
  changes: readonly ShardChange[],
): InPlace | undefined {
  const classes: [number, RulePositions][] = [];
  const successions: ShardSuccession[] = [];
  for (const { before, after } of changes) {
    const [shard, ...more] = after;
    if (more.length > 0) return undefined;
    successions.push({ before, after: shard!, classes: books.classesOf(name, shard!, classes) });
  }
  const pairs = classes.length === 0 ? undefined : pairsOfNew(books, policy, name, classes);
  const content = pairs && contentOf(books, pairs, classes.length, []);
  if (pairs !== undefined && content === undefined) return undefined;
  const edits = books.shards[name].succeed(successions);
  if (edits === undefined) return undefined;
  let added: Additions | undefined;
  if (pairs !== undefined) {
    const rows = books.rows.update(pairs);
    added = books.content!.add(withRows(books, content!, rows.added, rows.edits));
  }
  books.content!.edit(edits);
  return { added, edits };
}

function pairsOfNew(
  books: Books,
  policy: PolicyInForce,
  name: SideName,
  added: NumberedClasses,
): PairNumbers {
  return name === 'src'
    ? books.pairsOf(added, books.numbered('dst'), policy)
    : books.pairsOf(books.numbered('src'), added, policy);
}

/**
 * Takes rules that came, went or moved: pairs of classes that have one of them get another list. Undefined where that
 * can't be done in place: addresses of one class have different rules now.
 */
export function changeRules(books: Books, policy: PolicyInForce, change: RulesChange): InPlace | undefined {
  const src = followRules(books, 'src', change);
  const dst = src && followRules(books, 'dst', change);
  if (src === undefined || dst === undefined) return undefined;
  const pairs = books.pairsOf(src, dst, policy);
  const rules = change.added.map((position) => policy.rules[position]!);
  const content = contentOf(books, pairs, 0, rules);
  if (content === undefined) return undefined;
  const { edits } = books.rows.update(pairs);
  const added = books.content!.add(content);
  books.content!.edit(edits);
  const isNothing = Object.values(added).every(({ length }) => length === 0);
  return { added: isNothing ? undefined : added, edits };
}

/** The classes of one side that may have other rules now. */
function followRules(books: Books, name: SideName, change: RulesChange): NumberedClasses | undefined {
  const { atoms } = books.sides[name];
  const touched = books.classes[name].follow(
    books.sides[name].liveAtoms(),
    change.positions,
    (atom) => atoms.membersOf(atom).some((group) => change.groups[name].has(group)),
    (atom) => books.rulesOf(name, atom),
  );
  return touched && books.numbered(name).filter(([number]) => touched.has(number));
}

/**
 * The lists of these pairs, and the objects of these rules. Undefined where that is too much, or where fixed chains change:
 * there was no MONITOR rule yet to be told of, or a decision is to have other objects.
 */
function contentOf(
  books: Books,
  pairs: PairNumbers,
  newClasses: number,
  rules: readonly RuleInForce[],
): Additions | undefined {
  const lists = books.addLists(pairs.lists, newClasses);
  if (lists === undefined) return undefined;
  const grown = Object.values(books.grown([], lists, rules)).filter((map) => map !== undefined);
  if (grown.some(({ name }) => !books.content!.hasMap(name))) return undefined;
  return {
    chains: chainsOf(lists),
    maps: [...[...lists].flatMap(({ maps }) => maps), ...grown],
    ...objectsOf(rules),
    prepared: [],
  };
}

function withRows(
  books: Books,
  { chains, maps, ...content }: Additions,
  rows: readonly Row[],
  prepared: readonly MapEdit[],
): Additions {
  return {
    ...content,
    chains: [...chains, ...rows.map(({ chain }) => chain)],
    maps: [...maps, ...rows.map(({ map }) => map), books.grown(rows, new Set(), []).sources],
    prepared,
  };
}
