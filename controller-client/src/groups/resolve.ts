import {
  comparePrefixes,
  type Prefix,
  prefixContains,
  prefixesOfInterval,
  prefixInterval,
  sortPrefixes,
} from 'sluice-gateway/net/prefix.js';
import { SYSTEM_GROUPS } from 'sluice-gateway/policy/model.js';
import type { Inventory, LambdaFunction, Scope, Subnet, Vpc } from '../inventory.js';
import { type Diagnostic, PolicyError, quote } from '../sources/diagnostics.js';
import type { Expression, GroupSpec, LoadedPolicy, ServerlessExpression } from '../sources/model.js';
import { matchesGlob } from './glob.js';
import { blocksOf } from './identity.js';
import { SYSTEM_PREFIXES } from './system.js';

/** Why a prefix is in a group. */
export interface Member {
  readonly prefix: Prefix;
  /** ARN of a function, id of a subnet or VPC, `cidr` or `system`. */
  readonly via: string;
  /** When AWS last said so, RFC 3339; absent where nothing was asked. */
  readonly since?: string;
}

export interface ResolvedGroup {
  readonly name: string;
  /**
   * False: something that may belong to the group was never learnt; `prefixes` is what is known nevertheless.
   */
  readonly resolved: boolean;
  /** Sorted, without duplicates. */
  readonly prefixes: readonly Prefix[];
  /** One entry for each reason, so that a prefix may appear more than once. */
  readonly members: readonly Member[];
}

/** A function that a group selects and that adds less to it than its author may think. */
export interface FunctionProblem {
  readonly group: string;
  readonly functionArn: string;
  readonly message: string;
}

export interface Resolution {
  /** The system groups, then the groups of the policy in its order. */
  readonly groups: readonly ResolvedGroup[];
  readonly problems: readonly FunctionProblem[];
}

export interface ResolveOptions {
  /** Addresses of the gateways: never members of any group. */
  readonly excluded?: readonly Prefix[];
}

type AwsExpression = Exclude<Expression, { type: 'cidr' }>;
type Resource = LambdaFunction | Subnet | Vpc;

/** What is left of a prefix without the excluded ones, in the fewest prefixes. */
function carve(prefix: Prefix, excluded: readonly Prefix[]): Prefix[] {
  if (excluded.some((hole) => hole.length <= prefix.length && prefixContains(hole, prefix))) return [];
  const holes = excluded.filter((hole) => prefixContains(prefix, hole));
  if (holes.length === 0) return [prefix];
  const { family, first, last } = prefixInterval(prefix);
  const left: Prefix[] = [];
  let next = first;
  for (const hole of sortPrefixes(holes).map(prefixInterval)) {
    if (hole.first > next) left.push(...prefixesOfInterval({ family, first: next, last: hole.first - 1n }));
    if (hole.last >= next) next = hole.last + 1n;
  }
  if (next <= last) left.push(...prefixesOfInterval({ family, first: next, last }));
  return left;
}

function isPlaced(expression: AwsExpression, { accountId, region, tags }: Resource): boolean {
  if (expression.accountId !== undefined && expression.accountId !== accountId) return false;
  if (expression.region !== undefined && expression.region !== region) return false;
  return Object.entries(expression.tags ?? {}).every(
    ([key, value]) => Object.hasOwn(tags, key) && tags[key] === value,
  );
}

function isNamed(pattern: string | undefined, name: string | undefined): boolean {
  return pattern === undefined || (name !== undefined && matchesGlob(pattern, name));
}

class Resolver {
  readonly errors: Diagnostic[] = [];
  readonly problems: FunctionProblem[] = [];
  readonly #inventory: Inventory;
  readonly #excluded: readonly Prefix[];
  readonly #subnets: ReadonlyMap<string, Subnet>;
  readonly #scopes: ReadonlyMap<string, Scope>;
  readonly #allLearnt: boolean;
  /** Groups with a function whose subnet may lie where nothing was learnt. */
  readonly #incomplete = new Set<string>();
  readonly #blocks = new Map<string, readonly Prefix[]>();

  constructor(inventory: Inventory, excluded: readonly Prefix[]) {
    this.#inventory = inventory;
    this.#excluded = excluded;
    this.#subnets = new Map(inventory.subnets.map((subnet) => [subnet.id, subnet]));
    this.#scopes = new Map(inventory.scopes.map((scope) => [scopeKey(scope), scope]));
    this.#allLearnt = inventory.scopes.every(({ refreshedAt }) => refreshedAt !== undefined);
  }

  group({ name, expressions }: GroupSpec): ResolvedGroup {
    const members = expressions.flatMap((expression) => this.#members(name, expression));
    const learnt = expressions.every((expression) => this.#isLearnt(expression));
    return this.#finish(name, members, learnt && !this.#incomplete.has(name));
  }

  system(name: (typeof SYSTEM_GROUPS)[number]): ResolvedGroup {
    const members = SYSTEM_PREFIXES[name].map((prefix) => ({ prefix, via: 'system' }));
    return this.#finish(name, members, true);
  }

  #finish(name: string, whole: readonly Member[], resolved: boolean): ResolvedGroup {
    const members = whole
      .flatMap((member) => carve(member.prefix, this.#excluded).map((prefix) => ({ ...member, prefix })))
      .sort((a, b) => comparePrefixes(a.prefix, b.prefix) || (a.via < b.via ? -1 : a.via > b.via ? 1 : 0));
    return { name, resolved, prefixes: sortPrefixes(members.map(({ prefix }) => prefix)), members };
  }

  /** Whether every account and region that the expression may select from was learnt at least once. */
  #isLearnt(expression: Expression): boolean {
    if (expression.type === 'cidr') return true;
    const { accountId, region } = expression;
    const scopes = this.#inventory.scopes.filter(
      (scope) =>
        (accountId === undefined || accountId === scope.accountId) &&
        (region === undefined || region === scope.region),
    );
    return scopes.length > 0 && scopes.every(({ refreshedAt }) => refreshedAt !== undefined);
  }

  #members(group: string, expression: Expression): Member[] {
    switch (expression.type) {
      case 'cidr':
        return [{ prefix: expression.prefix, via: 'cidr' }];
      case 'serverless':
        return this.#inventory.functions
          .filter((fn) => matchesFunction(expression, fn))
          .flatMap((fn) => this.#functionMembers(group, fn));
      case 'subnet':
        return this.#resourceMembers(expression, this.#inventory.subnets).filter(
          ({ via }) => expression.vpcId === undefined || expression.vpcId === this.#subnets.get(via)?.vpcId,
        );
      case 'vpc':
        return this.#resourceMembers(expression, this.#inventory.vpcs);
    }
  }

  #functionMembers(group: string, fn: LambdaFunction): Member[] {
    const tell = (message: string) => this.problems.push({ group, functionArn: fn.arn, message });
    if (fn.vpcId === undefined) {
      tell(`function ${quote(fn.name)} is in no VPC: its traffic does not pass the gateway`);
      return [];
    }
    return fn.subnetIds.flatMap((id) => {
      const subnet = this.#subnets.get(id);
      if (subnet !== undefined) return this.#blockMembers(subnet, fn.arn);
      if (this.#allLearnt)
        tell(`function ${quote(fn.name)} names subnet ${quote(id)}, which AWS does not know`);
      else this.#incomplete.add(group);
      return [];
    });
  }

  #resourceMembers(
    expression: Exclude<AwsExpression, ServerlessExpression>,
    resources: readonly (Subnet | Vpc)[],
  ) {
    const { type, id, name, at } = expression;
    const selected = resources.filter(
      (resource) =>
        (id === undefined || id === resource.id) &&
        isPlaced(expression, resource) &&
        isNamed(name, resource.tags.Name),
    );
    if (id !== undefined && this.#isLearnt(expression) && !resources.some((resource) => resource.id === id)) {
      this.errors.push({ ...at, message: `unknown ${type} ${quote(id)}: AWS knows none of this id here` });
    }
    return selected.flatMap((resource) => this.#blockMembers(resource, resource.id));
  }

  #blockMembers(resource: Subnet | Vpc, via: string): Member[] {
    const known = this.#blocks.get(resource.id);
    const blocks = known ?? blocksOf(resource);
    if (known === undefined) this.#blocks.set(resource.id, blocks);
    const since = this.#scopes.get(scopeKey(resource))?.refreshedAt;
    return blocks.map((prefix) => ({ prefix, via, ...(since === undefined ? {} : { since }) }));
  }
}

function scopeKey({ accountId, region }: { readonly accountId: string; readonly region: string }): string {
  return `${accountId}/${region}`;
}

function matchesFunction(expression: ServerlessExpression, fn: LambdaFunction): boolean {
  if (expression.vpcId !== undefined && expression.vpcId !== fn.vpcId) return false;
  return isNamed(expression.name, fn.name) && isPlaced(expression, fn);
}

/**
 * Turns groups as written into prefixes. A function contributes every IPv4 and IPv6 block of each of its
 * subnets: a dual-stack function sends from both. Throws PolicyError for a subnet or VPC named by an id that
 * a fully learnt inventory does not hold. O(groups × resources).
 */
export function resolveGroups(
  specs: readonly GroupSpec[],
  inventory: Inventory,
  { excluded = [] }: ResolveOptions = {},
): Resolution {
  const resolver = new Resolver(inventory, excluded);
  const groups = [
    ...SYSTEM_GROUPS.map((name) => resolver.system(name)),
    ...specs.map((spec) => resolver.group(spec)),
  ];
  if (resolver.errors.length > 0) throw new PolicyError(resolver.errors);
  return { groups, problems: resolver.problems };
}

/**
 * Refuses a policy that would take something away from a group whose members are not all known: a DENY or
 * REJECT in force would then let pass what it should stop. Throws PolicyError naming every such rule and
 * group.
 */
export function checkReferences(
  { policy, places }: Pick<LoadedPolicy, 'policy' | 'places'>,
  groups: readonly ResolvedGroup[],
): void {
  const unresolved = new Set(groups.filter(({ resolved }) => !resolved).map(({ name }) => name));
  const problems = policy.rules.flatMap(({ name, action, enforcement, src, dst }): Diagnostic[] => {
    if (action === 'PERMIT' || enforcement !== 'ENFORCE') return [];
    const at = places.get(name);
    if (at === undefined) throw new Error(`Cannot check rule ${quote(name)}: its place is not known`);
    const named = [...new Set([...src, ...dst])].filter((group) => unresolved.has(group));
    return named.map((group) => {
      const what = `rule ${quote(name)} is a ${action} on group ${quote(group)}, whose members are not all known`;
      return { ...at, message: `${what}: an account or region it selects from was never read` };
    });
  });
  if (problems.length > 0) throw new PolicyError(problems);
}
