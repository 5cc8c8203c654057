import { escapeControls, type Position, quote } from './diagnostics.js';
import { type Attribute, type Block, type Body, type Expression, parseHcl } from './hcl-parse.js';
import { checkTree, type Draft, type Entry, type MapNode, type Node, textOf } from './node.js';
import {
  ATTACHMENT_POINT,
  DEFAULT_ACTION,
  isPolicyResource,
  ResourceReader,
  RULE_BLOCKS,
  SMART_GROUP,
  unsupportedResource,
} from './resources.js';
import type { SourceText } from './text.js';

/** Arguments that Terraform itself takes in every resource and that say nothing about policy. */
const META_IGNORED = new Set(['depends_on', 'lifecycle', 'provider', 'provisioner', 'connection']);
const META_REFUSED = new Set(['count', 'for_each', 'dynamic']);
/** Blocks that can't change policy by themselves: what they define is refused where a resource uses it. */
const BLOCKS_SILENT = new Set(['variable', 'locals']);
const BLOCKS_SKIPPED = new Set(['terraform', 'provider', 'output', 'moved', 'import', 'removed', 'check']);

const SHOWN_LENGTH_MAX = 80;
const NOT_EVALUATED =
  'only literal values and references such as aviatrix_smart_group.NAME.uuid are read; ' +
  'of code that needs evaluation, give the output of terraform show -json';

/** What may be referred to: type and attribute, and the text that the name lies between. */
const REFERENCES: readonly (readonly [before: readonly string[], after: string])[] = [
  [[SMART_GROUP], 'uuid'],
  [['data', ATTACHMENT_POINT], 'id'],
];

/** The address of what a path refers to, where that is known. */
function targetOf(path: readonly string[]): string | undefined {
  const known = REFERENCES.find(
    ([before, after]) =>
      path.length === before.length + 2 &&
      before.every((part, index) => part === path[index]) &&
      path.at(-1) === after,
  );
  return known && path.slice(0, -1).join('.');
}

/** Reads the resources of one file, one after another; what is wrong or skipped is collected. */
class TerraformReader {
  readonly #out = new ResourceReader();

  #say(at: Position, message: string): void {
    this.#out.say(at, message);
  }

  #warn(at: Position, message: string): void {
    this.#out.warnings.push({ ...at, message });
  }

  read(file: Body): Draft {
    for (const { key, at } of file.attributes) {
      this.#say(at, `argument ${quote(key)} stands outside of any block`);
    }
    for (const block of file.blocks) this.#block(block);
    return this.#out.draft();
  }

  #block(block: Block): void {
    const { type, labels, at } = block;
    const address = [type, ...labels].map((part, index) => (index === 0 ? part : quote(part))).join(' ');
    const foreign = labels[0] !== undefined && !isPolicyResource(labels[0]);
    if (BLOCKS_SILENT.has(type)) return;
    if (BLOCKS_SKIPPED.has(type) || ((type === 'resource' || type === 'data') && foreign)) {
      this.#warn(at, `${address} is skipped: it is no part of policy`);
    } else if (type === 'module') {
      this.#warn(at, `${address} is skipped: groups and rules inside it are not read`);
    } else if (type === 'resource') {
      this.#resource(block);
    } else if (type === 'data' && labels[0] === ATTACHMENT_POINT && labels.length === 2) {
      const node = this.#sound(block.body, at);
      if (node) this.#out.attachmentPoint(`data.${labels.join('.')}`, textOf(node, 'name') ?? '', at);
    } else {
      const known =
        type === 'data' ? `expected a resource, or data of ${ATTACHMENT_POINT}` : 'expected a resource';
      this.#say(at, `${address} is not supported: ${known}`);
    }
  }

  #resource({ labels, body, at }: Block): void {
    const [type, name] = labels;
    if (type === undefined || name === undefined || labels.length > 2) {
      this.#say(at, 'a resource has two labels: its type and its name');
    } else if (type === SMART_GROUP) {
      this.#smartGroup(`${SMART_GROUP}.${name}`, body, at);
    } else if (Object.hasOwn(RULE_BLOCKS, type)) {
      this.#rules(type, body, at);
    } else if (type === DEFAULT_ACTION) {
      const node = this.#sound(body, at);
      if (node) this.#out.defaultAction(node);
    } else {
      this.#say(at, unsupportedResource(type));
    }
  }

  #smartGroup(target: string, body: Body, at: Position): void {
    const name = body.attributes.find(({ key }) => key === 'name')?.value;
    const known = name?.kind === 'literal' && typeof name.value === 'string' ? name.value : target;
    this.#out.reference(target, known, at);
    const node = this.#sound(body, at);
    if (node !== undefined) this.#out.smartGroup(node);
  }

  /** Rules stand in blocks: what can't be read of one hides no error of another. */
  #rules(type: string, { attributes, blocks }: Body, at: Position): void {
    const isOurs = (block: Block) => block.type === RULE_BLOCKS[type];
    const own = this.#map({ attributes, blocks: blocks.filter((block) => !isOurs(block)) }, at);
    this.#out.problems.push(...checkTree(own));
    const entries = own.entries.filter(({ key }) => !META_REFUSED.has(key));
    const container = this.#out.ruleContainer(type, { ...own, entries });
    for (const block of blocks.filter(isOurs)) {
      const rule = this.#sound(block.body, block.at);
      if (rule) this.#out.rule(rule, container, at);
    }
  }

  /** The body as a map, if nothing in it was refused. */
  #sound(body: Body, at: Position): MapNode | undefined {
    const { problems } = this.#out;
    const before = problems.length;
    const node = this.#map(body, at);
    problems.push(...checkTree(node));
    return problems.length === before ? node : undefined;
  }

  #map({ attributes, blocks }: Body, at: Position): MapNode {
    const entries = attributes.flatMap((attribute) => this.#attribute(attribute) ?? []);
    const lists = Map.groupBy(blocks, ({ type }) => type);
    for (const [type, same] of lists) {
      if (META_IGNORED.has(type)) continue;
      if (META_REFUSED.has(type)) this.#say(same[0]!.at, `cannot evaluate ${type}: ${NOT_EVALUATED}`);
      const items = same.map((block) => this.#map(block.body, block.at));
      entries.push({ key: type, at: same[0]!.at, value: { kind: 'list', items, at: same[0]!.at } });
    }
    return { kind: 'map', entries, at };
  }

  #attribute({ key, at, value }: Attribute): Entry | undefined {
    if (META_IGNORED.has(key) || (value.kind === 'literal' && value.value === null)) return undefined;
    if (META_REFUSED.has(key)) {
      this.#say(at, `cannot evaluate ${key}: ${NOT_EVALUATED}`);
      return undefined;
    }
    return { key, at, value: this.#value(value) };
  }

  #value(expression: Expression): Node {
    const { at } = expression;
    switch (expression.kind) {
      case 'literal':
        return { kind: 'scalar', value: expression.value, at };
      case 'list':
        return { kind: 'list', items: expression.items.map((item) => this.#value(item)), at };
      case 'object': {
        const entries = expression.members.map((member) => ({ ...member, value: this.#value(member.value) }));
        return { kind: 'map', entries, at };
      }
      case 'reference': {
        const target = targetOf(expression.path);
        if (target !== undefined) return { kind: 'reference', target, at };
        return this.#unevaluated(expression.path.join('.'), at);
      }
      case 'unsupported':
        return this.#unevaluated(expression.text, at);
    }
  }

  #unevaluated(text: string, at: Position): Node {
    const cut = text.length > SHOWN_LENGTH_MAX ? `${text.slice(0, SHOWN_LENGTH_MAX)}…` : text;
    this.#say(at, `cannot evaluate ${escapeControls(cut)}: ${NOT_EVALUATED}`);
    return { kind: 'scalar', value: null, at };
  }
}

/**
 * Reads one Terraform file. Throws PolicyError when it is not HCL; anything else that is wrong is in the
 * draft.
 */
export function readTerraform(source: SourceText): Draft {
  return new TerraformReader().read(parseHcl(source));
}
