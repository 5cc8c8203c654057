import { z } from 'zod';
import type { Snapshot } from '../snapshot/read.js';

export const CONFIRM_SECONDS_MAX = 86_400;
/** Where in the state folder the command puts what it wants applied: a snapshot, and the policy it was made of. */
export const CANDIDATE_FOLDER = 'candidate';

export const applyQuestionSchema = z.strictObject({
  /** Digest of the manifest that is meant. */
  manifest: z.string(),
  confirmSeconds: z.coerce.number().int().min(1).max(CONFIRM_SECONDS_MAX).optional(),
});
export const rollbackQuestionSchema = z.strictObject({ revision: z.coerce.number().int().positive() });
export const revertQuestionSchema = z.strictObject({ why: z.string().max(256).default('asked') });

/** What is on disk of it. */
export const permanentSchema = z.strictObject({
  kind: z.enum(['apply', 'rollback']),
  manifest: z.string(),
  who: z.string(),
  since: z.string(),
  /** Revision and source of the newest of the controller client then. */
  newest: z.int().optional(),
  source: z.string().optional(),
});

/** What is enforced instead of the newest snapshot of the controller client. */
export interface Held {
  readonly kind: 'trial' | 'apply' | 'rollback';
  readonly snapshot: Snapshot;
  readonly who: string;
  readonly since: string;
  readonly until?: string;
  /** Of the newest when an applied policy became permanent: it is held until the files are others. */
  readonly source?: string | undefined;
}

/** What `status` says of it. */
export interface HeldStatus extends Omit<Held, 'snapshot' | 'source'> {
  readonly revision: number;
  /** The newest snapshot of the controller client, which waits. */
  readonly waiting: number | undefined;
}

/** What a change came to. */
export interface ChangeAnswer {
  readonly revision: number;
  readonly generation: number;
  readonly changed: string;
  /** When an unconfirmed one ends. */
  readonly until?: string;
}
