import { Histogram } from 'prom-client';
import { counter, type Families, gauge } from './family.js';

/** From one element changed to a million intervals loaded. */
const BUCKETS_SECONDS = [0.001, 0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60];

export function applyMetrics(families: Families) {
  const seconds = new Histogram({
    name: 'sluice_apply_seconds',
    help: 'Time from a wanted program to the kernel having it, of applications that succeeded',
    buckets: BUCKETS_SECONDS,
    registers: [families.registry],
  });
  const revisions = gauge(families, {
    name: 'sluice_snapshot_revision',
    help: 'Revision of the newest snapshot accepted (wanted) and of the one in the kernel (applied)',
    labels: ['state'],
  });
  const failures = counter(families, {
    name: 'sluice_apply_failures_total',
    help: 'Applications of a snapshot that failed, by stage',
    labels: ['stage'],
  });
  const drift = counter(families, {
    name: 'sluice_drift_total',
    help: 'Changes of our table or rules by others that were noticed, by kind',
    labels: ['kind'],
  });
  return {
    revision: (state: 'wanted' | 'applied', revision: number) => revisions({ state }, revision),
    applied: (durationSeconds: number) => seconds.observe(durationSeconds),
    applyFailed: (stage: string) => failures({ stage }),
    drifted: (kind: string) => drift({ kind }),
  };
}
