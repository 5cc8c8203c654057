import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { emptyInventory, type Inventory, type LambdaFunction } from '../inventory.js';
import { loadPolicy } from '../sources/load.js';
import { type Known, resolveWanted } from '../wanted.js';

const seed = Number(process.env.TEST_SEED ?? Date.now() % 2 ** 31);
t.comment(`TEST_SEED=${seed}`);

const now = new Date('2026-11-21T10:00:00.000Z');
const place = { accountId: '111122223333', region: 'us-east-1', seenAt: now.toISOString() };
const OLD = '2026-11-20T10:00:00.000Z';
const SUBNETS = ['subnet-0', 'subnet-1', 'subnet-2', 'subnet-3'];

const POLICY = `version: sluice.policy/1
smartGroups:
  - { name: pay, selector: { any: [ { all: { type: serverless, tags: { team: pay } } } ] } }
  - { name: named, selector: { any: [ { all: { type: serverless, name: "fn-1*" } }, { all: { cidr: 192.0.2.0/24 } } ] } }
  - { name: others, selector: { any: [ { all: { type: serverless, not: { tags: { team: pay } } } } ] } }
  - { name: cards, selector: { any: [ { all: { type: serverless, tags: { team: web } } } ] }, resolve: eni }
  - { name: outer, selector: { any: [ { all: { group: pay } }, { all: { type: subnet, id: subnet-0 } } ] } }
  - { name: empty, selector: { any: [ { all: { type: serverless, name: nobody } } ] } }
  - { name: own, selector: { any: [ { all: { type: serverless, accountId: "111122223333", tags: { team: "*" } } } ] } }
policies:
  - { name: r, priority: 1, action: PERMIT, src: [pay, named, others, cards, outer, empty, own], dst: [Anywhere], protocol: ANY }
`;

const functions = fc.uniqueArray(
  fc.record({
    number: fc.nat(19),
    team: fc.constantFrom('pay', 'web', 'ops'),
    // Most have no problem: a group with one is made anew.
    subnetIds: fc.oneof(
      { weight: 15, arbitrary: fc.subarray(SUBNETS, { minLength: 1, maxLength: 3 }) },
      { weight: 1, arbitrary: fc.constantFrom([], ['subnet-0', 'subnet-gone']) },
    ),
    securityGroupIds: fc.subarray(['sg-0', 'sg-1'], { minLength: 1 }),
    isFresh: fc.boolean(),
    stays: fc.boolean(),
  }),
  { selector: ({ number }) => number, maxLength: 20 },
);

function functionOf({ number, team, subnetIds, securityGroupIds, isFresh }: Made): LambdaFunction {
  const name = `fn-${number}`;
  const arn = `arn:aws:lambda:us-east-1:111122223333:function:${name}`;
  const vpc = subnetIds.length === 0 ? {} : { vpcId: 'vpc-0' };
  return {
    ...{ ...place, ...vpc, arn, name, subnetIds, securityGroupIds },
    ipv6AllowedForDualStack: false,
    tags: { team },
    ...(!isFresh && { seenAt: OLD }),
  };
}

interface Made {
  readonly number: number;
  readonly team: string;
  readonly subnetIds: readonly string[];
  readonly securityGroupIds: readonly string[];
  readonly isFresh: boolean;
  /** Where the function of its number was before. */
  readonly stays: boolean;
}

const learntAt = { tags: place.seenAt, interfaces: place.seenAt };
const { seenAt, ...scope } = place;
const BASE: Inventory = {
  ...emptyInventory(),
  scopes: [{ ...scope, refreshedAt: seenAt, learntAt }],
  subnets: SUBNETS.map((id, index) => ({
    ...{ ...place, id, vpcId: 'vpc-0', zone: 'us-east-1a', tags: {} },
    cidrs: [`10.0.${index}.0/24`],
  })),
  interfaces: SUBNETS.map((subnetId, index) => ({
    ...{ ...place, id: `eni-${index}`, vpcId: 'vpc-0', subnetId, interfaceType: 'lambda', description: '' },
    securityGroupIds: ['sg-0'],
    addresses: [`10.0.${index}.7`],
  })),
  instances: [{ ...place, id: 'i-0', vpcId: 'vpc-0', subnetId: 'subnet-3', addresses: [], tags: {} }],
};

/** Where a scope was never read no rule may name a group with a `not`. */
const WORLDS = {
  'all that is known': { policy: POLICY, base: BASE },
  'a scope that was never read': {
    policy: POLICY.replace(/^.*name: others.*\n/m, '').replace('others, ', ''),
    base: { ...BASE, scopes: [...BASE.scopes, { ...scope, accountId: '444455556666', learntAt: {} }] },
  },
};

for (const [name, { policy, base }] of Object.entries(WORLDS))
  t.test(`what is spared because it did not change is what would be made anew: ${name}`, async (t) => {
    const file = join(t.testdir(), 'policy.yaml');
    writeFileSync(file, policy);
    const loaded = loadPolicy(file);
    const byArn = (fns: readonly Made[]) => fns.map(functionOf).sort((a, b) => (a.arn < b.arn ? -1 : 1));
    let [spared, kept, same] = [0, 0, 0];
    fc.assert(
      fc.property(functions, fc.array(functions, { minLength: 1, maxLength: 4 }), (first, steps) => {
        let before: Known | undefined;
        let inventory = { ...base, functions: byArn(first) };
        for (const step of [[], ...steps]) {
          // Those with the same number are another; the rest are the same objects as before.
          const known = new Map(inventory.functions.map((fn) => [fn.name, fn]));
          const fresh = byArn(
            step.map((made) => ({ ...made, ...(made.stays && known.get(`fn-${made.number}`)) })),
          );
          const names = new Set(fresh.map(({ name }) => name));
          const rest = inventory.functions.filter(({ name }) => !names.has(name));
          const stay = step.length > 3 ? rest.slice(1) : rest;
          inventory = {
            ...inventory,
            functions: [...stay, ...fresh].sort((a, b) => (a.arn < b.arn ? -1 : 1)),
          };
          const spare = resolveWanted(loaded, inventory, { now, before });
          const whole = resolveWanted(loaded, inventory, { now });
          t.strictSame(spare.content, whole.content);
          t.strictSame(spare.warnings, whole.warnings);
          const old = before?.resolution.groups ?? [];
          spared += spare.content.groups.filter((group) => old.includes(group)).length;
          kept += spare.content.groups.filter(
            (group) => !old.includes(group) && old.some(({ prefixes }) => prefixes === group.prefixes),
          ).length;
          // What is known may have grown too old since, without having changed.
          const later = new Date(now.getTime() + 1_800_000);
          const aged = resolveWanted(loaded, inventory, { now: later, before: spare.known, isAged: true });
          t.strictSame(aged.content, resolveWanted(loaded, inventory, { now: later }).content);
          const wasIdentified = new Set(spare.known.functions);
          same += aged.known.functions.filter((fn) => wasIdentified.has(fn)).length;
          before = spare.known;
        }
      }),
      { seed, numRuns: 60 },
    );
    t.ok(spared > 100, 'something was spared');
    t.ok(kept > 10, 'prefixes of groups that were made anew are the same array where they are the same');
    t.ok(same > 10, 'what was identified as before is the same object');
  });
