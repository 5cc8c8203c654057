import type { FunctionOwner, Matcher } from '../matcher/matcher.js';
import { type Address, printAddress } from '../net/address.js';
import { once } from './once.js';
import { type FlowRecord, RECORD_NAMES_MAX } from './record.js';

/** What attribution asks of the matcher. */
export type Attributor = Pick<Matcher, 'groupsOf' | 'functionsOf'>;

export type FlowSource = NonNullable<FlowRecord['src']>;
export type FlowDestination = NonNullable<FlowRecord['dst']>;

/** The value that all have in common. */
function common<T>(values: readonly T[]): T | undefined {
  return values.every((value) => value === values[0]) ? values[0] : undefined;
}

const groupFields = once((groups: readonly string[]) => {
  const listed = groups.toSorted().slice(0, RECORD_NAMES_MAX);
  const groupsOmitted = groups.length - listed.length;
  return groupsOmitted === 0 ? { groups: listed } : { groups: listed, groupsOmitted };
});

const ownerFields = once((owners: readonly FunctionOwner[]) => {
  const functions = owners.slice(0, RECORD_NAMES_MAX).map((owner) => owner.arn);
  const account = common(owners.map((owner) => owner.accountId));
  const region = common(owners.map((owner) => owner.region));
  const identity = common(owners.map((owner) => owner.identity)) ?? 'shared';
  return {
    functions,
    ...(owners.length > functions.length && { functionsOmitted: owners.length - functions.length }),
    ...(owners.length > 0 && { identity }),
    ...(account !== undefined && { account }),
    ...(region !== undefined && { region }),
  };
});

const portField = (port: number | undefined) => (port === undefined ? undefined : { port });

/** The source as a record tells it. */
export function attributeSource(matcher: Attributor, address: Address, port: number | undefined): FlowSource {
  return {
    ip: printAddress(address),
    ...portField(port),
    ...ownerFields(matcher.functionsOf(address)),
    ...groupFields(matcher.groupsOf(address)),
  };
}

/** A source that is only claimed: its address, and nothing of whom it belongs to. */
export function claimedSource(address: Address, port: number | undefined): FlowSource {
  return { ip: printAddress(address), ...portField(port), functions: [], groups: [] };
}

/** The destination as a record tells it. */
export function attributeDestination(
  matcher: Attributor,
  address: Address,
  port: number | undefined,
): FlowDestination {
  return { ip: printAddress(address), ...portField(port), ...groupFields(matcher.groupsOf(address)) };
}
