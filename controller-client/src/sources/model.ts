import type { Prefix } from 'sluice-gateway/net/prefix.js';
import type { Policy } from 'sluice-gateway/policy/model.js';
import type { Diagnostic, Position } from './diagnostics.js';

/** Conditions on where a resource lies; absent means any. */
interface Placed {
  readonly accountId?: string | undefined;
  readonly region?: string | undefined;
  /** All must be there with these values. */
  readonly tags?: Readonly<Record<string, string>> | undefined;
  readonly at: Position;
}

/** Lambda functions; `name` is a glob. */
export interface ServerlessExpression extends Placed {
  readonly type: 'serverless';
  readonly name?: string | undefined;
  readonly vpcId?: string | undefined;
}

/** Subnets; `name` is a glob over the Name tag. */
export interface SubnetExpression extends Placed {
  readonly type: 'subnet';
  readonly id?: string | undefined;
  readonly name?: string | undefined;
  readonly vpcId?: string | undefined;
}

/** VPCs with all their blocks; `name` is a glob over the Name tag. */
export interface VpcExpression extends Placed {
  readonly type: 'vpc';
  readonly id?: string | undefined;
  readonly name?: string | undefined;
}

export interface CidrExpression {
  readonly type: 'cidr';
  readonly prefix: Prefix;
  readonly at: Position;
}

/** One AND of conditions. */
export type Expression = ServerlessExpression | SubnetExpression | VpcExpression | CidrExpression;

/** A SmartGroup as written: the union of its expressions. */
export interface GroupSpec {
  readonly name: string;
  readonly expressions: readonly Expression[];
  readonly at: Position;
}

/** What policy files say, checked: every name in it is defined. */
export interface LoadedPolicy {
  /** Rules in the order of evaluation. */
  readonly policy: Policy;
  readonly groups: readonly GroupSpec[];
  /** Where each rule stands, by its name. */
  readonly places: ReadonlyMap<string, Position>;
  readonly warnings: readonly Diagnostic[];
}
