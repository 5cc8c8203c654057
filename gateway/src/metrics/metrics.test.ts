import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import type { DecisionCount } from './decisions.js';
import { createMetrics } from './metrics.js';

const seed = process.env.TEST_SEED === undefined ? Date.now() & 0xffff_ffff : Number(process.env.TEST_SEED);

interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

const NAME = /[a-zA-Z_:][a-zA-Z0-9_:]*/y;
const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"/y;
const VALUE = /^ (?:[+-]?(?:[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)|NaN|[+-]Inf)$/;
const ESCAPES: Readonly<Record<string, string>> = { '\\\\': '\\', '\\"': '"', '\\n': '\n' };

function parseSample(line: string): Sample {
  NAME.lastIndex = 0;
  const name = NAME.exec(line)?.[0];
  if (name === undefined) throw new SyntaxError(`no metric name: ${line}`);
  let at = name.length;
  const labels: Record<string, string> = {};
  if (line[at] === '{') {
    for (;;) {
      LABEL.lastIndex = at + 1;
      const found = LABEL.exec(line);
      if (found === null) throw new SyntaxError(`no label at ${at}: ${line}`);
      if (Object.hasOwn(labels, found[1]!)) throw new SyntaxError(`label twice: ${line}`);
      labels[found[1]!] = found[2]!.replace(/\\./g, (pair) => ESCAPES[pair]!);
      at = LABEL.lastIndex;
      if (line[at] === '}') break;
      if (line[at] !== ',') throw new SyntaxError(`neither , nor } at ${at}: ${line}`);
    }
    at++;
  }
  if (!VALUE.test(line.slice(at))) throw new SyntaxError(`no value at ${at}: ${line}`);
  return { name, labels, value: Number(line.slice(at + 1).replace('Inf', 'Infinity')) };
}

/** The Prometheus text format 0.0.4, strictly; throws for what a scraper might refuse. */
function parseExposition(text: string): Sample[] {
  if (!text.endsWith('\n')) throw new SyntaxError('the last line has no end');
  const samples: Sample[] = [];
  const seen = new Set<string>();
  let family: string | undefined;
  for (const line of text.slice(0, -1).split('\n')) {
    if (line === '' || /^# HELP [a-z_0-9]+ \S/.test(line)) continue;
    const type = /^# TYPE ([a-z_0-9]+) (?:counter|gauge|histogram|summary)$/.exec(line);
    if (type !== null) {
      family = type[1]!;
      if (seen.has(family)) throw new SyntaxError(`family twice: ${line}`);
      seen.add(family);
      continue;
    }
    const sample = parseSample(line);
    if (family === undefined || !sample.name.startsWith(family))
      throw new SyntaxError(`no TYPE before: ${line}`);
    const key = JSON.stringify([sample.name, Object.entries(sample.labels).sort()]);
    if (seen.has(key)) throw new SyntaxError(`series twice: ${line}`);
    seen.add(key);
    samples.push(sample);
  }
  return samples;
}

const HOSTILE = 'a\n# TYPE x counter\nx 1\r"\\\u001b[31m{rule="b"} 7\u202e\u0000';

const denied = (rule: string) =>
  ({ rule, action: 'DENY', enforced: true, reason: 'rule', groups: ['g'] }) as const;

async function scrape(metrics: ReturnType<typeof createMetrics>, name: string): Promise<Sample[]> {
  return parseExposition(await metrics.scrape()).filter((sample) => sample.name === name);
}

t.test('the parser of this test refuses what it should', (t) => {
  const bad = [
    '# TYPE a counter\na{b="c"d"} 1\n',
    '# TYPE a counter\na{b="c\\x"} 1\n',
    '# TYPE a counter\na 1\na 1\n',
    '# TYPE a counter\na{b="c"} one\n',
    '# TYPE a counter\na 1',
    'a 1\n',
    '# TYPE a counter\na{b="c\n"} 1\n',
  ];
  for (const text of bad) t.throws(() => parseExposition(text), SyntaxError, text);
  t.same(parseExposition('# HELP a b\n# TYPE a counter\na{b="c\\"\\\\\\n"} 1.5\n'), [
    { name: 'a', labels: { b: 'c"\\\n' }, value: 1.5 },
  ]);
  t.end();
});

t.test('every family, by its fixed name', async (t) => {
  const procNetfilter = t.testdir({ nf_conntrack_count: '42\n', nf_conntrack_max: '262144\n' });
  const metrics = createMetrics({ procNetfilter });
  const ofRule = { rule: 'gatus', reason: 'rule', groups: ['workers'] } as const;
  metrics.decisions(async () => [
    { ...ofRule, action: 'PERMIT', enforced: true, count: 2n ** 40n },
    { ...ofRule, rule: 'shadow', action: 'DENY', enforced: false, count: 3 },
  ]);
  metrics.dropped(() => [{ reason: 'spoofed', count: 5n }]);
  metrics.inventoryAge(() => [{ account: '111122223333', region: 'us-east-1', ageSeconds: 12.5 }]);
  metrics.groupPrefixes(() => [{ group: 'payments', prefixes: 0 }]);
  metrics.flowRecords(() => [{ sink: 'stdout', outcome: 'written', count: 9 }]);
  metrics.revision('wanted', 8);
  metrics.revision('applied', 7);
  metrics.applyTook('all', 0.25);
  metrics.applyFailed('commit');
  metrics.drifted('flush');
  metrics.drifted('flush');
  metrics.eventsLost('conntrack', 10);
  const samples = parseExposition(await metrics.scrape());
  const has = (name: string, labels: Record<string, string>, value: number) =>
    t.strictSame(
      samples.filter(
        (sample) => sample.name === name && Object.entries(labels).every(([k, v]) => sample.labels[k] === v),
      ),
      [{ name, labels, value }],
    );
  has('sluice_decisions_total', { rule: 'gatus', action: 'PERMIT', enforced: 'true' }, 2 ** 40);
  has('sluice_decisions_total', { rule: 'shadow', action: 'DENY', enforced: 'false' }, 3);
  has('sluice_dropped_packets_total', { reason: 'spoofed' }, 5);
  has('sluice_snapshot_revision', { state: 'wanted' }, 8);
  has('sluice_snapshot_revision', { state: 'applied' }, 7);
  has('sluice_apply_seconds_bucket', { le: '0.5', stage: 'all' }, 1);
  has('sluice_apply_seconds_count', { stage: 'all' }, 1);
  has('sluice_apply_seconds_count', { stage: 'collect' }, 0);
  has('sluice_apply_failures_total', { stage: 'commit' }, 1);
  has('sluice_drift_total', { kind: 'flush' }, 2);
  has('sluice_inventory_age_seconds', { account: '111122223333', region: 'us-east-1' }, 12.5);
  has('sluice_group_prefixes', { group: 'payments' }, 0);
  has('sluice_flow_records_total', { sink: 'stdout', outcome: 'written' }, 9);
  has('sluice_flow_events_lost_total', { source: 'conntrack' }, 10);
  has('sluice_conntrack_entries', {}, 42);
  has('sluice_conntrack_limit', {}, 262_144);
  t.ok(samples.some((sample) => sample.name === 'sluice_process_cpu_seconds_total'));
  t.ok(samples.every((sample) => sample.name.startsWith('sluice_')));
  t.same(
    await scrape(metrics, 'sluice_decisions_total'),
    samples.filter((s) => s.name === 'sluice_decisions_total'),
  );
});

t.test('names of strangers cannot break out of their label', async (t) => {
  t.comment(`TEST_SEED=${seed}`);
  const metrics = createMetrics();
  let names: readonly string[] = [HOSTILE];
  metrics.decisions(() => names.map((rule) => ({ ...denied(rule), groups: [rule], count: 1 })));
  metrics.inventoryAge(() => names.map((name) => ({ account: name, region: name, ageSeconds: 1 })));
  metrics.groupPrefixes(() => names.map((group) => ({ group, prefixes: 1 })));
  metrics.applyFailed(HOSTILE);
  const escaped = 'a\\n# TYPE x counter\\nx 1\\r"\\\\u001b[31m{rule="b"} 7\\u202e\\u0000';
  t.equal((await scrape(metrics, 'sluice_decisions_total'))[0]!.labels.rule, escaped);
  const hostileText = fc.string({
    unit: fc.oneof(fc.constantFrom('"', '\\', '\n', '\r', ',', '{', '\u001b'), fc.string()),
  });
  await fc.assert(
    fc.asyncProperty(fc.uniqueArray(hostileText, { maxLength: 8 }), async (chosen) => {
      names = chosen;
      const text = await metrics.scrape();
      const samples = parseExposition(text);
      const total = samples.filter(({ name }) => name === 'sluice_decisions_total');
      const acting = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202a-\u202e]/.test(text);
      return !acting && total.reduce((sum, { value }) => sum + value, 0) === chosen.length;
    }),
    { seed, numRuns: 100 },
  );
});

t.test('labels are bounded: further values fold into other, and values keep their place', async (t) => {
  const metrics = createMetrics({ labelValuesMax: 2 });
  let names = ['a', 'b', 'c', 'd'];
  metrics.groupPrefixes(() => names.map((group) => ({ group, prefixes: 1 })));
  metrics.inventoryAge(() =>
    names.map((account, index) => ({ account, region: 'r', ageSeconds: 10 * (index + 1) })),
  );
  const values = async (name: string, label: string) =>
    Object.fromEntries((await scrape(metrics, name)).map((sample) => [sample.labels[label], sample.value]));
  t.same(await values('sluice_group_prefixes', 'group'), { a: 1, b: 1, other: 2 });
  t.same(await values('sluice_inventory_age_seconds', 'account'), { a: 10, b: 20, other: 40 });
  names = ['d', 'c', 'b', 'a'];
  t.same(await values('sluice_group_prefixes', 'group'), { a: 1, b: 1, other: 2 }, 'whatever the order');
  names = ['c', 'b', 'e', 'f'];
  t.same(
    await values('sluice_group_prefixes', 'group'),
    { e: 1, b: 1, other: 2 },
    'a freed place goes to a new value',
  );
  for (let index = 0; index < 5; index++) metrics.drifted(`kind ${index}`);
  t.same(await values('sluice_drift_total', 'kind'), { table: 0, chain: 0, other: 5 });
});

t.test('decisions: the busiest rules by themselves, the rest as other, groups whole', async (t) => {
  const metrics = createMetrics({ rulesMax: 2 });
  let counts: Readonly<Record<string, number>> = { a: 0, b: 10, c: 7, d: 20 };
  metrics.decisions(() =>
    Object.entries(counts).map(([rule, count]) => ({ ...denied(rule), groups: ['g', rule], count })),
  );
  const values = async (name: string, label: string) =>
    Object.fromEntries((await scrape(metrics, name)).map((sample) => [sample.labels[label], sample.value]));
  t.same(await values('sluice_decisions_total', 'rule'), { b: 10, d: 20, other: 0 });
  counts = { a: 1, b: 11, c: 9, d: 20 };
  t.same(await values('sluice_decisions_total', 'rule'), { b: 11, d: 20, other: 3 });
  t.same(await values('sluice_group_decisions_total', 'group'), { g: 4, a: 1, b: 1, c: 2, d: 0 });
  counts = { a: 100, b: 11, c: 9, d: 20 };
  t.same(await values('sluice_decisions_total', 'rule'), { a: 99, d: 20, other: 3 }, 'b is displaced');
  counts = { a: 100, b: 500, d: 3 };
  t.same(
    await values('sluice_decisions_total', 'rule'),
    { a: 99, b: 500, other: 6 },
    'd counts anew, b goes on',
  );
  t.same(await values('sluice_group_decisions_total', 'group'), { g: 595, a: 100, b: 490, d: 3 });
});

t.test('a source that fails costs its own series only', async (t) => {
  const procNetfilter = t.testdir();
  const metrics = createMetrics({ sourceMs: 250, procNetfilter });
  const gate = Promise.withResolvers<readonly DecisionCount[]>();
  let asked = 0;
  metrics.decisions(() => {
    asked++;
    return gate.promise;
  });
  metrics.dropped(() => {
    throw new Error('EPERM');
  });
  metrics.groupPrefixes(() => [{ group: 'g', prefixes: 3 }]);
  const failures = async () =>
    Object.fromEntries(
      (await scrape(metrics, 'sluice_scrape_failures_total')).map((s) => [s.labels.source, s.value]),
    );
  const both = {
    sluice_decisions_total: 1,
    sluice_group_decisions_total: 1,
    sluice_dropped_packets_total: 1,
  };
  t.same(await failures(), both);
  t.match(await scrape(metrics, 'sluice_group_prefixes'), [{ value: 3 }]);
  t.match(await failures(), { sluice_decisions_total: 3, sluice_dropped_packets_total: 3 });
  t.equal(asked, 1, 'not asked again before it has answered');
  t.same(await scrape(metrics, 'sluice_conntrack_entries'), [], 'absent is not 0');

  gate.resolve([{ ...denied('r'), count: 1 }]);
  for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate);
  t.match(await scrape(metrics, 'sluice_decisions_total'), [{ value: 1 }], 'and it comes back');
  mkdirSync(procNetfilter, { recursive: true });
  writeFileSync(join(procNetfilter, 'nf_conntrack_count'), 'many');
  t.same(await scrape(metrics, 'sluice_conntrack_entries'), []);
  t.equal((await failures()).sluice_conntrack_entries, 2);
});
