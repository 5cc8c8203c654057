import type { Applier } from './nft/apply.js';
import { type Compilation, judged, programOf } from './policy/compile.js';
import type { GatewayInterfaces } from './policy/fixed-chains.js';

/** What carrying out a compilation needs to know. */
export interface Enforcement {
  readonly applier: Pick<Applier, 'apply' | 'edit'>;
  readonly interfaces: GatewayInterfaces;
  /** The generation in force; undefined where nothing is, as far as is known. */
  readonly generation: number | undefined;
  /** Asked only where something may be revoked, or nothing is in force. */
  readonly nextGeneration: () => Promise<number>;
  /** Before the switch, and before edits where they are all: marks of the generation mean the compiled rules from then on. */
  readonly onSwitch: (generation: number) => void;
}

/**
 * Brings a compilation into the kernel: edits what is in force where that is all, and switches to a program where it
 * is not, under the next generation only where something may be revoked. Gives the generation in force. Rejects with
 * ApplyError.
 */
export async function enforce(
  { compiled, edits, added, effect }: Compilation,
  { applier, interfaces, generation, nextGeneration, onSwitch }: Enforcement,
): Promise<number> {
  if (edits !== undefined && generation !== undefined) {
    const revokes = edits.length > 0 && effect.revokes;
    // Until the next program is in force its marks, and those of what is refused by then, are of this generation.
    onSwitch(generation);
    await applier.edit(edits, revokes ? judged(generation) : undefined, added);
    if (!revokes) return generation;
  }
  const next = generation === undefined || effect.revokes ? await nextGeneration() : generation;
  onSwitch(next);
  await applier.apply(programOf(compiled, interfaces, next));
  return next;
}
