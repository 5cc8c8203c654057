import { randomBytes } from 'node:crypto';
import { enforce } from 'sluice-gateway/enforce.js';
import { type Prefix, parsePrefix, sortPrefixes } from 'sluice-gateway/net/prefix.js';
import { NETLINK_NETFILTER, NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { Applier } from 'sluice-gateway/nft/apply.js';
import { NftKernel } from 'sluice-gateway/nft/kernel.js';
import type { Program } from 'sluice-gateway/nft/program.js';
import {
  type Compilation,
  type CompileOnceInput,
  Compiler,
  compilePolicy,
  judged,
  programOf,
} from 'sluice-gateway/policy/compile.js';
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

/** What a change was to the kernel: nothing but other names for the same, elements in place, or another program. */
export type ChangeKind = 'nothing' | 'edited' | 'applied';

/** Compiles for the lab's interfaces and applies programs in this namespace. */
export class Loader {
  readonly #connection: NetlinkConnection;
  #compiler: Compiler;
  /** What is in force; undefined where that is not known. */
  program: Program | undefined;
  readonly kernel: NftKernel;
  readonly applier: Applier;
  generation = 0;

  constructor(epoch = randomBytes(8).toString('hex'), connection = new NetlinkConnection(NETLINK_NETFILTER)) {
    this.#compiler = new Compiler(epoch);
    this.#connection = connection;
    this.kernel = new NftKernel(connection);
    this.applier = new Applier(this.kernel);
  }

  /** What comes next has other names than all before: needed after a failure, whoever's. */
  startAnew(epoch = randomBytes(8).toString('hex')): void {
    this.#compiler = new Compiler(epoch);
    this.program = undefined;
  }

  #compile({ policy, groups, excluded = [], epoch }: LoadInput): Compilation {
    if (epoch !== undefined) this.startAnew(epoch);
    const parts = new Map([...groups].map(([name, members]) => [name, [sortPrefixes(members)]]));
    return this.#compiler.compile({ policy, groups: parts, excluded });
  }

  async #apply({ compiled }: Compilation, interfaces: GatewayInterfaces, generation: number): Promise<void> {
    const program = programOf(compiled, interfaces, generation);
    await this.applier.apply(program);
    this.program = program;
  }

  /** Applies a program under the next generation, whatever has changed: each connection is judged again. */
  async load({ interfaces = labInterfaces, ...input }: LoadInput): Promise<void> {
    const compilation = this.#compile(input);
    const { edits, added } = compilation;
    if (this.program !== undefined && edits !== undefined)
      await this.applier.edit(edits, judged(this.generation), added);
    this.generation++;
    await this.#apply(compilation, interfaces, this.generation);
  }

  /**
   * Does what the reconciler does: edits in place where it can, and goes to the next generation only where a
   * connection may lose what it had.
   */
  async change({ interfaces = labInterfaces, ...input }: LoadInput): Promise<ChangeKind> {
    const compilation = this.#compile(input);
    this.generation = await enforce(compilation, {
      applier: this.applier,
      interfaces,
      generation: this.program === undefined ? undefined : this.generation,
      nextGeneration: async () => this.generation + 1,
      onSwitch: () => {},
    });
    this.program = programOf(compilation.compiled, interfaces, this.generation);
    if (compilation.edits === undefined) return 'applied';
    return compilation.edits.length === 0 && compilation.added === undefined ? 'nothing' : 'edited';
  }

  close(): void {
    this.#connection.close();
  }
}
