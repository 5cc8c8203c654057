import { randomBytes } from 'node:crypto';
import { type Prefix, sortPrefixes } from 'sluice-gateway/net/prefix.js';
import { NETLINK_NETFILTER, NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { Applier } from 'sluice-gateway/nft/apply.js';
import { NftKernel } from 'sluice-gateway/nft/kernel.js';
import { Compiler, programOf } from 'sluice-gateway/policy/compile.js';
import type { GroupPrefixes } from 'sluice-gateway/policy/evaluate.js';
import { inForce, Loader, type LoadInput, labInterfaces, prefixes, rule } from './load.js';

/** Loading takes several transactions. */
const FILLER_PREFIXES = 12_000;

/** Who connects, and to whom: what both sides permit, what one does, what none does. */
export const FUNCTION = { 4: '10.0.128.5', 6: 'fd00:a::5' } as const;
export const SERVERS = {
  both: { 4: '203.0.113.50', 6: '2606:2800::50' },
  left: { 4: '203.0.113.101', 6: '2606:2800::101' },
  right: { 4: '203.0.113.102', 6: '2606:2800::102' },
  neither: { 4: '203.0.113.66', 6: '2606:2800::66' },
} as const;

export const SIDES = ['left', 'right'] as const;
export type Side = (typeof SIDES)[number];

function filler(side: Side, prefixes: number): Prefix[] {
  const top = side === 'left' ? 0x1e : 0x28;
  return Array.from({ length: prefixes }, (_, index) => ({
    family: 4,
    value: BigInt(top * 2 ** 24 + index * 2),
    length: 32,
  }));
}

/** A policy that permits `both` servers and its own side's, and a group that is not the other side's. */
export function policyOf(side: Side, fillerPrefixes = 1): Pick<LoadInput, 'policy' | 'groups'> {
  const groups: GroupPrefixes = new Map([
    ['functions', prefixes('10.0.128.0/17', 'fd00:a::/64')],
    ['both', prefixes('203.0.113.50/32', '2606:2800::50/128')],
    ['left', prefixes('203.0.113.101/32', '2606:2800::101/128')],
    ['right', prefixes('203.0.113.102/32', '2606:2800::102/128')],
    ['filler', filler(side, fillerPrefixes)],
  ]);
  const names = ['both', side, 'filler'];
  return { policy: inForce(...names.map((name) => rule(name, 'PERMIT', 'functions', name))), groups };
}

/** The same with one rule for either side: to go from one to the other is an edit in place. */
export function membersOf(side: Side): Pick<LoadInput, 'policy' | 'groups'> {
  const { groups } = policyOf(side);
  // Above all that changes: the last interval of the address space is not changed in place.
  const above = ['223.255.0.0/16', 'fd00:ffff::/32'];
  return {
    policy: inForce(...['both', 'own'].map((name) => rule(name, 'PERMIT', 'functions', name))),
    groups: new Map([
      ['functions', groups.get('functions')!],
      ['both', [...groups.get('both')!, ...prefixes(...above)]],
      ['own', groups.get(side)!],
    ]),
  };
}

/** Takes over the table and edits one side's program into the other's, in turn, until somebody kills the process. */
export async function editForever(generation: number): Promise<never> {
  const loader = new Loader();
  loader.generation = generation - 1;
  await loader.applier.takeOver();
  await loader.change(membersOf('left'));
  process.stdout.write('ready\n');
  for (let next = 1; ; next++) {
    const kind = await loader.change(membersOf(SIDES[next % 2]!));
    if (kind !== 'edited') throw new Error(`Cannot go on: a change was ${kind}`);
    await loader.applier.collect();
  }
}

/** Takes over the table and applies both sides' programs in turn until somebody kills the process. */
export async function applyForever(generation: number): Promise<never> {
  const applier = new Applier(new NftKernel(new NetlinkConnection(NETLINK_NETFILTER)));
  const compiler = new Compiler(randomBytes(8).toString('hex'));
  const inputs = SIDES.map((side) => {
    const { policy, groups } = policyOf(side, FILLER_PREFIXES);
    const parts = new Map([...groups].map(([name, members]) => [name, [sortPrefixes(members)]]));
    return { policy, groups: parts, excluded: [] };
  });
  await applier.takeOver();
  process.stdout.write('ready\n');
  for (let next = generation; ; next++) {
    const { compiled } = compiler.compile(inputs[next % 2]!);
    await applier.apply(programOf(compiled, labInterfaces, next));
    await applier.collect();
  }
}
