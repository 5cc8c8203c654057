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

/** What the matcher says of an end, as a record tells it: one object for all addresses of which it says the same. */
export type Owners = Omit<FlowSource, 'ip' | 'port' | 'functions'> & Partial<Pick<FlowSource, 'functions'>>;

const groupFields = once((groups: readonly string[]): Pick<Owners, 'groups' | 'groupsOmitted'> => {
  const listed = groups.toSorted().slice(0, RECORD_NAMES_MAX);
  const omitted = groups.length - listed.length;
  return { groups: listed, groupsOmitted: omitted === 0 ? undefined : omitted };
});

/** By functions, then by groups. */
const ownersOf = once((functions: readonly FunctionOwner[]) => {
  const arns = functions.slice(0, RECORD_NAMES_MAX).map((owner) => owner.arn);
  const omitted = functions.length - arns.length;
  const identity = common(functions.map((owner) => owner.identity)) ?? 'shared';
  const fields = {
    functions: arns,
    functionsOmitted: omitted === 0 ? undefined : omitted,
    identity: functions.length === 0 ? undefined : identity,
    account: common(functions.map((owner) => owner.accountId)),
    region: common(functions.map((owner) => owner.region)),
  };
  return once((groups: readonly string[]): Owners => ({ ...fields, ...groupFields(groups) }));
});

export const sourceOwners = (matcher: Attributor, address: Address): Owners =>
  ownersOf(matcher.functionsOf(address))(matcher.groupsOf(address));

export const destinationOwners = (matcher: Attributor, address: Address): Owners =>
  groupFields(matcher.groupsOf(address));

/** The source as a record tells it. */
export function sourceField(address: Address, port: number | undefined, owners: Owners): FlowSource {
  const { functions = [], functionsOmitted, groups, groupsOmitted, identity, account, region } = owners;
  const ip = printAddress(address);
  return { ip, port, functions, functionsOmitted, groups, groupsOmitted, identity, account, region };
}

/** A source that is only claimed: its address, and nothing of whom it belongs to. */
export function claimedSource(address: Address, port: number | undefined): FlowSource {
  return sourceField(address, port, { groups: [] });
}

/** The destination as a record tells it. */
export function destinationField(
  address: Address,
  port: number | undefined,
  { groups, groupsOmitted }: Owners,
): FlowDestination {
  return { ip: printAddress(address), port, groups, groupsOmitted };
}
