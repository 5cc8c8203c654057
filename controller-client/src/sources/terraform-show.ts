import { quote } from './diagnostics.js';
import {
  type Draft,
  type Entry,
  entryOf,
  itemsOf,
  type MapNode,
  type Node,
  textOf,
  toPlain,
  valueAt,
} from './node.js';
import {
  ATTACHMENT_POINT,
  DEFAULT_ACTION,
  isPolicyResource,
  ResourceReader,
  RULE_BLOCKS,
  SMART_GROUP,
  unsupportedResource,
} from './resources.js';

const FORMAT_MAJOR = '1';

const GROUP_LISTS = ['src_smart_groups', 'dst_smart_groups'];
/** What may be unknown in a plan: it says nothing about packets, or is looked at where rules are read. */
const MAY_BE_UNKNOWN = new Set([
  ...['id', 'uuid', 'system_resource', 'metadata', 'log_profile', 'exclude_sg_orchestration'],
  ...GROUP_LISTS,
]);
const GIVE_STATE = 'give the output of terraform show -json for the state, after it was';

/** Whether a JSON document is what `terraform show -json` prints, of a state or of a plan. */
export function isTerraformShow(root: Node): boolean {
  return entryOf(root, 'format_version') !== undefined && entryOf(root, 'version') === undefined;
}

/** Without what Terraform leaves empty: it prints every attribute of a resource. */
function given(node: MapNode): MapNode {
  const isSet = ({ value }: Entry) => value.kind !== 'scalar' || value.value !== null;
  return { ...node, entries: node.entries.filter(isSet) };
}

/** Reads the evaluated resources of a state, or of a plan as far as it knows them before it is applied. */
class ShowReader {
  readonly #out = new ResourceReader();
  #isPlan = false;

  read(root: Node): Draft {
    const version = textOf(root, 'format_version') ?? '';
    if (version.split('.')[0] !== FORMAT_MAJOR) {
      const what = `"format_version" is ${quote(version)}, expected ${FORMAT_MAJOR}.x`;
      this.#out.say(valueAt(root, 'format_version')!.at, what);
      return this.#out.draft();
    }
    const planned = valueAt(root, 'planned_values');
    this.#isPlan = planned !== undefined;
    if (this.#isPlan) this.#checkPlan(root);
    const values = planned ?? valueAt(root, 'values');
    const module = valueAt(values, 'root_module');
    if (module === undefined) {
      this.#out.say(values?.at ?? root.at, 'no "root_module" is here: the state or plan is empty');
    } else this.#module(module);
    return this.#out.draft();
  }

  /** A plan leaves out what it does not know: a condition or port that is not there would make a rule wider. */
  #checkPlan(root: Node): void {
    for (const [key, expected] of [
      ['errored', false],
      ['complete', true],
    ] as const) {
      const value = valueAt(root, key);
      if (value === undefined || toPlain(value) === expected) continue;
      this.#out.say(
        value.at,
        `the plan is not complete, groups or rules may be missing: ${GIVE_STATE} applied`,
      );
    }
    const changes = valueAt(root, 'resource_changes');
    if (changes === undefined)
      this.#out.say(
        root.at,
        `the plan has no "resource_changes", which say what it leaves out: ${GIVE_STATE} applied`,
      );
    for (const change of itemsOf(changes)) {
      const unknown = valueAt(valueAt(change, 'change'), 'after_unknown');
      const isOurs = isPolicyResource(textOf(change, 'type') ?? '') && textOf(change, 'mode') !== 'data';
      if (isOurs && unknown) this.#checkKnown(textOf(change, 'address') ?? 'resource', unknown);
    }
  }

  #checkKnown(what: string, unknown: Node, mayBeUnknown = MAY_BE_UNKNOWN): void {
    if (unknown.kind === 'scalar' && unknown.value === true) {
      this.#out.say(unknown.at, `${quote(what)} is not known before the plan is applied: ${GIVE_STATE}`);
    }
    for (const item of itemsOf(unknown)) this.#checkKnown(what, item, mayBeUnknown);
    for (const { key, value } of unknown.kind === 'map' ? unknown.entries : []) {
      // In a selector they are conditions, or names of tags.
      const inner = key === 'selector' ? new Set<string>() : mayBeUnknown;
      if (!mayBeUnknown.has(key)) this.#checkKnown(key, value, inner);
    }
  }

  #module(node: Node): void {
    for (const resource of itemsOf(valueAt(node, 'resources'))) this.#resource(resource);
    for (const child of itemsOf(valueAt(node, 'child_modules'))) this.#module(child);
  }

  #resource(resource: Node): void {
    const type = textOf(resource, 'type') ?? '';
    const values = valueAt(resource, 'values');
    if (!isPolicyResource(type) || values?.kind !== 'map') return;
    const node = { ...given(values), at: resource.at };
    const isData = textOf(resource, 'mode') === 'data';
    if (isData && type === ATTACHMENT_POINT) {
      this.#out.attachmentPoint(textOf(node, 'id') ?? '', textOf(node, 'name') ?? '', resource.at);
    } else if (isData) return;
    else if (type === SMART_GROUP) this.#smartGroup(node);
    else if (Object.hasOwn(RULE_BLOCKS, type)) this.#rules(type, node);
    else if (type === DEFAULT_ACTION) this.#out.defaultAction(node);
    else this.#out.say(resource.at, unsupportedResource(type));
  }

  #smartGroup(node: MapNode): void {
    const uuid = textOf(node, 'uuid') ?? textOf(node, 'id');
    if (uuid !== undefined) this.#out.reference(uuid, textOf(node, 'name') ?? '', node.at);
    this.#out.smartGroup(node);
  }

  #rules(type: string, node: MapNode): void {
    const block = RULE_BLOCKS[type]!;
    const entries = node.entries.filter(({ key }) => key !== block);
    const container = this.#out.ruleContainer(type, { ...node, entries });
    for (const rule of itemsOf(valueAt(node, block))) {
      if (rule.kind === 'map') this.#out.rule(this.#rule(given(rule)), container, node.at);
    }
  }

  /** `watch` is printed as false also where `enforcement` says what holds. */
  #rule(rule: MapNode): MapNode {
    for (const key of this.#isPlan ? GROUP_LISTS : []) {
      if (entryOf(rule, key) !== undefined) continue;
      this.#out.say(rule.at, `${quote(key)} is not known before the plan is applied: ${GIVE_STATE}`);
    }
    const watch = valueAt(rule, 'watch');
    const isIdle = watch !== undefined && toPlain(watch) === false && Boolean(textOf(rule, 'enforcement'));
    return isIdle ? { ...rule, entries: rule.entries.filter(({ key }) => key !== 'watch') } : rule;
  }
}

/** Reads the JSON of `terraform show -json`: code with variables, modules and for_each is evaluated in it. */
export function readTerraformShow(root: Node): Draft {
  return new ShowReader().read(root);
}
