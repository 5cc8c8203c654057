import { BITS, type Family } from 'sluice-gateway/net/family.js';
import { type Prefix, parsePrefix, prefixContains, prefixOf } from 'sluice-gateway/net/prefix.js';
import type { Action, Policy, PolicyRule } from 'sluice-gateway/policy/model.js';
import { makePrefixes } from '../data/prefixes.js';
import type { Random } from '../data/random.js';

/** Everything that a snapshot tells. */
export interface World {
  readonly groups: ReadonlyMap<string, readonly Prefix[]>;
  readonly policy: Policy;
}

/** What happens to a gateway. The last two leave the policy as it is. */
export const CHANGE_KINDS = [
  'rule added',
  'rule removed',
  'rule edited',
  'rules reordered',
  'source prefix comes or goes',
  'destination prefix comes or goes',
  'prefix of both sides comes or goes',
  'group added',
  'group removed',
  'default action',
  'enforcement',
  'back to an earlier one',
  'gateway killed',
  'table flushed',
] as const;
export type ChangeKind = (typeof CHANGE_KINDS)[number];

export interface Change {
  readonly kind: ChangeKind;
  /** What is wanted from then on. */
  readonly world: World;
}

type Side = 'source' | 'destination' | 'both';

/** Blocks of a space, every other one of which prefixes come from; the blocks in between stay nobody's. */
interface Space {
  readonly base: Prefix;
  readonly blockLength: number;
}

const space = (base: string, blockLength: number): Space => ({ base: parsePrefix(base), blockLength });
export const SPACES: Readonly<Record<Exclude<Side, 'both'>, readonly Space[]>> = {
  source: [
    space('10.0.128.0/17', 24),
    space('10.0.64.0/18', 26),
    space('fd00:a::/64', 96),
    space('fd00:b::/64', 80),
  ],
  destination: [
    space('203.0.113.0/24', 28),
    space('198.51.100.0/24', 29),
    space('10.20.0.0/16', 24),
    space('2606:2800::/32', 48),
    space('fd00:20::/64', 80),
  ],
};
/** Few, so that prefixes of different groups nest and coincide. */
export const BLOCKS = 6;

/** The block with a number, which prefixes come from where it is even. */
export function block({ base, blockLength }: Space, number: number): Prefix {
  const shift = BigInt(BITS[base.family] - blockLength);
  return { family: base.family, value: base.value | (BigInt(number) << shift), length: blockLength };
}

function randomPrefix(side: Side, random: Random): Prefix {
  const from = side === 'both' ? random.pick(['source', 'destination'] as const) : side;
  const { family, value, length } = block(random.pick(SPACES[from]), 2 * random.below(BLOCKS / 2));
  const bits = BITS[family] - length;
  const longer = Math.min(bits, random.pick([0, 1, 2, 4, 8, 128]));
  return prefixOf({ family, value: value | random.bits(bits) }, length + longer);
}

const RULES_MAX = 40;
const GROUPS_MAX = 10;
const PREFIXES_MAX = 20;
const FEED_PREFIXES = 5_000;

/** Always there: functions whose traffic is permitted, and what they reach. */
const CALLERS = ['10.0.1.10/32', 'fd00:1::10/128', '10.0.2.10/32', 'fd00:2::10/128', '10.0.129.0/24'];
const SERVICES = [
  '203.0.113.10/32',
  '203.0.113.20/32',
  '2606:2800::10/128',
  '10.20.0.5/32',
  'fd00:20::5/128',
];
export const SERVICE_PORT = 5_000;
/** What the last rule denies while the default action is PERMIT. */
const CLOSED = ['10.0.0.0/8', '203.0.113.0/24', 'fd00::/8', '2606:2800::/32'];
const everywhere = ['0.0.0.0/0', '::/0'].map(parsePrefix);

const named = (name: string, fields: Partial<PolicyRule>): PolicyRule => ({
  ...{ name, priority: 0, action: 'PERMIT', src: [], dst: [], protocol: 'ANY', portRanges: [] },
  ...{ logging: false, enforcement: 'ENFORCE' },
  ...fields,
});

const servicePorts = [{ lo: SERVICE_PORT, hi: SERVICE_PORT + 1 }];
const toServices = named('callers to services', {
  src: ['callers'],
  dst: ['services'],
  portRanges: servicePorts,
});
const feedRule = named('feed', { action: 'DENY', src: ['everywhere'], dst: ['feed'], protocol: 'TCP' });
const closing = named('closing', { action: 'DENY', src: ['everywhere'], dst: ['closed'], logging: true });

/** Makes changes, each to what the last one left. */
export class Changes {
  readonly #random: Random;
  readonly #groups = new Map<string, readonly Prefix[]>();
  #rules: readonly PolicyRule[] = [];
  #default: Action = 'DENY';
  #earlier: readonly World[] = [];
  #last = 0;

  constructor(random: Random, seed: number) {
    this.#random = random;
    this.#groups.set('callers', CALLERS.map(parsePrefix));
    this.#groups.set('services', SERVICES.map(parsePrefix));
    this.#groups.set('closed', CLOSED.map(parsePrefix));
    this.#groups.set('everywhere', everywhere);
    const steady = [...CALLERS, ...SERVICES].map(parsePrefix);
    const feed = ([4, 6] as const satisfies Family[]).flatMap((family) =>
      makePrefixes('realistic', family, FEED_PREFIXES, seed).filter(
        (prefix) => !steady.some((one) => prefixContains(prefix, one)),
      ),
    );
    this.#groups.set('feed', feed);
    for (const side of ['source', 'destination', 'both'] as const)
      for (let count = 0; count < GROUPS_MAX / 2; count++) this.#addGroup(side);
    this.#rules = [toServices, feedRule];
    for (let count = 0; count < RULES_MAX / 2; count++) this.#addRule();
  }

  /** What is wanted now. */
  get world(): World {
    const open = this.#default === 'PERMIT';
    const rules = (open ? [...this.#rules, closing] : this.#rules).map((rule, priority) => ({
      ...rule,
      priority,
    }));
    return {
      groups: new Map(this.#groups),
      policy: { rules, defaultAction: { action: this.#default, logging: this.#default === 'DENY' } },
    };
  }

  next(): Change {
    for (;;) {
      const kind = this.#random.pick(CHANGE_KINDS);
      if (!this.#make(kind)) continue;
      const world = this.world;
      this.#earlier = [...this.#earlier.slice(-20), world];
      return { kind, world };
    }
  }

  /** False: there is nothing to do this to, or one of its kind is enough for a while. */
  #make(kind: ChangeKind): boolean {
    switch (kind) {
      case 'rule added':
        return this.#rules.length < RULES_MAX && this.#addRule();
      case 'rule removed':
        return this.#removeRule();
      case 'rule edited':
        return this.#edit((rule) => ({ ...this.#randomRule(), name: rule.name }));
      case 'rules reordered':
        return this.#reorder();
      case 'source prefix comes or goes':
        return this.#changePrefix('source');
      case 'destination prefix comes or goes':
        return this.#changePrefix('destination');
      case 'prefix of both sides comes or goes':
        return this.#changePrefix('both');
      case 'group added':
        return this.#names('').length < 3 * GROUPS_MAX && this.#addGroup() && this.#addRule();
      case 'group removed':
        return this.#removeGroup();
      case 'default action': {
        const actions = (['DENY', 'PERMIT', 'REJECT'] as const).filter((action) => action !== this.#default);
        this.#default = this.#random.pick(actions);
        return true;
      }
      case 'enforcement':
        return this.#edit((rule) => ({
          ...rule,
          enforcement: this.#random.pick(['ENFORCE', 'MONITOR', 'DISABLE']),
        }));
      case 'back to an earlier one':
        return this.#goBack();
      case 'gateway killed':
      case 'table flushed':
        return this.#random.below(3) === 0;
      default:
        return kind satisfies never;
    }
  }

  /** Groups that come and go are named after their side. */
  #names(side: Side | ''): string[] {
    return [...this.#groups.keys()].filter(
      (name) => /^(?:source|destination|both) /.test(name) && name.startsWith(side),
    );
  }

  #addGroup(side: Side = this.#random.pick(['source', 'destination', 'both'])): boolean {
    const prefixes = new Map<string, Prefix>();
    for (let count = 1 + this.#random.below(8); count > 0; count--) {
      const prefix = randomPrefix(side, this.#random);
      prefixes.set(`${prefix.value} ${prefix.length}`, prefix);
    }
    this.#groups.set(`${side} ${++this.#last}`, [...prefixes.values()]);
    return true;
  }

  #removeGroup(): boolean {
    const names = this.#names('').filter((name) => this.#names(name.split(' ')[0] as Side).length > 2);
    if (names.length === 0) return false;
    const gone = this.#random.pick(names);
    this.#groups.delete(gone);
    this.#rules = this.#rules.filter(({ src, dst }) => ![...src, ...dst].includes(gone));
    return true;
  }

  #changePrefix(side: Side): boolean {
    const name = this.#random.pick(this.#names(side));
    const prefixes = this.#groups.get(name)!;
    if (prefixes.length > 1 && this.#random.below(2) === 0) {
      const gone = this.#random.pick(prefixes);
      this.#groups.set(
        name,
        prefixes.filter((prefix) => prefix !== gone),
      );
      return true;
    }
    const prefix = randomPrefix(side, this.#random);
    const isThere = prefixes.some(({ value, length }) => value === prefix.value && length === prefix.length);
    if (isThere || prefixes.length >= PREFIXES_MAX) return false;
    this.#groups.set(name, [...prefixes, prefix]);
    return true;
  }

  #randomRule(): PolicyRule {
    const random = this.#random;
    const some = (side: Side) => {
      const names = [...this.#names(side), ...this.#names('both')];
      return [...new Set([random.pick(names), random.pick(names)])];
    };
    const protocol = random.pick(['TCP', 'TCP', 'UDP', 'UDP', 'ICMP', 'ANY'] as const);
    const ports = random.pick([
      [443, 443],
      [8_000, 8_100],
      [4_990, 5_010],
      [53, 53],
    ] as const);
    const hasPorts = protocol !== 'ICMP' && random.below(10) > 0;
    return named(`rule ${++this.#last}`, {
      action: random.pick(['PERMIT', 'PERMIT', 'DENY', 'REJECT']),
      src: some('source'),
      dst: some('destination'),
      protocol,
      portRanges: hasPorts ? [{ lo: ports[0], hi: ports[1] }] : [],
      logging: random.below(2) === 0,
    });
  }

  #addRule(): boolean {
    const at = this.#random.below(this.#rules.length + 1);
    this.#rules = this.#rules.toSpliced(at, 0, this.#randomRule());
    return true;
  }

  /** Which rule is one that comes and goes. */
  #pickRule(): number | undefined {
    const indexes = this.#rules.flatMap(({ name }, index) => (name.startsWith('rule ') ? [index] : []));
    return indexes.length === 0 ? undefined : this.#random.pick(indexes);
  }

  #removeRule(): boolean {
    const at = this.#pickRule();
    if (at === undefined) return false;
    this.#rules = this.#rules.toSpliced(at, 1);
    return true;
  }

  #edit(change: (rule: PolicyRule) => PolicyRule): boolean {
    const at = this.#pickRule();
    if (at === undefined) return false;
    this.#rules = this.#rules.with(at, change(this.#rules[at]!));
    return true;
  }

  #reorder(): boolean {
    const [from, to] = [this.#random.below(this.#rules.length), this.#random.below(this.#rules.length)];
    if (from === to) return false;
    const moved = this.#rules[from]!;
    this.#rules = this.#rules.toSpliced(from, 1).toSpliced(to, 0, moved);
    return true;
  }

  #goBack(): boolean {
    if (this.#earlier.length < 2) return false;
    const { groups, policy } = this.#random.pick(this.#earlier.slice(0, -1));
    this.#groups.clear();
    for (const [name, prefixes] of groups) this.#groups.set(name, prefixes);
    this.#rules = policy.rules.filter(({ name }) => name !== closing.name);
    this.#default = policy.defaultAction.action;
    return true;
  }
}
