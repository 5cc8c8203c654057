import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { enforce } from './enforce.js';
import { Generations } from './generations.js';
import type { Log } from './log.js';
import { type Prefix, printPrefix } from './net/prefix.js';
import { type Applier, ApplyError } from './nft/apply.js';
import { ANY_EFFECT } from './policy/change.js';
import { type Compilation, Compiler } from './policy/compile.js';
import { closedPolicy } from './policy/compile-all.js';
import type { GatewayInterfaces } from './policy/fixed-chains.js';
import { nextExpiry, type PolicyInForce, policyInForce, RuleNumbers } from './policy/in-force.js';
import { PolicyTooLargeError } from './policy/limits.js';
import type { CompiledPolicy } from './policy/program-content.js';
import { fingerprintOf, type Remembered } from './remembered.js';
import { groupParts, type Snapshot, snapshotAt } from './snapshot/read.js';

/** Packets have left the old content behind, and kernels before 6.2 have let go of deleted chains, after this. */
const COLLECT_MS = 1_500;
const RETRY_MS_MIN = 100;
const RETRY_MS_MAX = 10_000;
/** `setTimeout` takes no longer delays; a later expiry is looked at again then. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** What is in the kernel. */
export interface Applied {
  readonly generation: number;
  readonly policy: PolicyInForce;
  /** Undefined: another process made it. */
  readonly compiled: CompiledPolicy | undefined;
  /** As it is now, without what has expired. Undefined: the closed program, which drops everything. */
  readonly snapshot: Snapshot | undefined;
  /** The same as it was wanted. */
  readonly wanted: Snapshot | undefined;
  /** The gateway's addresses, which it leaves out; the same object as long as they are the same. */
  readonly own: readonly Prefix[];
}

export interface ReconcilerOptions {
  readonly applier: Pick<Applier, 'takeOver' | 'apply' | 'edit' | 'collect'>;
  readonly interfaces: GatewayInterfaces;
  /** The gateway's own addresses at this moment. */
  readonly ownAddresses: () => readonly Prefix[];
  /** Generations that connections carry now. */
  readonly generationsInUse: () => Promise<ReadonlySet<number>>;
  readonly log: Log;
  readonly now: () => Date;
  /** Before the switch, and where the same program means other rules: marks of the generation mean these from then on. */
  readonly onSwitch: (generation: number, policy: PolicyInForce) => void;
  readonly onCompiled: (durationSeconds: number) => void;
  readonly onApplied: (applied: Applied, durationSeconds: number) => void;
  readonly onFailed: (stage: string, error: Error) => void;
  /** For the next process, when the kernel has settled; not where `isStillSo` is false by then. */
  readonly remember: (remembered: Remembered, isStillSo: () => boolean) => Promise<void>;
}

const noPolicy: PolicyInForce = policyInForce(
  { rules: [], defaultAction: { action: 'DENY', logging: false } },
  new Date(0),
);

const newCompiler = () => new Compiler(randomBytes(8).toString('hex'));

/** Before there is a snapshot. */
const closed: Compilation = {
  compiled: closedPolicy,
  edits: undefined,
  added: undefined,
  effect: ANY_EFFECT,
};

/** The only loop: makes the kernel equal to the newest snapshot, again and again until it is. */
export class Reconciler {
  readonly #options: ReconcilerOptions;
  #generations: Generations | undefined;
  #numbers = new RuleNumbers();
  /** What another process left in the kernel, untouched, until it is looked at. */
  #remembered: Remembered | undefined;
  #hasDrifted = false;
  /** Undefined: what is in the table is not known to be what a compiler made. */
  #compiler: Compiler | undefined;
  #wanted: Snapshot | undefined;
  /** What was in force in another process before. */
  #startedWith: Snapshot | undefined;
  /** What the last attempt was about: another may be wanted by the time it fails. */
  #tried: Snapshot | undefined;
  #applied: Applied | undefined;
  /** Counts what calls for a reconciliation. `#settled` is the count when the last one began that succeeded. */
  #calls = 1;
  #settled = 0;
  #isTableKnown = false;
  /** What `#applied` says is in the table, as far as is known. */
  #isProgramWhole = false;
  #wake: () => void = () => {};
  #stopped = false;
  #running: Promise<void> | undefined;
  /** When the application began that it is at. */
  #busySinceMs: number | undefined;
  #expiry: NodeJS.Timeout | undefined;
  /** When the next rule or member that is in force expires. */
  #expires: Date | undefined;

  constructor(options: ReconcilerOptions) {
    this.#options = options;
  }

  get applied(): Applied | undefined {
    return this.#applied;
  }

  /** The newest snapshot is in the kernel, unchanged by others as far as is known. */
  get isCurrent(): boolean {
    return !this.#isDirty;
  }

  /** For how long it has been at one application; 0 while it is at none. */
  get busyMs(): number {
    return this.#busySinceMs === undefined ? 0 : performance.now() - this.#busySinceMs;
  }

  get #isDirty(): boolean {
    return this.#settled !== this.#calls;
  }

  /**
   * Takes over the table that is there, applies a first program, unless the table is remembered to hold just that,
   * and goes on until `stop`.
   */
  async start(snapshot: Snapshot | undefined, remembered?: Remembered): Promise<void> {
    this.#wanted = snapshot;
    this.#startedWith = snapshot;
    this.#remembered = remembered;
    this.#numbers = new RuleNumbers(remembered?.numbers);
    await this.#reconcile();
    this.#running = this.#loop();
  }

  /** Wants a snapshot in the kernel instead of whatever was wanted before. */
  want(snapshot: Snapshot): void {
    this.#wanted = snapshot;
    this.#touch();
  }

  /** Someone else changed the table: everything is written anew from memory. */
  drifted(): void {
    this.#hasDrifted = true;
    this.#isTableKnown = false;
    this.#isProgramWhole = false;
    this.#compiler = undefined;
    this.#touch();
  }

  /** Ends the loop after what it is at. The program stays in the kernel and goes on enforcing. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#wake();
    await this.#running;
    await this.#remember();
    clearTimeout(this.#expiry);
  }

  #touch(): void {
    this.#calls++;
    this.#wake();
  }

  async #loop(): Promise<void> {
    let retryMs = RETRY_MS_MIN;
    while (!this.#stopped) {
      if (this.#isDirty) {
        const calls = this.#calls;
        try {
          await this.#reconcile();
          retryMs = RETRY_MS_MIN;
          await this.#collect();
        } catch (error) {
          if (this.#failed(error as Error)) continue;
          // What came meanwhile found nobody asleep.
          if (this.#calls === calls) await this.#sleep(retryMs);
          await this.#collect();
          retryMs = Math.min(retryMs * 2, RETRY_MS_MAX);
        }
      } else {
        await this.#sleep(COLLECT_MS);
        const hasGarbage = !this.#isDirty && (await this.#collect());
        if (this.#isDirty || hasGarbage) continue;
        await this.#remember();
        // What came meanwhile found nobody asleep.
        if (!this.#isDirty) await this.#sleep(undefined);
      }
    }
  }

  /** Until something is to be done, or for so long. */
  async #sleep(ms: number | undefined): Promise<void> {
    const woken = new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    if (this.#stopped) return;
    const ending = new AbortController();
    const waits =
      ms === undefined ? [woken] : [woken, delay(ms, undefined, { signal: ending.signal }).catch(() => {})];
    await Promise.race(waits);
    ending.abort();
  }

  /** Whether something is left to be collected later. */
  async #collect(): Promise<boolean> {
    try {
      return await this.#options.applier.collect(COLLECT_MS);
    } catch (error) {
      this.#options.log.warn('old content of the table could not be removed yet', { error: error as Error });
      return true;
    }
  }

  /** Whether what was wanted is given up, being too large: what is in force is wanted again, its expiries included. */
  #failed(error: Error): boolean {
    const stage = error instanceof ApplyError ? error.stage : 'compile';
    this.#options.onFailed(stage, error);
    const inForce = this.#applied?.wanted;
    const isGivenUp = inForce !== undefined && this.#tried !== inForce && this.#wanted === this.#tried;
    if (error instanceof PolicyTooLargeError && isGivenUp) {
      this.#wanted = inForce;
      return true;
    }
    return false;
  }

  #compile(snapshot: Snapshot | undefined, policy: PolicyInForce, excluded: readonly Prefix[]): Compilation {
    if (snapshot === undefined) return closed;
    this.#compiler ??= newCompiler();
    const wasInForce = this.#tried === this.#startedWith || this.#tried === this.#applied?.wanted;
    const groups = groupParts(snapshot);
    const startMs = performance.now();
    const compilation = this.#compiler.compile({ policy, groups, excluded, wasInForce });
    this.#options.onCompiled((performance.now() - startMs) / 1000);
    return compilation;
  }

  async #reconcile(): Promise<void> {
    const { applier, now, onApplied } = this.#options;
    const startMs = performance.now();
    this.#busySinceMs = startMs;
    const calls = this.#calls;
    try {
      if (!this.#isTableKnown) {
        this.#isTableKnown = true;
        // There is one where drift came during the last takeover: it knows the table as it was.
        this.#compiler = undefined;
        const found = await applier.takeOver();
        this.#generations ??= new Generations(found, () => this.#generationsInUse());
        if (found !== this.#remembered?.generation) this.#remembered = undefined;
      }
      const wanted = this.#wanted;
      this.#tried = wanted;
      const at = now();
      const snapshot = this.#snapshotAt(wanted, at);
      const policy = this.#policyOf(snapshot, at);
      const own = this.#ownNow();
      this.#resume(snapshot, policy, own);
      if (this.#isInForce(snapshot, policy, own)) this.#goOn(snapshot, policy);
      else {
        const applied = await this.#apply(policy, this.#compile(snapshot, policy, own));
        this.#applied = { ...applied, snapshot, wanted, own };
      }
      const applied = this.#applied!;
      this.#settled = calls;
      this.#watchExpiry(snapshot, at);
      onApplied(applied, (performance.now() - startMs) / 1000);
    } catch (error) {
      // What the compiler knows is ahead of the kernel.
      this.#compiler = undefined;
      if (!(error instanceof ApplyError)) this.#isTableKnown = false;
      throw error;
    } finally {
      this.#busySinceMs = undefined;
    }
  }

  /** Takes what another process left for applied, where it is what is wanted. */
  #resume(snapshot: Snapshot | undefined, policy: PolicyInForce, own: readonly Prefix[]): void {
    const remembered = this.#remembered;
    this.#remembered = undefined;
    if (remembered === undefined || snapshot === undefined || this.#hasDrifted) return;
    if (remembered.fingerprint !== this.#fingerprintOf(snapshot, policy, own)) return;
    const { generation } = remembered;
    this.#applied = { generation, policy, compiled: undefined, snapshot, wanted: this.#tried, own };
    this.#isProgramWhole = true;
    this.#options.onSwitch(remembered.generation, policy);
  }

  #fingerprintOf(snapshot: Snapshot, policy: PolicyInForce, own: readonly Prefix[]): string {
    return fingerprintOf(snapshot, policy, this.#options.interfaces, own);
  }

  #fingerprintInForce({ snapshot, policy, own }: Applied): string {
    return this.#fingerprintOf(snapshot!, policy, own);
  }

  /** What the next process may find in the kernel; undefined while that is not what is wanted. */
  #toRemember(): Remembered | undefined {
    const applied = this.#applied;
    if (this.#isDirty || !this.#isProgramWhole || applied?.snapshot === undefined) return undefined;
    const numbers = applied.policy.rules.map(({ name, number }) => [name, number] as const);
    const own = applied.own.map(printPrefix);
    return { generation: applied.generation, numbers, own, fingerprint: this.#fingerprintInForce(applied) };
  }

  async #remember(): Promise<void> {
    const remembered = this.#toRemember();
    const calls = this.#calls;
    if (remembered !== undefined) await this.#options.remember(remembered, () => this.#calls === calls);
  }

  /** Where the last applications failed, the generation in force is not the one that was given out last. */
  async #generationsInUse(): Promise<ReadonlySet<number>> {
    const carried = await this.#options.generationsInUse();
    return this.#applied === undefined ? carried : new Set(carried).add(this.#applied.generation);
  }

  /** The same object as in force, where nothing expired since. */
  #snapshotAt(wanted: Snapshot | undefined, at: Date): Snapshot | undefined {
    const before = wanted === this.#applied?.wanted ? this.#applied?.snapshot : wanted;
    const snapshot = before && snapshotAt(before, at);
    if (snapshot !== before)
      this.#options.log.warn(
        'addresses left groups, since no newer snapshot says that they are still there',
        { groups: snapshot!.groups.filter((group, index) => group !== before!.groups[index]).length },
      );
    return snapshot;
  }

  /** The same object as in force, where the same addresses are. */
  #ownNow(): readonly Prefix[] {
    const own = this.#options.ownAddresses();
    const before = this.#applied?.own;
    return before !== undefined && isDeepStrictEqual(own, before) ? before : own;
  }

  /** The same object as in force, where the same rules are. */
  #policyOf(snapshot: Snapshot | undefined, now: Date): PolicyInForce {
    if (snapshot === undefined) return noPolicy;
    const applied = this.#applied;
    const isSame =
      applied?.snapshot?.policy === snapshot.policy && (this.#expires === undefined || now < this.#expires);
    return isSame ? applied!.policy : policyInForce(snapshot.policy, now, this.#numbers);
  }

  /**
   * Without a compiler that knows, by what it is made of: what was refused for its size left what is in force as it
   * was, and what another process left was made by another compiler.
   */
  #isInForce(snapshot: Snapshot | undefined, policy: PolicyInForce, own: readonly Prefix[]): boolean {
    const applied = this.#applied;
    const isWhole = this.#compiler === undefined && this.#isTableKnown && this.#isProgramWhole;
    if (!isWhole || applied === undefined) return false;
    if (snapshot === undefined || applied.snapshot === undefined) return snapshot === applied.snapshot;
    return this.#fingerprintOf(snapshot, policy, own) === this.#fingerprintInForce(applied);
  }

  /** The same program, of another snapshot perhaps. */
  #goOn(snapshot: Snapshot | undefined, policy: PolicyInForce): void {
    const applied = this.#applied!;
    if (applied.snapshot === snapshot) return;
    this.#options.onSwitch(applied.generation, policy);
    this.#applied = { ...applied, snapshot, wanted: this.#tried, policy };
  }

  async #apply(
    policy: PolicyInForce,
    compilation: Compilation,
  ): Promise<Pick<Applied, 'generation' | 'policy' | 'compiled'>> {
    const { applier, interfaces, onSwitch } = this.#options;
    this.#isProgramWhole = false;
    const generation = await enforce(compilation, {
      applier,
      interfaces,
      generation: this.#applied?.generation,
      nextGeneration: () => this.#generations!.next(),
      onSwitch: (next) => onSwitch(next, policy),
    });
    // Not where the table drifted meanwhile.
    this.#isProgramWhole = this.#isTableKnown;
    return { generation, policy, compiled: compilation.compiled };
  }

  /** `at` is when it was said what is in force: some of it may have expired since, while it was applied. */
  #watchExpiry(snapshot: Snapshot | undefined, at: Date): void {
    clearTimeout(this.#expiry);
    const groups = snapshot?.groups ?? [];
    const times = [snapshot && nextExpiry(snapshot.policy, at), ...groups.map(({ expires }) => expires?.at)];
    const next = times.filter((time) => time !== undefined).toSorted((a, b) => Number(a) - Number(b))[0];
    this.#expires = next;
    if (next === undefined) return;
    const ms = Math.max(next.getTime() - this.#options.now().getTime(), 0);
    this.#expiry = setTimeout(() => this.#touch(), Math.min(ms, TIMER_MS_MAX));
  }
}
