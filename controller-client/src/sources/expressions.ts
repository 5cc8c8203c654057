import { parsePrefix } from 'sluice-gateway/net/prefix.js';
import type { z } from 'zod';
import { type Diagnostic, oneOf } from './diagnostics.js';
import { describeIssues, SUPPORTED_TYPES, show, TYPE_MISSING, unsupportedSelector } from './issues.js';
import {
  type AddressSelector,
  type Conditions,
  type Expression,
  type FeedQuery,
  RESOURCE_TYPES,
  type ResourceType,
} from './model.js';
import { type Entry, entryOf, type MapNode, type Node, toPlain, valueAt } from './node.js';
import {
  ADDRESS_KINDS,
  type AddressKind,
  addressSchema,
  conditionSchema,
  FEED_NAMES,
  type FeedName,
  negatable,
  resourceSchema,
} from './schema.js';

type Kind = ResourceType | AddressKind;

const isResource = (word: unknown): word is ResourceType => RESOURCE_TYPES.includes(word as ResourceType);
const isAddress = (word: unknown): word is AddressKind => ADDRESS_KINDS.includes(word as AddressKind);

/** Reads match expressions one by one; what is wrong with any of them is collected. */
export class ExpressionReader {
  readonly problems: Diagnostic[] = [];

  #say(node: Node, message: string): undefined {
    this.problems.push({ ...node.at, message });
    return undefined;
  }

  /** An expression as the schema has it; undefined where it is wrong. */
  read(node: Node): Expression | undefined {
    if (node.kind !== 'map') {
      return this.#say(node, `"all" is ${show(node)}, expected a map`);
    }
    const kind = this.#kindOf(node);
    if (kind === undefined) return undefined;
    const not = entryOf(node, 'not');
    if (isResource(kind)) {
      const input = this.#parse(node, negatable(resourceSchema(kind)));
      const taken = not && this.#not(not, kind);
      if (input === undefined || (not !== undefined && taken === undefined)) return undefined;
      const { not: _, type: __, ...conditions } = input;
      return { ...(conditions as Conditions), type: kind, at: node.at, ...(taken && { not: taken }) };
    }
    const selector = this.#address(node, kind, true);
    const taken = not && this.#not(not, undefined);
    if (selector === undefined || (not !== undefined && taken === undefined)) return undefined;
    return taken === undefined ? selector : { ...selector, not: taken as AddressSelector };
  }

  /** Which kind an expression is: its `type`, or the address key that it has. */
  #kindOf(node: MapNode): Kind | undefined {
    const type = valueAt(node, 'type');
    const word = type && toPlain(type);
    if (isResource(word)) return word;
    const given = ADDRESS_KINDS.find((kind) => entryOf(node, kind) !== undefined);
    if (type === undefined && given !== undefined) return given;
    if (isAddress(word)) return word;
    const refused = node.entries.flatMap(({ key, label = key, at }): Diagnostic[] => {
      const message = unsupportedSelector('key', label);
      return message === undefined ? [] : [{ ...at, message }];
    });
    this.problems.push(...refused);
    if (refused.length > 0) return undefined;
    if (type === undefined) return this.#say(node, TYPE_MISSING);
    const known = unsupportedSelector('type', String(word));
    return this.#say(type, known ?? `unknown type ${show(type)}: ${SUPPORTED_TYPES}`);
  }

  /** What is taken away: of a resource type conditions on it, or addresses. */
  #not({ value: node }: Entry, type: ResourceType | undefined) {
    if (node.kind !== 'map') return this.#say(node, `"not" is ${show(node)}, expected a map`);
    const kind = ADDRESS_KINDS.find((word) => entryOf(node, word) !== undefined);
    if (kind !== undefined) return this.#address(node, kind, false);
    if (type === undefined) return this.#say(node, `"not" needs one of ${oneOf(ADDRESS_KINDS)} here`);
    if (node.entries.length === 0) return this.#say(node, '"not" is empty: it would take everything away');
    const input = this.#parse(node, conditionSchema(type));
    return input && { ...(input as Conditions), type: 'conditions' as const, at: node.at };
  }

  #parse(node: Node, schema: z.ZodObject): Record<string, unknown> | undefined {
    const parsed = schema.safeParse(toPlain(node));
    if (parsed.success) return parsed.data;
    this.problems.push(...describeIssues(node, parsed.error.issues, Object.keys(schema.shape)));
    return undefined;
  }

  #address(node: MapNode, kind: AddressKind, takesNot: boolean): AddressSelector | undefined {
    const feed = kind === 'external' ? this.#feedOf(node) : FEED_NAMES[0]!;
    if (feed === undefined) return undefined;
    const schema = addressSchema(kind, feed);
    const input = this.#parse(node, takesNot ? negatable(schema) : schema);
    if (input === undefined) return undefined;
    const { at } = node;
    const { not: _, type: __, ...rest } = input;
    switch (kind) {
      case 'cidr':
        return { type: kind, prefix: parsePrefix(rest.cidr as string), at };
      case 'group':
        return { type: kind, group: rest.group as string, at };
      case 'fqdn':
        return { type: kind, fqdn: (rest.fqdn as string).toLowerCase(), at };
      case 'prefixList':
        return { ...(rest as { prefixList: string }), type: kind, at };
      case 'external':
        return { type: kind, query: rest as unknown as FeedQuery, at };
    }
  }

  #feedOf(node: MapNode): FeedName | undefined {
    const value = valueAt(node, 'external');
    const word = value && toPlain(value);
    if (FEED_NAMES.includes(word as FeedName)) return word as FeedName;
    const what = value === undefined ? '"external" is missing' : `no feed ${show(value)} is known here`;
    return this.#say(value ?? node, `${what}: expected ${oneOf(FEED_NAMES)}`);
  }
}
