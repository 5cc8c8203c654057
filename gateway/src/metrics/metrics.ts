import { collectDefaultMetrics, Registry } from 'prom-client';
import { applyMetrics } from './apply.js';
import { conntrackMetrics, PROC_NETFILTER } from './conntrack.js';
import { decisionMetrics } from './decisions.js';
import { counter, type Families } from './family.js';
import { flowMetrics } from './flow.js';
import { inventoryMetrics } from './inventory.js';
import { kernelMetrics } from './kernel.js';
import { LABEL_VALUES_MAX } from './labels.js';

export interface MetricsOptions {
  /** Distinct values of one label; further ones fold into `other`. */
  readonly labelValuesMax: number;
  /** How long a scrape waits for a source. */
  readonly sourceMs: number;
  readonly procNetfilter: string;
}

/** The Prometheus metrics of the gateway: what it counts itself, and sources that are asked at scrape. */
export type Metrics = ReturnType<typeof createMetrics>;

/** Makes a registry of its own with every family of the gateway. */
export function createMetrics(options: Partial<MetricsOptions> = {}) {
  const { labelValuesMax = LABEL_VALUES_MAX, sourceMs = 2_000, procNetfilter = PROC_NETFILTER } = options;
  const registry = new Registry();
  const families: Families = { registry, labelValuesMax, sourceMs, pulled: [] };
  const topics = {
    ...decisionMetrics(families),
    ...applyMetrics(families),
    ...inventoryMetrics(families),
    ...flowMetrics(families),
    ...kernelMetrics(families),
  };
  conntrackMetrics(families, procNetfilter);
  const scrapeFailed = counter(families, {
    name: 'sluice_scrape_failures_total',
    help: 'Sources that failed at a scrape, whose series it therefore lacks, by metric',
    labels: ['source'],
  });
  collectDefaultMetrics({ register: registry, prefix: 'sluice_' });

  async function scrapeOnce(): Promise<string> {
    const refreshed = families.pulled.map(({ name, refresh }) =>
      refresh().catch(() => scrapeFailed({ source: name })),
    );
    await Promise.all(refreshed);
    // prom-client 15 prints `Nan`, which only lenient parsers take for the format's `NaN`.
    return (await registry.metrics()).replace(/ Nan$/gm, ' NaN');
  }

  let scraping: Promise<string> | undefined;
  return {
    ...topics,
    contentType: registry.contentType,
    /**
     * The exposition. Asks every source; scrapes at the same time share one answer. Doesn't reject for a
     * source.
     */
    scrape(): Promise<string> {
      scraping ??= scrapeOnce().finally(() => {
        scraping = undefined;
      });
      return scraping;
    },
  };
}
