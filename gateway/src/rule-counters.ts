import type { NftKernel } from './nft/kernel.js';
import { DROP_REASONS, type DropReason, dropCounter } from './policy/fixed-chains.js';
import type { PolicyInForce } from './policy/in-force.js';
import { ruleObjects } from './policy/rule-content.js';

/** What the kernel has counted, in the words of policy. Cost of each: one dump of its counters. */
export class RuleCounters {
  readonly #kernel: Pick<NftKernel, 'counters'>;
  readonly #policy: () => PolicyInForce | undefined;

  constructor(kernel: Pick<NftKernel, 'counters'>, policy: () => PolicyInForce | undefined) {
    this.#kernel = kernel;
    this.#policy = policy;
  }

  /** Connections that each rule in force decided, by its name. */
  decisions(): Promise<ReadonlyMap<string, bigint>> {
    return this.#ofRules('decided');
  }

  /** Decisions that the rate limit kept from the log, since each counter was made. */
  suppressed(): Promise<ReadonlyMap<string, bigint>> {
    return this.#ofRules('suppressed');
  }

  /** Packets by the reason for which they were dropped. */
  async dropped(): Promise<Readonly<Record<DropReason, number>>> {
    const counters = await this.#kernel.counters();
    return Object.fromEntries(
      DROP_REASONS.map((reason) => [reason, Number(counters.get(dropCounter(reason))?.packets ?? 0n)]),
    ) as Record<DropReason, number>;
  }

  async #ofRules(object: 'decided' | 'suppressed'): Promise<ReadonlyMap<string, bigint>> {
    const counters = await this.#kernel.counters();
    const policy = this.#policy();
    const rules = policy === undefined ? [] : [...policy.rules, policy.byDefault];
    return new Map(
      rules.flatMap((rule) => {
        const counted = counters.get(ruleObjects(rule)[object]);
        return counted === undefined ? [] : [[rule.name, counted.packets]];
      }),
    );
  }
}
