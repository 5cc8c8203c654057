/**
 * All that benchmarks know of how a program is made and loaded: when the product's way changes, this file does.
 */
import type { Prefix } from 'sluice-gateway/net/prefix.js';
import { Applier } from 'sluice-gateway/nft/apply.js';
import { Batch } from 'sluice-gateway/nft/batch.js';
import type { NftKernel } from 'sluice-gateway/nft/kernel.js';
import { printProgram } from 'sluice-gateway/nft/print.js';
import type { IntervalMap, NumberMap, Program } from 'sluice-gateway/nft/program.js';
import { compilePolicy, programOf } from 'sluice-gateway/policy/compile.js';
import { policyInForce } from 'sluice-gateway/policy/in-force.js';
import type { Policy } from 'sluice-gateway/policy/model.js';

export type OurProgram = Program;

const interfaces = { lambda: ['lam0'], egress: ['wan0'], inputIcmp: false };

/** Compiles a policy. Programs of different epochs share no content in the kernel. */
export function compileOurs(
  policy: Policy,
  groups: ReadonlyMap<string, readonly Prefix[]>,
  epoch: string,
): OurProgram {
  const compiled = compilePolicy({
    policy: policyInForce(policy, new Date(0)),
    groups,
    excluded: [],
    epoch,
  });
  return programOf(compiled, interfaces, 1);
}

/** Loads programs one after another into the same table, and takes away what is no longer in force. */
export interface OurLoader {
  load(program: OurProgram): Promise<void>;
  collect(): Promise<unknown>;
}

export function ourLoader(kernel: NftKernel): OurLoader {
  const applier = new Applier(kernel);
  return { load: (program) => applier.apply(program), collect: () => applier.collect(0) };
}

/** Leaves the kernel without our table, whether there was one or not. */
export function clearTable(kernel: NftKernel): Promise<void> {
  return kernel.commit(new Batch().addTable().deleteTable());
}

/** As text for `nft -f`. */
export const printOurs = (program: OurProgram): string => printProgram(program);

/** A map from keys to numbers, for another loader to load the same. */
export type ElementMap = NumberMap | IntervalMap;

/** The maps to numbers: all that grows with prefixes. Maps to verdicts are left out, since they need the chains. */
export function elementMaps(program: OurProgram): readonly ElementMap[] {
  return program.maps.filter((map): map is ElementMap => map.data === 'mark' || map.data === 'classid');
}

export function intervalsOf(program: OurProgram): number {
  return program.maps.reduce((sum, { interval, elements }) => sum + (interval ? elements.length : 0), 0);
}
