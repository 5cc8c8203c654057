import { parsePrefix, printPrefix } from 'sluice-gateway/net/prefix.js';
import type { Test } from 'tap';
import {
  emptyInventory,
  type Instance,
  type Inventory,
  type LambdaFunction,
  type NetworkInterface,
  OPTIONAL_PARTS,
  type PrefixList,
  type Scope,
  type Subnet,
  type Vpc,
} from '../inventory.js';
import { buildPolicy } from '../sources/build.js';
import { readOwnForm } from '../sources/own.js';
import { SourceText } from '../sources/text.js';
import { readYaml } from '../sources/yaml.js';
import { identifyFunctions } from './identity.js';
import { type KnownFeed, type ResolveOptions, resolveGroups } from './resolve.js';

/* Layouts of AWS accounts for tests, each with what groups hold and how sure the identity of each function is. */

export const NOW = new Date('2026-11-21T12:00:00.000Z');
export const LIMIT = { now: NOW, eniMaxAgeSeconds: 900 };
export const ago = (seconds: number) => new Date(NOW.getTime() - seconds * 1_000).toISOString();
export const one = { accountId: '111122223333', region: 'us-east-1' };
export const two = { accountId: '444455556666', region: 'eu-west-1' };
type Place = typeof one;

export const scope = (place: Place, rest: Partial<Scope> = {}): Scope => ({
  ...place,
  refreshedAt: ago(60),
  learntAt: Object.fromEntries(OPTIONAL_PARTS.map((part) => [part, ago(60)])),
  ...rest,
});
const here = { ...one, seenAt: ago(60) };

/** A function in subnets; all have security group sg-1 unless it is said otherwise. */
export const fn = (name: string, subnetIds: string[], rest: Partial<LambdaFunction> = {}): LambdaFunction => {
  const { accountId, region } = { ...one, ...rest };
  const arn = `arn:aws:lambda:${region}:${accountId}:function:${name}`;
  const base = { ...here, arn, name, subnetIds, securityGroupIds: ['sg-1'], tags: {} };
  return {
    ...base,
    ipv6AllowedForDualStack: false,
    ...(subnetIds.length > 0 && { vpcId: 'vpc-1' }),
    ...rest,
  };
};
export const subnet = (id: string, cidrs: string, rest: Partial<Subnet> = {}): Subnet => ({
  ...{ ...here, id, vpcId: 'vpc-1', zone: 'us-east-1a', cidrs: cidrs.split(' '), tags: {} },
  ...rest,
});
export const eni = (
  id: string,
  subnetId: string,
  addresses: string,
  rest: Partial<NetworkInterface> = {},
) => ({
  ...{ ...here, id, vpcId: 'vpc-1', subnetId, securityGroupIds: ['sg-1'], interfaceType: 'lambda' },
  ...{ description: '', addresses: addresses.split(' ') },
  ...rest,
});
export const vm = (
  id: string,
  subnetId: string,
  addresses: string,
  rest: Partial<Instance> = {},
): Instance => ({
  ...{ ...here, id, vpcId: 'vpc-1', subnetId, addresses: addresses.split(' '), tags: {} },
  ...rest,
});
export const vpc = (id: string, cidrs: string, rest: Partial<Vpc> = {}): Vpc => ({
  ...{ ...here, id, cidrs: cidrs.split(' '), tags: {} },
  ...rest,
});
export const list = (id: string, name: string, cidrs: string): PrefixList => ({
  ...{ ...here, id, name, cidrs: cidrs.split(' '), tags: {} },
});
export const S1 = subnet('s1', '10.0.1.0/24');
export const S2 = subnet('s2', '10.0.2.0/24');
export const S3 = subnet('s3', '10.0.3.0/24 2001:db8:3::/64');

/** Groups by name, `eni` or `subnets`, and the expressions in our own form. */
type Groups = Readonly<Record<string, string>>;

export function read(groups: Groups) {
  const lines = Object.entries(groups).map(([name, text]) => {
    const [, resolve = 'subnets', all] = /^(eni )?(.*)$/.exec(text)!;
    const any = all!.split(' | ').map((each) => `{ all: ${each} }`);
    return `  - { name: ${name}, resolve: ${resolve.trim()}, selector: { any: [ ${any.join(', ')} ] } }\n`;
  });
  const text = `version: sluice.policy/1\nsmartGroups:\n${lines.join('')}`;
  const draft = readOwnForm(readYaml(new SourceText('p.yaml', text)));
  return buildPolicy([draft], [], { file: 'p.yaml', line: 1, column: 1 }).groups;
}

export interface Layout {
  readonly what: string;
  readonly aws: Partial<Inventory>;
  readonly groups?: Groups;
  /** The prefixes of each group; it begins with `?` where it may lack some, with `!` where it may hold too much. */
  readonly hold?: Readonly<Record<string, string>>;
  /** The identity of each function, and what it shares with whom. */
  readonly identity?: Readonly<Record<string, string>>;
  /** Parts of what is told, or of the error. */
  readonly told?: readonly (string | RegExp)[];
  readonly options?: ResolveOptions;
}

function holds(layout: Layout, inventory: Inventory): Record<string, string> {
  const specs = read(layout.groups ?? {});
  const { groups, problems } = resolveGroups(specs, inventory, { ...LIMIT, ...layout.options });
  const named = groups.filter(({ name }) => name in (layout.groups ?? {}));
  const printed = named.map(({ name, prefixes, lacks, exceeds }) => {
    const marks = [...(lacks ? ['?'] : []), ...(exceeds ? ['!'] : [])];
    return [name, [...marks, ...prefixes.map(printPrefix)].join(' ')];
  });
  return { ...Object.fromEntries(printed), told: problems.map(({ message }) => message).join('\n') };
}

function identities(inventory: Inventory): Record<string, string> {
  const names = new Map(inventory.functions.map(({ arn, name }) => [arn, name]));
  const found = identifyFunctions(inventory, LIMIT).map(
    ({ name, accountId, identity, sharedBy, sharedWith }) => {
      const twice = inventory.functions.filter((other) => other.name === name).length > 1;
      const whom = sharedWith.map((arn) => names.get(arn) ?? arn);
      const shared = sharedWith.length > 0 ? [`${sharedBy.join(' ')} with ${whom.join(' ')}`] : [];
      return [twice ? `${name}@${accountId}` : name, [identity, ...shared].join(' by ')];
    },
  );
  return Object.fromEntries(found);
}

export const feeds = (content: Record<string, string>) => ({
  feeds: new Map<string, KnownFeed>(
    Object.entries(content).map(([key, text]) => [
      key,
      { prefixes: text.split(' ').map((prefix) => ({ prefix: parsePrefix(prefix), seenAt: ago(5) })) },
    ]),
  ),
});

/** Tells each layout as a test of its own. */
export function tryLayouts(t: Test, layouts: readonly Layout[]): void {
  for (const layout of layouts) {
    t.test(layout.what, async (t) => {
      const inventory = { ...emptyInventory(), scopes: [scope(one)], ...layout.aws };
      let found: Record<string, string>;
      try {
        found = holds(layout, inventory);
      } catch (error) {
        found = { told: (error as Error).message };
      }
      for (const part of layout.told ?? []) t.match(found.told, part);
      for (const [name, prefixes] of Object.entries(layout.hold ?? {})) t.equal(found[name], prefixes, name);
      if (layout.identity) t.same(identities(inventory), layout.identity);
    });
  }
}
