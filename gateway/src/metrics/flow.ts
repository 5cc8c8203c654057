import { counter, type Families, pulled } from './family.js';

/** What a sink made of its records; received is the sum of written, dropped and still queued. */
export interface SinkOutcome {
  readonly sink: string;
  readonly outcome: 'written' | 'dropped';
  readonly count: number;
}

export interface SinkQueue {
  readonly sink: string;
  readonly records: number;
}

export function flowMetrics(families: Families) {
  const lost = counter(families, {
    name: 'sluice_flow_events_lost_total',
    help: 'Kernel events that never reached the gateway',
    labels: ['source'],
    known: ['conntrack', 'nflog'],
  });
  return {
    /** Asked at scrape: the counts of the sinks. */
    flowRecords: pulled(families, {
      name: 'sluice_flow_records_total',
      help: 'Flow records that a sink wrote or dropped',
      labels: ['sink', 'outcome'],
      kind: 'counter',
      merge: 'sum',
      of: ({ sink, outcome, count }: SinkOutcome) => ({ labels: { sink, outcome }, value: count }),
    }),
    /** Asked at scrape. */
    queued: pulled(families, {
      name: 'sluice_flow_queue_records',
      help: 'Flow records that wait for a sink to write them',
      labels: ['sink'],
      kind: 'gauge',
      merge: 'sum',
      of: ({ sink, records }: SinkQueue) => ({ labels: { sink }, value: records }),
    }),
    eventsLost: (source: string, count: number) => lost({ source }, count),
  };
}
