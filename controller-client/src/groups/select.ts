import type { Instance, Inventory, LambdaFunction, Scope, Subnet, Vpc } from '../inventory.js';
import type { Conditions, PrefixListSelector, ResourceExpression } from '../sources/model.js';
import { matchesGlob } from './glob.js';

export type Selectable = LambdaFunction | Instance | Subnet | Vpc;

function isNamed(pattern: string | undefined, name: string | undefined): boolean {
  return pattern === undefined || (name !== undefined && matchesGlob(pattern, name));
}

const isSame = (wanted: string | undefined, value: string | undefined) =>
  wanted === undefined || wanted === value;

/** What a value has to match: most patterns are just a text. */
function matching(pattern: string): (value: string) => boolean {
  return /[*?]/.test(pattern) ? (value) => matchesGlob(pattern, value) : (value) => value === pattern;
}

/** Whether all conditions hold for a resource; made once for many resources. */
export function selecting(conditions: Conditions): (resource: Selectable) => boolean {
  const { id, name, accountId, region, zone, vpcId, securityGroup, tags = {} } = conditions;
  const wanted = Object.entries(tags).map(([key, pattern]) => [key, matching(pattern)] as const);
  return (resource) => {
    const isFunction = 'arn' in resource;
    return (
      isSame(id, isFunction ? resource.arn : resource.id) &&
      isNamed(name, isFunction ? resource.name : resource.tags.Name) &&
      isSame(accountId, resource.accountId) &&
      isSame(region, resource.region) &&
      isSame(vpcId, 'vpcId' in resource ? resource.vpcId : undefined) &&
      isSame(zone, 'zone' in resource ? resource.zone : undefined) &&
      (securityGroup === undefined || (isFunction && resource.securityGroupIds.includes(securityGroup))) &&
      wanted.every(([key, isMatch]) => Object.hasOwn(resource.tags, key) && isMatch(resource.tags[key]!))
    );
  };
}

/** The accounts and regions that an expression may select from. */
export function scopesOf(
  { accountId, region }: Pick<Conditions, 'accountId' | 'region'>,
  inventory: Inventory,
): readonly Scope[] {
  return inventory.scopes.filter(
    (scope) => isSame(accountId, scope.accountId) && isSame(region, scope.region),
  );
}

/** Why not everything that an expression may select is known; undefined when it is. */
export function whyUnknown(
  expression: ResourceExpression | PrefixListSelector,
  inventory: Inventory,
): string | undefined {
  const scopes = scopesOf(expression, inventory);
  const lacking = (part: keyof Scope['learntAt']) =>
    scopes.some(({ learntAt }) => learntAt[part] === undefined);
  if (inventory.scopes.length === 0) return 'nothing is known of AWS';
  if (scopes.length === 0) return 'no account and region of the configuration is what it selects from';
  if (scopes.some(({ refreshedAt }) => refreshedAt === undefined))
    return 'an account or region it selects from was never read';
  switch (expression.type) {
    case 'prefixList':
      return lacking('prefixLists') ? 'prefix lists were never read' : undefined;
    case 'vm':
      return lacking('instances') ? 'instances were never read' : undefined;
    case 'serverless': {
      const { tags, not } = expression;
      const needsTags = tags !== undefined || (not?.type === 'conditions' && not.tags !== undefined);
      return needsTags && lacking('tags') ? 'tags of functions were never read' : undefined;
    }
    case 'subnet':
    case 'vpc':
      return undefined;
  }
}
