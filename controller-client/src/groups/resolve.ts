import { comparePrefixes, type Prefix, sortPrefixes } from 'sluice-gateway/net/prefix.js';
import { SYSTEM_GROUPS } from 'sluice-gateway/policy/model.js';
import {
  type Instance,
  type Inventory,
  type LambdaFunction,
  type Subnet,
  subnetsById,
} from '../inventory.js';
import { type Diagnostic, PolicyError, quote } from '../sources/diagnostics.js';
import {
  type AddressSelector,
  type Expression,
  feedKey,
  type GroupSpec,
  type PrefixListSelector,
  type ResourceExpression,
} from '../sources/model.js';
import { changedFunctions, type FunctionChange, hasMoved } from './delta.js';
import { matchesGlob } from './glob.js';
import { type AgeLimit, ENI_MAX_AGE_SECONDS, InterfaceUse, parseBlocks, scopeKey } from './interfaces.js';
import { expiryOf, Holes, type Member, sortMembers } from './members.js';
import { type Selectable, scopesOf, selecting, whyUnknown } from './select.js';
import { type FunctionProblem, sharingProblems, tellsSharing } from './sharing.js';
import { SYSTEM_PREFIXES } from './system.js';

/** Why a group may hold something else than it should; each is in words, for a sentence that begins with it. */
export interface Doubt {
  /** Something that may belong to the group is not known. */
  readonly lacks?: string | undefined;
  /** Something that may have to be taken away is not known: the group may hold too much. */
  readonly exceeds?: string | undefined;
}

export interface ResolvedGroup extends Doubt {
  readonly name: string;
  /** Whether there is no doubt; `prefixes` is what is known nevertheless. */
  readonly resolved: boolean;
  /** Sorted, without duplicates. */
  readonly prefixes: readonly Prefix[];
  /** One entry for each reason, so that a prefix may appear more than once. */
  readonly members: readonly Member[];
  /** What is left of it from then on while nothing new is learnt. */
  readonly expires?: { readonly at: Date; readonly prefixes: readonly Prefix[] };
}

export interface Resolution {
  /** The system groups, then the groups of the policy in its order. */
  readonly groups: readonly ResolvedGroup[];
  readonly problems: readonly FunctionProblem[];
  /** What is named by an id and gone. */
  readonly gone: readonly Diagnostic[];
}

/** What a name or feed was last known to hold. */
export interface KnownFeed {
  readonly prefixes: readonly { readonly prefix: Prefix; readonly seenAt?: string }[];
}

export interface ResolveOptions extends Partial<AgeLimit> {
  /** By `feedKey`; what is not there was never learnt. */
  readonly feeds?: ReadonlyMap<string, KnownFeed>;
  /** The policy was good before: what it names by an id and AWS no longer knows is told, and no error. */
  readonly wasGood?: boolean;
  /** Refuses groups whose functions share addresses with functions outside of them. */
  readonly strictIdentity?: boolean;
  /** Groups whose interface addresses stay, however old, while AWS does not answer: see `deniedOnly`. */
  readonly outlasting?: ReadonlySet<string>;
  /**
   * Groups that were resolved with the same options: those that no changed function can touch stay; prefixes that come
   * out as they were are the same array.
   */
  readonly before?: ResolvedBefore | undefined;
}

export interface ResolvedBefore {
  readonly specs: readonly GroupSpec[];
  readonly inventory: Inventory;
  readonly resolution: Resolution;
}

interface Part extends Doubt {
  readonly members: readonly Member[];
}

const seen = (seenAt: string | undefined) => (seenAt === undefined ? {} : { seenAt });

/** Those of sorted members; the same array as before where they are the same. */
function distinctPrefixes(members: readonly Member[], before?: readonly Prefix[]): readonly Prefix[] {
  const prefixes = sortPrefixes(members.map(({ prefix }) => prefix));
  const isSame =
    before?.length === prefixes.length &&
    before.every((prefix, index) => comparePrefixes(prefix, prefixes[index]!) === 0);
  return isSame ? before : prefixes;
}

class Resolver {
  readonly errors: Diagnostic[] = [];
  readonly gone: Diagnostic[] = [];
  readonly problems: FunctionProblem[] = [];
  readonly #inventory: Inventory;
  readonly #options: ResolveOptions;
  readonly #specs: ReadonlyMap<string, GroupSpec>;
  readonly #before: ReadonlyMap<string, ResolvedGroup>;
  readonly #done = new Map<string, ResolvedGroup>();
  readonly #subnets: ReadonlyMap<string, Subnet>;
  readonly #allLearnt: boolean;
  #lazyUse: InterfaceUse | undefined;
  #lazyUseOfAnyAge: InterfaceUse | undefined;
  readonly #limit: AgeLimit;
  readonly #blocks = new Map<object, readonly Prefix[]>();

  constructor(specs: readonly GroupSpec[], inventory: Inventory, options: ResolveOptions) {
    const { now = new Date(), eniMaxAgeSeconds = ENI_MAX_AGE_SECONDS } = options;
    this.#inventory = inventory;
    this.#options = options;
    this.#specs = new Map(specs.map((spec) => [spec.name, spec]));
    this.#subnets = subnetsById(inventory);
    this.#allLearnt = inventory.scopes.every(({ refreshedAt }) => refreshedAt !== undefined);
    this.#limit = { now, eniMaxAgeSeconds };
    this.#before = new Map(options.before?.resolution.groups.map((group) => [group.name, group]));
    for (const group of this.#followed(specs)) this.#done.set(group.name, group);
  }

  get #use(): InterfaceUse {
    this.#lazyUse ??= new InterfaceUse(this.#inventory, this.#limit);
    return this.#lazyUse;
  }

  get #useOfAnyAge(): InterfaceUse {
    this.#lazyUseOfAnyAge ??= new InterfaceUse(this.#inventory, {
      ...this.#limit,
      eniMaxAgeSeconds: Number.POSITIVE_INFINITY,
    });
    return this.#lazyUseOfAnyAge;
  }

  /** A group by its name, a system group or one of the policy's; each is resolved once. */
  group(name: string): ResolvedGroup {
    const known = this.#done.get(name) ?? this.#resolve(name);
    this.#done.set(name, known);
    return known;
  }

  #resolve(name: string): ResolvedGroup {
    const spec = this.#specs.get(name);
    if (spec === undefined) {
      const prefixes = SYSTEM_PREFIXES[name as (typeof SYSTEM_GROUPS)[number]];
      return this.#finish(name, [{ members: prefixes.map((prefix) => ({ prefix, via: 'system' })) }]);
    }
    const group = this.#finish(
      name,
      spec.expressions.map((expression) => this.#expression(spec, expression)),
    );
    if (this.#options.strictIdentity !== true && !tellsSharing(spec)) return group;
    const sharing = sharingProblems(spec, group.members, this.#inventory, this.#use);
    if (this.#options.strictIdentity !== true) {
      this.problems.push(...sharing);
    } else if (sharing[0] !== undefined) {
      const more = sharing.length === 1 ? '' : `, and ${sharing.length - 1} more of that kind`;
      const message = `${sharing[0].message}${more}; strictIdentity refuses that`;
      this.errors.push({ ...spec.at, message: `group ${quote(name)}: ${message}` });
    }
    return group;
  }

  /** Groups resolved before, as far as what functions became tells all that is other in them. */
  #followed(specs: readonly GroupSpec[]): ResolvedGroup[] {
    const { before, strictIdentity } = this.#options;
    if (before === undefined || before.specs !== specs || strictIdentity === true) return [];
    const changes = changedFunctions(before.inventory, this.#inventory);
    if (changes === undefined) return [];
    const moved = new Set(changes.filter(hasMoved));
    const hasProblem = new Set(before.resolution.problems.map(({ group }) => group));
    return before.resolution.groups.flatMap((group): ResolvedGroup | [] => {
      const spec = this.#specs.get(group.name);
      if (spec === undefined) return group;
      if (!isOfFunctions(spec)) return [];
      const changed = changes.filter((change) => {
        const is = selects(spec, change.after);
        return selects(spec, change.before) !== is || (is && moved.has(change));
      });
      if (changed.length === 0) return group;
      return hasProblem.has(group.name) ? [] : (this.#edited(spec, group, changed) ?? []);
    });
  }

  /** A group without doubts or problems, with other functions in it; undefined where there would be some. */
  #edited(
    spec: GroupSpec,
    group: ResolvedGroup,
    changes: readonly FunctionChange[],
  ): ResolvedGroup | undefined {
    const selected = changes.flatMap(({ after }) => (after && selects(spec, after) ? [after] : []));
    const isPlain = ({ vpcId, subnetIds }: LambdaFunction) =>
      vpcId !== undefined && subnetIds.every((id) => this.#subnets.has(id));
    if (!group.resolved || !selected.every(isPlain)) return undefined;
    const gone = new Set(changes.map(({ arn }) => arn));
    const added = selected.flatMap((fn) => this.#functionPart(spec, fn).members);
    const members = sortMembers([...group.members.filter(({ via }) => !gone.has(via)), ...added]);
    return { ...group, members, prefixes: distinctPrefixes(members, group.prefixes) };
  }

  #finish(name: string, parts: readonly Part[]): ResolvedGroup {
    const members = sortMembers(parts.flatMap((part) => part.members));
    const lacks = parts.find((part) => part.lacks !== undefined)?.lacks;
    const exceeds = parts.find((part) => part.exceeds !== undefined)?.exceeds;
    const prefixes = distinctPrefixes(members, this.#before.get(name)?.prefixes);
    const resolved = lacks === undefined && exceeds === undefined;
    const expires = expiryOf(members);
    const doubt = { ...(lacks && { lacks }), ...(exceeds && { exceeds }) };
    return { name, resolved, prefixes, members, ...doubt, ...(expires && { expires }) };
  }

  #expression(spec: GroupSpec, expression: Expression): Part {
    const { not } = expression;
    const base = isResource(expression) ? this.#resources(spec, expression) : this.#addresses(expression);
    if (not === undefined || not.type === 'conditions') return base;
    const taken = this.#addresses(not);
    return {
      members: new Holes(taken.members.map(({ prefix }) => prefix)).take(base.members),
      lacks: base.lacks ?? taken.exceeds,
      exceeds: base.exceeds ?? (taken.lacks && `under its "not", ${taken.lacks}`),
    };
  }

  #addresses(selector: AddressSelector): Part {
    switch (selector.type) {
      case 'cidr':
        return { members: [{ prefix: selector.prefix, via: 'cidr' }] };
      case 'group': {
        const { members, lacks, exceeds } = this.group(selector.group);
        const inner = members.map((member) => ({ ...member, group: selector.group }));
        return { members: inner, lacks, exceeds };
      }
      case 'prefixList':
        return this.#prefixLists(selector);
      case 'fqdn':
      case 'external': {
        const key = feedKey(selector);
        const known = this.#options.feeds?.get(key);
        if (known === undefined) return { members: [], lacks: `${key} was never learnt` };
        return { members: known.prefixes.map((one) => ({ ...one, via: key })) };
      }
    }
  }

  #prefixLists(selector: PrefixListSelector): Part {
    const { prefixList, at } = selector;
    const scopes = new Set(scopesOf(selector, this.#inventory).map(scopeKey));
    const lists = this.#inventory.prefixLists.filter(
      (list) => scopes.has(scopeKey(list)) && (list.id === prefixList || matchesGlob(prefixList, list.name)),
    );
    const lacks = whyUnknown(selector, this.#inventory);
    if (lists.length === 0 && lacks === undefined) {
      this.#unknown({
        ...at,
        message: `unknown prefix list ${quote(prefixList)}: AWS shows none of this id or name here`,
      });
    }
    return { members: lists.flatMap((list) => this.#blockMembers(list, list.id)), lacks };
  }

  #resources(spec: GroupSpec, expression: ResourceExpression): Part {
    const { type, not } = expression;
    const doubt = whyUnknown(expression, this.#inventory);
    const without = not?.type === 'conditions' ? not : undefined;
    const all: Readonly<Record<typeof type, readonly Selectable[]>> = {
      serverless: this.#inventory.functions,
      vm: this.#inventory.instances,
      subnet: this.#inventory.subnets,
      vpc: this.#inventory.vpcs,
    };
    const isIn = selecting(expression);
    const isOut = without === undefined ? () => false : selecting(without);
    const selected = all[type].filter((one) => isIn(one) && !isOut(one));
    if (doubt === undefined) this.#checkId(expression, all[type]);
    const parts = selected.map((one): Part => {
      if ('arn' in one) return this.#functionPart(spec, one);
      return { members: 'addresses' in one ? this.#instance(one) : this.#blockMembers(one, one.id) };
    });
    return {
      members: parts.flatMap(({ members }) => members),
      lacks: doubt ?? parts.find((part) => part.lacks !== undefined)?.lacks,
      exceeds: doubt && without && `under its "not", ${doubt}`,
    };
  }

  /** Nothing to be in a group: an error of new policy, but no reason to keep what is in force from changing. */
  #unknown(diagnostic: Diagnostic): void {
    (this.#options.wasGood === true ? this.gone : this.errors).push(diagnostic);
  }

  /** Of what is named by its id AWS knows one, or the policy is wrong; a function may be deployed later. */
  #checkId({ type, id, at }: ResourceExpression, resources: readonly Selectable[]): void {
    if (id === undefined || type === 'serverless') return;
    if (resources.some((one) => 'id' in one && one.id === id)) return;
    this.#unknown({ ...at, message: `unknown ${type} ${quote(id)}: AWS knows none of this id here` });
  }

  #instance(one: Instance): Member[] {
    return parseBlocks(one.id, one.addresses).map((prefix) => ({ prefix, via: one.id, seenAt: one.seenAt }));
  }

  #functionPart({ name: group, resolve }: GroupSpec, fn: LambdaFunction): Part {
    const tell = (message: string) => this.problems.push({ group, functionArn: fn.arn, message });
    if (fn.vpcId === undefined) {
      tell(`function ${quote(fn.name)} is in no VPC: its traffic does not pass the gateway`);
      return { members: [] };
    }
    if (resolve === 'eni') return this.#interfacePart(group, fn, tell);
    const parts = fn.subnetIds.map((id): Part => {
      const subnet = this.#subnets.get(id);
      if (subnet !== undefined) return { members: this.#blockMembers(subnet, fn.arn, id) };
      const what = `function ${quote(fn.name)} names subnet ${quote(id)}`;
      if (!this.#allLearnt) return { members: [], lacks: `${what}, which may lie where nothing was read` };
      tell(`${what}, which AWS does not know`);
      return { members: [] };
    });
    return {
      members: parts.flatMap(({ members }) => members),
      lacks: parts.find((part) => part.lacks !== undefined)?.lacks,
    };
  }

  #interfacePart(group: string, fn: LambdaFunction, tell: (message: string) => void): Part {
    const [scope] = scopesOf(fn, this.#inventory);
    const learntAt = scope?.learntAt.interfaces;
    if (learntAt === undefined) return { members: [], lacks: 'network interfaces were never read' };
    const limit = `the limit eniMaxAgeSeconds is ${this.#limit.eniMaxAgeSeconds}`;
    const isFresh = this.#use.isFresh(learntAt);
    const outlasts = !isFresh && this.#options.outlasting?.has(group) === true;
    const use = outlasts ? this.#useOfAnyAge : this.#use;
    const members = fn.subnetIds.flatMap((subnetId) =>
      use.interfacesOf(fn, subnetId).flatMap((one) =>
        use.addressesOf(one).map((prefix) => ({
          ...{ prefix, via: fn.arn, by: one.id, seenAt: one.seenAt },
          until: this.#use.until(one.seenAt),
        })),
      ),
    );
    const age = `network interfaces were last read at ${learntAt}, ${limit}`;
    if (outlasts) {
      tell(`function ${quote(fn.name)} keeps its addresses, since rules deny by them: ${age}`);
      return { members };
    }
    if (!isFresh) return { members, lacks: age };
    if (members.length === 0) {
      tell(`function ${quote(fn.name)} has no network interface that AWS showed lately: ${limit}`);
    }
    return { members };
  }

  #blockMembers(
    resource: { id: string; cidrs: readonly string[]; seenAt: string },
    via: string,
    by?: string,
  ) {
    const blocks = this.#blocks.get(resource) ?? parseBlocks(resource.id, resource.cidrs);
    this.#blocks.set(resource, blocks);
    const why = { via, ...(by === undefined ? {} : { by }), ...seen(resource.seenAt) };
    return blocks.map((prefix): Member => ({ prefix, ...why }));
  }
}

function isResource(expression: Expression): expression is ResourceExpression {
  return ['serverless', 'vm', 'subnet', 'vpc'].includes(expression.type);
}

/** Whether a group holds functions by their subnets, and nothing else. */
const isOfFunctions = ({ resolve, expressions }: GroupSpec) =>
  resolve !== 'eni' && expressions.every(({ type, not }) => type === 'serverless' && not === undefined);

const selects = ({ expressions }: GroupSpec, fn: LambdaFunction | undefined) =>
  fn !== undefined && expressions.some((expression) => isResource(expression) && selecting(expression)(fn));

/**
 * Turns groups as written into prefixes. A function contributes every IPv4 and IPv6 block of each of its subnets:
 * a dual-stack function sends from both; with `resolve: eni` the addresses of its network interfaces, as long as
 * they were seen lately. Throws PolicyError for a resource named by an id that a fully learnt inventory does not
 * hold, where the policy was not good before. O(groups × resources).
 */
export function resolveGroups(
  specs: readonly GroupSpec[],
  inventory: Inventory,
  options: ResolveOptions = {},
): Resolution {
  const resolver = new Resolver(specs, inventory, options);
  const groups = [...SYSTEM_GROUPS, ...specs.map(({ name }) => name)].map((name) => resolver.group(name));
  if (resolver.errors.length > 0) throw new PolicyError(resolver.errors);
  const resolved = new Set(groups);
  const kept = options.before?.resolution.groups.filter((group) => resolved.has(group)) ?? [];
  const keptNames = new Set(kept.map(({ name }) => name));
  const before = options.before?.resolution.problems.filter(({ group }) => keptNames.has(group)) ?? [];
  const order = new Map(specs.map(({ name }, index) => [name, index]));
  const problems = [...before, ...resolver.problems].sort(
    (a, b) => order.get(a.group)! - order.get(b.group)!,
  );
  return { groups, problems, gone: resolver.gone };
}
