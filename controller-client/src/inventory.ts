/** A Lambda function, as far as it matters for its identity on the network. */
export interface LambdaFunction {
  readonly arn: string;
  readonly name: string;
  readonly accountId: string;
  readonly region: string;
  /** Absent for a function outside any VPC: its traffic does not pass the gateway and can't be enforced. */
  readonly vpcId?: string;
  readonly subnetIds: readonly string[];
  readonly securityGroupIds: readonly string[];
  readonly ipv6AllowedForDualStack: boolean;
  readonly tags: Readonly<Record<string, string>>;
}

/**
 * The AWS resource; `cidrs` holds its IPv4 block and all associated IPv6 blocks. `accountId` is the account
 * that sees it: a subnet shared between accounts is listed once for each that was asked.
 */
export interface Subnet {
  readonly id: string;
  readonly accountId: string;
  readonly region: string;
  readonly vpcId: string;
  readonly cidrs: readonly string[];
  readonly tags: Readonly<Record<string, string>>;
}

export interface Vpc {
  readonly id: string;
  readonly accountId: string;
  readonly region: string;
  readonly cidrs: readonly string[];
  readonly tags: Readonly<Record<string, string>>;
}

/**
 * One account and region. `refreshedAt` is when the last complete refresh began: absent, nothing was ever
 * learnt here and groups that depend on it are unresolved. `error` is why the newest refresh failed; what was
 * known stays.
 */
export interface Scope {
  readonly accountId: string;
  readonly region: string;
  readonly refreshedAt?: string;
  readonly error?: string;
}

/** What is known of AWS, sorted by ARN or id within each list, so that equal knowledge is equal data. */
export interface Inventory {
  readonly scopes: readonly Scope[];
  readonly functions: readonly LambdaFunction[];
  readonly subnets: readonly Subnet[];
  readonly vpcs: readonly Vpc[];
}

/** Before anything was learnt. */
export function emptyInventory(): Inventory {
  return { scopes: [], functions: [], subnets: [], vpcs: [] };
}

/**
 * A subnet that a function names and its scope does not list: just deleted, or no longer shared with the
 * account.
 */
export interface MissingSubnet {
  readonly functionArn: string;
  readonly subnetId: string;
}

/**
 * Functions' subnets that the inventory does not know, whose addresses no group can hold; in order of ARN.
 */
export function missingSubnets(inventory: Inventory): MissingSubnet[] {
  const keyOf = (accountId: string, region: string, id: string) => `${accountId} ${region} ${id}`;
  const known = new Set(inventory.subnets.map(({ accountId, region, id }) => keyOf(accountId, region, id)));
  return inventory.functions.flatMap(({ arn, accountId, region, subnetIds }) =>
    subnetIds
      .filter((subnetId) => !known.has(keyOf(accountId, region, subnetId)))
      .map((subnetId) => ({ functionArn: arn, subnetId })),
  );
}
