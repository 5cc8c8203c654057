import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { z } from 'zod';
import { QuestionError } from '../admin/question.js';
import type { Log } from '../log.js';
import { writeWhole } from '../snapshot/folder.js';
import { bodyDigest, canonicalJson } from '../snapshot/format.js';
import type { HistoryEntry } from '../snapshot/history.js';
import type { SnapshotKeeper } from '../snapshot/keeper.js';
import { readSnapshot, type Snapshot } from '../snapshot/read.js';
import type { AuditEvent, AuditLog } from './audit.js';
import { bounded, diffSnapshots, isNothing, type SnapshotDiff, summaryOf } from './diff.js';
import {
  type applyQuestionSchema,
  CANDIDATE_FOLDER,
  type ChangeAnswer,
  type Held,
  type HeldStatus,
  permanentSchema,
  type rollbackQuestionSchema,
} from './held.js';

const HELD_FILE = 'held.json';
const CLIENT = 'controller client';

interface InForce {
  readonly snapshot: Snapshot;
  readonly generation: number;
}

export interface ChangesOptions {
  readonly keeper: SnapshotKeeper;
  readonly statePath: string;
  readonly want: (snapshot: Snapshot) => void;
  readonly log: Log;
}

const sourceOf = ({ source, policyDigest }: Snapshot) => source ?? policyDigest;

/** The same under another revision. */
function renumbered(snapshot: Snapshot, revision: number): Snapshot {
  const manifest = JSON.parse(Buffer.from(snapshot.manifestBytes).toString()) as object;
  return { ...snapshot, revision, manifestBytes: Buffer.from(canonicalJson({ ...manifest, revision })) };
}

/**
 * Decides which snapshot is wanted: the newest of the controller client, unless an operator's is held in force, on trial,
 * until the policy files follow it, or as a rollback. Only what is confirmed is stored as last good: whatever kills the
 * gateway during a trial ends it. One operation at a time.
 */
export class Changes {
  readonly #options: ChangesOptions;
  #audit: AuditLog | undefined;
  #newest: Snapshot | undefined;
  #held: Held | undefined;
  /** What a trial took the place of. */
  #heldBefore: Held | undefined;
  #inForce: InForce | undefined;
  #awaited:
    | { snapshot: Snapshot; resolve: (before: InForce) => void; reject: (error: Error) => void }
    | undefined;
  #deadline: NodeJS.Timeout | undefined;
  #busy: Promise<unknown> = Promise.resolve();

  constructor(options: ChangesOptions) {
    this.#options = options;
  }

  /** The snapshot to start with. */
  async resume(audit: AuditLog): Promise<Snapshot | undefined> {
    this.#audit = audit;
    const { keeper, log } = this.#options;
    await keeper.history.open();
    let permanent: z.output<typeof permanentSchema> | undefined;
    try {
      permanent = permanentSchema.parse(JSON.parse(await readFile(this.#heldFile, 'utf8')));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
        log.error('what an operator held in force is not known', { error: error as Error });
    }
    const lastGood = await keeper.loadLastGood((snapshot) => {
      // Where the two differ, the change was not complete when the gateway ended.
      if (permanent === undefined || bodyDigest(snapshot.manifestBytes) !== permanent.manifest)
        return undefined;
      const { kind, who, since, source } = permanent;
      this.#held = { kind, snapshot, who, since, source };
      return permanent.newest ?? 0;
    });
    this.#newest = keeper.newest;
    return lastGood;
  }

  /** The controller client has a newer snapshot. */
  offered(snapshot: Snapshot): void {
    this.#newest = snapshot;
    if (this.#held !== undefined) this.#follow();
    else {
      // Whoever waits for the newest of before would wait for ever: it may be passed over.
      if (this.#awaited !== undefined) this.#awaited.snapshot = snapshot;
      this.#options.want(snapshot);
    }
  }

  /** A program is in force. */
  applied(snapshot: Snapshot, generation: number): void {
    const before = this.#inForce;
    this.#inForce = { snapshot, generation };
    const awaited = this.#awaited;
    if (awaited?.snapshot === snapshot) {
      this.#awaited = undefined;
      awaited.resolve(before ?? this.#inForce);
    } else if (before === undefined) {
      this.#tell({ event: 'start', who: 'gateway' }, this.#inForce);
      this.#keepNewest(undefined, CLIENT, diffSnapshots(undefined, snapshot));
    } else if (before.snapshot !== snapshot) {
      const diff = diffSnapshots(before.snapshot, snapshot);
      if (!isNothing(diff)) this.#tell({ event: 'snapshot', who: CLIENT }, before, diff);
      this.#keepNewest(before.snapshot, CLIENT, diff);
    }
  }

  /** An application failed. */
  failed(error: Error): void {
    this.#awaited?.reject(error);
    this.#awaited = undefined;
  }

  /** A live connection was ended. */
  revoked(): void {
    this.#audit?.revoked();
  }

  status(): HeldStatus | undefined {
    if (this.#held === undefined) return undefined;
    const { snapshot, source: _, ...held } = this.#held;
    return { ...held, revision: snapshot.revision, waiting: this.#newest?.revision };
  }

  history(): readonly HistoryEntry[] {
    return this.#options.keeper.history.entries;
  }

  /** Enforces the candidate in the state folder, on trial for so long, or for good. Rejects with QuestionError. */
  apply(question: z.output<typeof applyQuestionSchema>, who: string): Promise<ChangeAnswer> {
    return this.#alone('apply', async (inForce) => {
      const candidate = await readSnapshot(join(this.#options.statePath, CANDIDATE_FOLDER), inForce.snapshot);
      if (bodyDigest(candidate.manifestBytes) !== question.manifest)
        throw new QuestionError(
          'Cannot apply: another candidate was put in its place meanwhile, apply again',
        );
      const revisions = [this.#newest, inForce.snapshot, ...this.history()].map((one) => one?.revision ?? 0);
      const snapshot = renumbered(candidate, Math.max(...revisions) + 1);
      const { confirmSeconds } = question;
      this.#heldBefore = this.#held;
      this.#held = { kind: 'trial', snapshot, who, since: new Date().toISOString() };
      try {
        const before = await this.#enforce(snapshot);
        if (confirmSeconds === undefined) return await this.#keep('apply', before, who);
        const until = new Date(Date.now() + confirmSeconds * 1_000).toISOString();
        this.#held = { ...this.#held, until };
        this.#deadline = setTimeout(
          () => void this.revert('time', 'gateway').catch(() => undefined),
          confirmSeconds * 1_000,
        );
        const diff = diffSnapshots(before.snapshot, snapshot);
        this.#tell({ event: 'trial', who }, before, diff);
        return { ...this.#answer(diff), until };
      } catch (error) {
        await this.#takeBack();
        throw new QuestionError(`Cannot apply: ${(error as Error).message}, what was in force is again`);
      }
    });
  }

  /** Makes what is on trial permanent. */
  confirm(who: string): Promise<ChangeAnswer> {
    return this.#alone(
      'confirm',
      async (inForce) => {
        this.#trial('confirm');
        return this.#keep('confirm', inForce, who);
      },
      true,
    );
  }

  /** Ends a trial: what was in force before is again. */
  revert(why: string, who: string): Promise<ChangeAnswer> {
    return this.#alone(
      'revert',
      async (before) => {
        this.#trial('revert');
        this.#options.log.warn('the trial of a policy has ended, what was in force before is again', { why });
        await this.#takeBack();
        const diff = diffSnapshots(before.snapshot, this.#inForce!.snapshot);
        this.#tell({ event: 'revert', who, why }, before, diff);
        return this.#answer(diff);
      },
      true,
    );
  }

  /** Enforces a snapshot of the history until it is released, or a policy applied. */
  rollback({ revision }: z.output<typeof rollbackQuestionSchema>, who: string): Promise<ChangeAnswer> {
    return this.#alone('roll back', async (before) => {
      const entry = this.history().find((one) => one.revision === revision);
      if (entry === undefined)
        throw new QuestionError(
          `Cannot roll back: the history has no revision ${revision}, see sluice history`,
        );
      const snapshot = await this.#options.keeper.history
        .read(entry, before.snapshot)
        .catch((cause: Error) => {
          const why = `revision ${revision} can't be read, take another one: ${cause.message}`;
          throw new QuestionError(`Cannot roll back: ${why}`, { cause });
        });
      const held: Held = { kind: 'rollback', snapshot, who, since: new Date().toISOString() };
      const heldBefore = this.#held;
      this.#held = held;
      try {
        await this.#enforce(snapshot);
        await this.#persist(held, before.snapshot, who);
      } catch (error) {
        this.#held = heldBefore;
        await this.#enforceBase();
        throw new QuestionError(`Cannot roll back: ${(error as Error).message}, what was in force is again`);
      }
      const diff = diffSnapshots(before.snapshot, snapshot);
      this.#tell({ event: 'rollback', who }, before, diff);
      return this.#answer(diff);
    });
  }

  /** What is held is held no more: the newest of the controller client is enforced. */
  release(who: string): Promise<ChangeAnswer> {
    return this.#alone('release', async (before) => {
      if (this.#held === undefined)
        throw new QuestionError('Cannot release: nothing is held, the newest policy is in force');
      if (this.#newest === undefined)
        throw new QuestionError('Cannot release: the controller client has brought no snapshot yet');
      const held = this.#held;
      this.#held = undefined;
      try {
        await this.#enforce(this.#newest);
        await rm(this.#heldFile, { force: true });
      } catch (error) {
        this.#held = held;
        await this.#enforceBase();
        throw new QuestionError(`Cannot release: ${(error as Error).message}, what was in force is again`);
      }
      const { snapshot } = this.#inForce!;
      const diff = diffSnapshots(before.snapshot, snapshot);
      this.#keepNewest(before.snapshot, who, diff);
      this.#tell({ event: 'release', who }, before, diff);
      return this.#answer(diff);
    });
  }

  /** Ends a trial, and the audit log. */
  async stop(): Promise<void> {
    if (this.#held?.kind === 'trial') await this.revert('stop', 'gateway').catch(() => undefined);
    clearTimeout(this.#deadline);
    await this.#audit?.close();
  }

  get #heldFile(): string {
    return join(this.#options.statePath, HELD_FILE);
  }

  /** One after the other, each with what is in force when its turn comes. */
  #alone<Answer>(
    what: string,
    operation: (inForce: InForce) => Promise<Answer>,
    isOfTrial = false,
  ): Promise<Answer> {
    const done = this.#busy.then(() => {
      if (this.#inForce === undefined)
        throw new QuestionError(
          `Cannot ${what}: no snapshot is in force yet, the controller client brings one`,
        );
      if (this.#held?.kind === 'trial' && !isOfTrial) {
        const { who, until } = this.#held;
        throw new QuestionError(
          `Cannot ${what}: a policy is on trial until ${until}, by ${who}: confirm or revert it first`,
        );
      }
      return operation(this.#inForce);
    });
    this.#busy = done.catch(() => undefined);
    return done;
  }

  #trial(what: string): void {
    if (this.#held?.kind !== 'trial')
      throw new QuestionError(
        `Cannot ${what}: no policy is on trial, sluice history lists what was in force, and sluice status what is`,
      );
  }

  /** Resolves with what was in force before. */
  #enforce(snapshot: Snapshot): Promise<InForce> {
    return new Promise((resolve, reject) => {
      this.#awaited = { snapshot, resolve, reject };
      this.#options.want(snapshot);
    });
  }

  /** What is to be in force without a trial. It is tried again and again, whoever waits for it. */
  async #enforceBase(): Promise<void> {
    const base = this.#held?.snapshot ?? this.#newest;
    if (base !== undefined) await this.#enforce(base).catch(() => undefined);
  }

  async #takeBack(): Promise<void> {
    clearTimeout(this.#deadline);
    this.#held = this.#heldBefore;
    await this.#enforceBase();
  }

  /** Makes what is on trial permanent: first on disk. */
  async #keep(event: 'apply' | 'confirm', before: InForce, who: string): Promise<ChangeAnswer> {
    const source = this.#newest && sourceOf(this.#newest);
    const { until: _, ...trial } = this.#held!;
    const held: Held = { ...trial, kind: 'apply', who, source };
    const was = event === 'apply' ? before.snapshot : (this.#heldBefore?.snapshot ?? this.#newest);
    const diff = diffSnapshots(was, held.snapshot);
    await this.#persist(held, was, who);
    clearTimeout(this.#deadline);
    this.#held = held;
    this.#tell({ event, who }, before, diff);
    const answer = this.#answer(diff);
    this.#follow();
    return answer;
  }

  async #persist(held: Held, before: Snapshot | undefined, who: string): Promise<void> {
    const { kind, snapshot, since, source } = held;
    const manifest = bodyDigest(snapshot.manifestBytes);
    const newest = this.#newest?.revision;
    await writeWhole(this.#heldFile, JSON.stringify({ kind, manifest, who, since, newest, source }));
    const entry = this.#entry(before, who, diffSnapshots(before, snapshot));
    await this.#options.keeper.store(snapshot, entry);
  }

  /** What differs in nothing that is enforced is none to go back to. */
  #keepNewest(before: Snapshot | undefined, who: string, diff: SnapshotDiff): void {
    const isKnown = before === undefined ? this.history().length > 0 : isNothing(diff);
    const { keeper } = this.#options;
    void keeper.keep(this.#inForce!.snapshot, isKnown ? undefined : this.#entry(before, who, diff));
  }

  /** An applied policy gives way to what the controller client makes of the files, once they are others than before. */
  #follow(): void {
    const held = this.#held;
    const newest = this.#newest;
    if (held?.kind !== 'apply' || newest === undefined) return;
    const isSame = sourceOf(newest) === sourceOf(held.snapshot);
    if (!isSame && sourceOf(newest) === held.source) return;
    this.#held = undefined;
    rm(this.#heldFile, { force: true }).catch((error: Error) =>
      this.#options.log.error('what an operator held in force comes back at the next start', { error }),
    );
    this.#options.want(newest);
  }

  #entry(before: Snapshot | undefined, who: string, diff: SnapshotDiff) {
    const { snapshot } = this.#inForce!;
    const isPolicy = before === undefined || sourceOf(before) !== sourceOf(snapshot);
    const { revision } = snapshot;
    return { revision, at: new Date().toISOString(), who, isPolicy, changed: summaryOf(diff) };
  }

  #answer(diff: SnapshotDiff): ChangeAnswer {
    const { snapshot, generation } = this.#inForce!;
    return { revision: snapshot.revision, generation, changed: summaryOf(diff) };
  }

  #tell(event: AuditEvent, before: InForce, diff?: SnapshotDiff): void {
    const { snapshot, generation } = this.#inForce!;
    this.#audit?.write({
      ...event,
      revision: { before: before.snapshot.revision, after: snapshot.revision },
      generation: { before: before.generation, after: generation },
      ...(diff !== undefined && bounded(diff)),
    });
  }
}
