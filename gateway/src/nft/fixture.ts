import { NFT_MSG } from './batch.js';

/**
 * For tests: what an nf_tables request says, as lines of text, and two such texts side by side. Walks the bytes by
 * itself, so that a mistake of the product's writer or reader can't hide here.
 *
 * The attributes of one level are sorted by number, since the kernel takes them in any order; the members of a list
 * keep theirs. Left out is what means the same with or without: see IGNORED.
 */
const NLA_F_NESTED = 0x8000;
const NLM_F_CREATE = 0x400;
const NLM_F_MASK = 0xf00;

const MESSAGE_NAMES = new Map<number, string>(Object.entries(NFT_MSG).map(([name, type]) => [type, name]));

/** Attributes whose members are a list, by message and number: their order counts, their own numbers do not. */
const LISTS: ReadonlySet<string> = new Set(['newRule 4', 'newSetElem 3', 'delSetElem 3']);

/** What may be left out, by its place, where it has this value; undefined: whatever it is. */
const IGNORED: ReadonlyMap<string, string | undefined> = new Map([
  // No flags of a table are none.
  ['newTable 2', '00000000'],
  // A set's number within the batch names it once more.
  ['newSet 10', undefined],
  ['newSetElem 4', undefined],
  ['lookup 2 4', undefined],
  ['dynset 2 2', undefined],
  ['objref 2 5', undefined],
  ['delSetElem 4', undefined],
  // nft's own notes on an element, which the kernel only keeps.
  ['element 6', undefined],
  // `NFT_BITWISE_BOOL` (later `MASK_XOR`), and a counter's bytes and packets: the kernel takes 0 where they are absent.
  ['bitwise 2 6', '00000000'],
  ['newObj 4 1', '0000000000000000'],
  ['newObj 4 2', '0000000000000000'],
  // Of an object to be deleted the name is enough.
  ['delObj 4', undefined],
]);

/** Names that the kernel takes with their closing zero or without. */
const UNTERMINATED: ReadonlySet<string> = new Set(['objref 2 2', 'objref 2 4']);

function isIgnored(place: string, payload: Buffer): boolean {
  return IGNORED.has(place) && (IGNORED.get(place) ?? payload.toString('hex')) === payload.toString('hex');
}

interface Attribute {
  readonly type: number;
  readonly nested: boolean;
  readonly payload: Buffer;
}

function attributesOf(bytes: Buffer): Attribute[] {
  const attributes: Attribute[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = bytes.readUInt16LE(at);
    const type = bytes.readUInt16LE(at + 2);
    if (length < 4 || at + length > bytes.length) throw new RangeError(`Cannot read attribute at ${at}`);
    attributes.push({
      type: type & ~NLA_F_NESTED,
      nested: (type & NLA_F_NESTED) !== 0,
      payload: bytes.subarray(at + 4, at + length),
    });
    at += (length + 3) & ~3;
  }
  return attributes;
}

function valueText(payload: Buffer, place: string): string {
  const isTerminated = payload.at(-1) === 0;
  const text = payload.subarray(0, isTerminated ? -1 : payload.length).toString('latin1');
  const isText = (isTerminated || UNTERMINATED.has(place)) && /^[\w.]{2,}$/.test(text);
  return isText ? `"${text}"` : payload.toString('hex');
}

/** What the numbers of a member's attributes mean depends on it: an expression has a name, an element none. */
function placeOf(member: readonly Attribute[], list: string): string {
  if (list !== 'newRule 4') return 'element';
  return member
    .find(({ type }) => type === 1)!
    .payload.toString('latin1')
    .replace(/\0$/, '');
}

function listLines(members: readonly Attribute[], list: string, indent: string): string[] {
  return members.flatMap(({ payload }) => {
    const parts = attributesOf(payload);
    return [`${indent}-`, ...treeLines(parts, placeOf(parts, list), `${indent}  `)];
  });
}

function treeLines(attributes: readonly Attribute[], within: string, indent: string): string[] {
  const inner = `${indent}  `;
  return attributes
    .toSorted((a, b) => a.type - b.type)
    .flatMap(({ type, nested, payload }) => {
      const place = `${within} ${type}`;
      if (isIgnored(place, payload)) return [];
      if (!nested) return [`${indent}${type} = ${valueText(payload, place)}`];
      const lines = LISTS.has(place) ? listLines : treeLines;
      return [`${indent}${type}:`, ...lines(attributesOf(payload), place, inner)];
    });
}

/** One request as text. */
export function requestText(message: Uint8Array): string {
  const bytes = Buffer.from(message);
  const type = bytes.readUInt16LE(4);
  const name = MESSAGE_NAMES.get(type) ?? `message 0x${type.toString(16)}`;
  // Whether a table may be new the kernel does not ask.
  const flags = bytes.readUInt16LE(6) & NLM_F_MASK & (name === 'newTable' ? ~NLM_F_CREATE : ~0);
  const head = `${name} flags 0x${flags.toString(16)} family ${bytes[16]} resource ${bytes.readUInt16BE(18)}`;
  const body = bytes.subarray(20, bytes.readUInt32LE(0));
  return [head, ...treeLines(attributesOf(body), name, '  ')].join('\n');
}

/** Two texts in two columns, with a mark where their lines differ. */
export function sideBySide(left: string, right: string): string {
  const [a, b] = [left.split('\n'), right.split('\n')];
  const width = Math.max(...a.map((line) => line.length));
  return Array.from({ length: Math.max(a.length, b.length) }, (_, index) => {
    const mark = a[index] === b[index] ? ' ' : '!';
    return `${(a[index] ?? '').padEnd(width)} ${mark} ${b[index] ?? ''}`;
  }).join('\n');
}
