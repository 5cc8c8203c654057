import { Histogram } from 'prom-client';
import { counter, type Families, gauge, pulled, pulledNumber } from './family.js';

/** From one element changed to a million intervals loaded. */
const BUCKETS_SECONDS = [0.001, 0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60];

/** Of an application that fails, and of a snapshot that is refused before. */
const STAGES = ['snapshot', 'compile', 'load', 'switch', 'edit'] as const;
/** What is timed beside them. */
const TIMED = [...STAGES, 'collect', 'all'] as const;
/** As `watchTable` tells them, and the routing rules of the guard. */
const DRIFT_KINDS = ['table', 'chain', 'rule', 'map', 'element', 'counter', 'unknown', 'guard'];

/** The elements of all sets and maps of one kind. */
export interface SetSize {
  readonly kind: string;
  readonly elements: number;
}

function pulledApplyMetrics(families: Families) {
  return {
    /** Asked at scrape. */
    isCurrent: pulledNumber(families, {
      name: 'sluice_enforcement_current',
      help: 'Whether the newest snapshot is in the kernel and nobody else is known to have changed it, 1 or 0',
    }),
    /** Asked at scrape: of the kernel. */
    defaultDrop: pulledNumber(families, {
      name: 'sluice_default_drop_present',
      help: 'Whether the kernel has our two chains that drop what no rule permits, 1 or 0',
    }),
    generation: pulledNumber(families, {
      name: 'sluice_generation',
      help: 'Number under which connections are judged now; it changes where a change may end live ones',
    }),
    /** Asked at scrape: of the program in force. */
    setSizes: pulled(families, {
      name: 'sluice_set_elements',
      help: 'Elements of the sets and maps of the program in force, by kind',
      labels: ['kind'],
      kind: 'gauge',
      merge: 'sum',
      of: ({ kind, elements }: SetSize) => ({ labels: { kind }, value: elements }),
    }),
  };
}

export function applyMetrics(families: Families) {
  const seconds = new Histogram({
    name: 'sluice_apply_seconds',
    help:
      'Time that stages of applications took that succeeded: snapshot (it is read and verified), compile, load and ' +
      'switch, or edit, and collect (of old content); all: from a wanted program to the kernel having it',
    labelNames: ['stage'],
    buckets: BUCKETS_SECONDS,
    registers: [families.registry],
  });
  for (const stage of TIMED) seconds.zero({ stage });
  const revisions = gauge(families, {
    name: 'sluice_snapshot_revision',
    help: 'Revision of the newest snapshot accepted (wanted) and of the one in the kernel (applied)',
    labels: ['state'],
  });
  const times = gauge(families, {
    name: 'sluice_snapshot_timestamp_seconds',
    help: 'When the newest snapshot came (wanted) and when one was last in the kernel anew (applied)',
    labels: ['state'],
  });
  const failures = counter(families, {
    name: 'sluice_apply_failures_total',
    help: 'Applications of a snapshot that failed, by stage',
    labels: ['stage'],
    known: STAGES,
  });
  const drift = counter(families, {
    name: 'sluice_drift_total',
    help: 'Changes of our table or rules by others that were noticed, by kind',
    labels: ['kind'],
    known: DRIFT_KINDS,
  });
  return {
    ...pulledApplyMetrics(families),
    revision: (state: 'wanted' | 'applied', revision: number) => {
      revisions({ state }, revision);
      times({ state }, Date.now() / 1000);
    },
    applyTook: (stage: (typeof TIMED)[number], durationSeconds: number) =>
      seconds.observe({ stage }, durationSeconds),
    applyFailed: (stage: string) => failures({ stage }),
    drifted: (kind: string) => drift({ kind }),
  };
}
