import { setImmediate as nextTurn } from 'node:timers/promises';
import { collectDefaultMetrics, Registry } from 'prom-client';
import { allowanceMetrics } from './allowance.js';
import { applyMetrics } from './apply.js';
import { connectionMetrics } from './connections.js';
import { conntrackMetrics, PROC_NETFILTER } from './conntrack.js';
import { decisionMetrics } from './decisions.js';
import { counter, type Families } from './family.js';
import { flowMetrics } from './flow.js';
import { inventoryMetrics } from './inventory.js';
import { kernelMetrics } from './kernel.js';
import { LABEL_VALUES_MAX, RULE_SERIES_MAX } from './labels.js';

export interface MetricsOptions {
  /** Rules with series of their own, the busiest; what the others decide is counted as `other`. */
  readonly rulesMax: number;
  /** Distinct values of any other label; further ones fold into `other`. */
  readonly labelValuesMax: number;
  /** How long a scrape waits for a source. */
  readonly sourceMs: number;
  readonly procNetfilter: string;
}

/** One family, as documentation lists it. */
export interface FamilyDescription {
  readonly name: string;
  readonly type: string;
  readonly labels: readonly string[];
  readonly help: string;
}

/** The Prometheus metrics of the gateway: what it counts itself, and sources that are asked at scrape. */
export type Metrics = ReturnType<typeof createMetrics>;

/** Makes a registry of its own with every family of the gateway. */
export function createMetrics(options: Partial<MetricsOptions> = {}) {
  const {
    rulesMax = RULE_SERIES_MAX,
    labelValuesMax = LABEL_VALUES_MAX,
    sourceMs = 2_000,
    procNetfilter = PROC_NETFILTER,
  } = options;
  const registry = new Registry();
  const families: Families = { registry, labelValuesMax, sourceMs, pulled: [] };
  const topics = {
    ...decisionMetrics(families, rulesMax),
    ...applyMetrics(families),
    ...inventoryMetrics(families),
    ...flowMetrics(families),
    ...connectionMetrics(families),
    ...conntrackMetrics(families, procNetfilter),
    ...allowanceMetrics(families),
    ...kernelMetrics(families),
  };
  const scrapeFailed = counter(families, {
    name: 'sluice_scrape_failures_total',
    help: 'Sources that failed at a scrape, whose series it therefore lacks, by metric',
    labels: ['source'],
  });
  collectDefaultMetrics({ register: registry, prefix: 'sluice_' });

  /** One family a turn of the event loop, so that none has to wait for all of it. */
  async function scrapeOnce(): Promise<string> {
    const asked = families.pulled.map(({ name, ask }) =>
      ask().catch((): undefined => {
        scrapeFailed({ source: name });
      }),
    );
    for (const show of await Promise.all(asked)) {
      await nextTurn();
      show?.();
    }
    const texts: string[] = [];
    for (const { name } of registry.getMetricsAsArray()) {
      await nextTurn();
      // prom-client 15 prints `Nan`, which only lenient parsers take for the format's `NaN`.
      texts.push((await registry.getSingleMetricAsString(name)).replace(/ Nan$/gm, ' NaN'));
    }
    return `${texts.join('\n\n')}\n`;
  }

  let scraping: Promise<string> | undefined;
  return {
    ...topics,
    contentType: registry.contentType,
    /** Every family, by name. */
    describe(): FamilyDescription[] {
      const all = registry.getMetricsAsArray() as unknown as {
        readonly name: string;
        readonly help: string;
        readonly type: string;
        readonly labelNames: readonly string[];
      }[];
      return all
        .map(({ name, type, labelNames, help }) => ({ name, type, labels: labelNames, help }))
        .sort((a, b) => (a.name < b.name ? -1 : 1));
    },
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
