import { randomBytes } from 'node:crypto';
import { type Prefix, parsePrefix, sortPrefixes } from 'sluice-gateway/net/prefix.js';
import { NETLINK_NETFILTER, NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { Applier } from 'sluice-gateway/nft/apply.js';
import { NftKernel } from 'sluice-gateway/nft/kernel.js';
import type { Program } from 'sluice-gateway/nft/program.js';
import { type CompileOnceInput, Compiler, compilePolicy, programOf } from 'sluice-gateway/policy/compile.js';
import type { GatewayInterfaces } from 'sluice-gateway/policy/fixed-chains.js';
import { type PolicyInForce, policyInForce } from 'sluice-gateway/policy/in-force.js';
import type { Action, Policy, PolicyRule } from 'sluice-gateway/policy/model.js';
import { LAB_INTERFACES } from './lab.js';

export const prefixes = (...texts: string[]): Prefix[] => texts.map(parsePrefix);

export const labInterfaces: GatewayInterfaces = { ...LAB_INTERFACES, inputIcmp: true };

/** A rule with what a test does not care about filled in: TCP and UDP and all else, logged, enforced. */
export function rule(
  name: string,
  action: Action,
  src: string,
  dst: string,
  more: Partial<PolicyRule> = {},
): PolicyRule {
  return {
    name,
    action,
    src: [src],
    dst: [dst],
    priority: 0,
    protocol: 'ANY',
    portRanges: [],
    logging: true,
    enforcement: 'ENFORCE',
    ...more,
  };
}

/** These rules in this order, and DENY for the rest. */
export function inForce(...rules: readonly PolicyRule[]): PolicyInForce {
  const policy: Policy = {
    rules: rules.map((line, index) => ({ ...line, priority: index })),
    defaultAction: { action: 'DENY', logging: true },
  };
  return policyInForce(policy, new Date());
}

export type LoadInput = Pick<CompileOnceInput, 'policy' | 'groups'> &
  Partial<CompileOnceInput & { readonly interfaces: GatewayInterfaces }>;

/** Of what `compileAll` makes. */
export const TEST_EPOCH = 'test';

/** The whole program, for the lab's interfaces unless the input names others. */
export function compileAll({ interfaces = labInterfaces, ...input }: LoadInput, generation = 1): Program {
  return programOf(compilePolicy({ excluded: [], epoch: TEST_EPOCH, ...input }), interfaces, generation);
}

/** Compiles for the lab's interfaces and applies programs in this namespace, each under the next generation. */
export class Loader {
  readonly #connection = new NetlinkConnection(NETLINK_NETFILTER);
  #compiler: Compiler;
  readonly kernel = new NftKernel(this.#connection);
  readonly applier = new Applier(this.kernel);
  generation = 0;

  constructor(epoch = randomBytes(8).toString('hex')) {
    this.#compiler = new Compiler(epoch);
  }

  async load({ policy, groups, excluded = [], interfaces = labInterfaces }: LoadInput): Promise<void> {
    this.generation++;
    const parts = new Map([...groups].map(([name, members]) => [name, [sortPrefixes(members)]]));
    const { compiled } = this.#compiler.compile({ policy, groups: parts, excluded });
    await this.applier.apply(programOf(compiled, interfaces, this.generation));
  }

  /** After an application that failed: content comes under new names, as the product does it. */
  startOver(): void {
    this.#compiler = new Compiler(randomBytes(8).toString('hex'));
  }

  close(): void {
    this.#connection.close();
  }
}
