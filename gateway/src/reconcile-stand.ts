/** For tests: a reconciler with a fake instead of the kernel. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Test } from 'tap';
import { createLog } from './log.js';
import type { Prefix } from './net/prefix.js';
import type { Additions, KeySet, MapEdit, Program } from './nft/program.js';
import { prefixes } from './policy/fixture.js';
import type { PolicyInForce } from './policy/in-force.js';
import type { PolicyRule } from './policy/model.js';
import { type Applied, Reconciler } from './reconcile.js';
import type { Remembered } from './remembered.js';
import type { Snapshot } from './snapshot/read.js';

let revision = 0;

/** A snapshot of these rules between groups a and b. */
export const snapshotOf = (...rules: PolicyRule[]) => snapshotWith(['10.0.1.0/24', '250.0.0.0/8'], ...rules);

/** The same, a being these. */
export function snapshotWith(a: readonly string[], ...rules: PolicyRule[]): Snapshot {
  revision++;
  const parts = [prefixes(...a), prefixes('10.20.0.0/16')] as const;
  return {
    revision,
    createdAt: '2026-11-01T00:00:00Z',
    policy: { rules, defaultAction: { action: 'DENY', logging: false } },
    policyDigest: JSON.stringify(rules),
    groups: [
      { name: 'a', resolved: true, parts: [parts[0]] },
      { name: 'b', resolved: true, parts: [parts[1]] },
    ],
    inventory: { functions: [], scopes: [] },
    manifestBytes: new Uint8Array(),
    bodies: new Map(),
    functionParts: new Map(),
    parts: new Map([
      [a.join(), parts[0]],
      ['b', parts[1]],
    ]),
  };
}

/** Instead of the kernel: what it was asked for, and failures on demand. Applications wait while `gate` does. */
export class FakeApplier {
  readonly programs: Program[] = [];
  readonly edits: [edits: readonly MapEdit[], revoked: string | undefined][] = [];
  readonly added: Additions[] = [];
  takenOver = 0;
  collected = 0;
  readonly failures: Error[] = [];
  gate: Promise<unknown> = Promise.resolve();
  found: number | undefined;

  async takeOver(): Promise<number | undefined> {
    this.takenOver++;
    return this.found;
  }

  async apply(program: Program): Promise<void> {
    this.programs.push(program);
    await this.gate;
    const failure = this.failures.shift();
    if (failure !== undefined) throw failure;
  }

  async edit(edits: readonly MapEdit[], revoked: KeySet | undefined, added?: Additions): Promise<void> {
    if (edits.length > 0) this.edits.push([edits, revoked?.name]);
    if (added !== undefined) this.added.push(added);
    const failure = this.failures.shift();
    if (failure !== undefined) throw failure;
  }

  async collect(): Promise<boolean> {
    this.collected++;
    return false;
  }

  /** Keeps applications waiting until the returned function is called. */
  hold(): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.gate = promise;
    return resolve;
  }
}

export class Stand {
  readonly applier = new FakeApplier();
  readonly applied: Applied[] = [];
  readonly failed: string[] = [];
  readonly switched: [generation: number, policy: PolicyInForce][] = [];
  readonly reconciler: Reconciler;
  remembered: Remembered | undefined;
  /** Called while what is in force is being remembered. */
  onRemember: (isStillSo: () => boolean) => void = () => {};
  now = new Date('2026-11-01T00:00:00Z');
  generationsInUse = new Set<number>();
  ownAddresses: readonly Prefix[];

  constructor(t: Test, { ownAddresses = [] }: { readonly ownAddresses?: readonly Prefix[] } = {}) {
    this.ownAddresses = ownAddresses;
    this.reconciler = new Reconciler({
      applier: this.applier,
      interfaces: { lambda: ['lam0'], egress: ['wan0'], inputIcmp: false },
      ownAddresses: () => this.ownAddresses,
      generationsInUse: async () => this.generationsInUse,
      log: createLog({ write: () => {} }),
      now: () => this.now,
      onSwitch: (generation, policy) => this.switched.push([generation, policy]),
      onCompiled: () => {},
      onApplied: (applied) => this.applied.push(applied),
      onFailed: (stage) => this.failed.push(stage),
      remember: async (remembered, isStillSo) => {
        await delay(1);
        this.onRemember(isStillSo);
        if (isStillSo()) this.remembered = remembered;
      },
    });
    t.teardown(() => this.reconciler.stop());
  }

  /** Waits for the n-th success or failure. */
  async until(list: 'applied' | 'failed' | 'programs', count: number): Promise<void> {
    const lengthOf = () => (list === 'programs' ? this.applier.programs : this[list]).length;
    while (lengthOf() < count) await delay(1);
  }

  /** Lets everything happen that is not waiting for time to pass. */
  async settle(): Promise<void> {
    for (let turns = 0; turns < 20; turns++) await delay(0);
  }

  get generations(): number[] {
    return this.applier.programs.map(({ generation }) => generation);
  }
}
