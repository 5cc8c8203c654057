import '../support/own-namespace.js';
import { FlowAssembler } from 'sluice-gateway/flows/assemble.js';
import type { FlowRecord } from 'sluice-gateway/flows/record.js';
import { Matcher } from 'sluice-gateway/matcher/matcher.js';
import { listenNflog } from 'sluice-gateway/nflog/listen.js';
import { LOG_GROUP } from 'sluice-gateway/policy/fixed-chains.js';
import { LOG_LIMITS } from 'sluice-gateway/policy/log-limits.js';
import { RuleCounters } from 'sluice-gateway/rule-counters.js';
import t, { type Test } from 'tap';
import { inForce, prefixes, rule } from '../support/load.js';
import { here } from '../support/namespace.js';
import { FILE_MS_MAX } from '../support/patience.js';
import { flow, Stand, there } from '../support/stand.js';
import { until } from '../support/wait.js';

/** A noisy function must not hide from the log what others are refused, and nothing may be refused uncounted. */

t.setTimeout(FILE_MS_MAX);

const stand = await Stand.create();
t.teardown(() => stand.close());

const UDP = 17;
const groups = new Map([
  ['functions', prefixes('10.0.0.0/16', 'fd00:a::/64')],
  ['servers', prefixes('203.0.113.0/24', '2606:2800::/32')],
]);
const [denied, rejected] = (['DENY', 'REJECT'] as const).map((action, index) =>
  rule(action, action, 'functions', 'servers', { portRanges: [{ lo: index + 1, hi: index + 1 }] }),
) as [ReturnType<typeof rule>, ReturnType<typeof rule>];
const policy = inForce(denied, rejected);
const load = (loaded = policy) => stand.loader.load({ policy: loaded, groups });
const FAMILIES = [
  { family: 4, subnet: '10.0.130.', dst: '203.0.113.9' },
  { family: 6, subnet: 'fd00:a::', dst: '2606:2800::9' },
] as const;

const records: FlowRecord[] = [];
const matcher = Matcher.build({ groups: [], functions: [], excluded: [] });
const assembler = new FlowAssembler({
  gateway: 'gw',
  rules: { ruleOf: ({ rule }) => policy.rules.find(({ number }) => number === rule) },
  matcher: () => matcher,
  now: () => new Date(),
  connectionsMax: 1,
});
const listener = await listenNflog(
  LOG_GROUP,
  (packet) => records.push(...[assembler.packet(packet) ?? []].flat()),
  () => t.fail('packets were lost'),
);
t.teardown(() => listener.close());
const counters = new RuleCounters(stand.loader.kernel, () => policy);

/** Has packets refused, and gives their records, and how long they took; every packet has one or is counted. */
async function refuse(t: Test, by: 'DENY' | 'REJECT', packets: readonly ReturnType<typeof there>[]) {
  const dropped = async () => {
    const { deny, reject, unanswered } = await stand.dropped();
    return deny + reject + unanswered;
  };
  const [before, startMs] = [await dropped(), performance.now()];
  t.ok(await stand.stops('a', 'internet', ...packets), 'nothing passes');
  const seconds = (performance.now() - startMs) / 1000;
  t.equal((await dropped()) - before, packets.length, 'each is counted as refused');
  const isTold = async () => {
    records.push(...assembler.suppressedCounts(await counters.suppressed()), ...assembler.finish());
    const told = records.reduce(
      (sum, { event, suppressed = 0 }) => sum + suppressed + (event === 'deny' ? 1 : 0),
      0,
    );
    return told >= packets.length && told;
  };
  t.equal(
    await until('every refusal is told', isTold),
    packets.length,
    'each is told of once, alone or in a count',
  );
  const found = records.splice(0);
  t.ok(found.every((record) => record.rule?.name === by));
  const logged = (src?: string) =>
    found.filter(({ event, src: from }) => event === 'deny' && (src ?? from?.ip) === from?.ip).length;
  return { logged, seconds };
}

let lastHost = 0;
/** Addresses that no test has used. */
const newSources = (subnet: string, count: number) =>
  Array.from({ length: count }, () => `${subnet}${++lastHost}`);
type Limit = (typeof LOG_LIMITS)[keyof typeof LOG_LIMITS];
/** What a limit lets by in so long, at most. */
const most = ({ perSecond, burstPackets }: Limit, seconds: number) =>
  burstPackets + Math.ceil(perSecond * seconds);
const repeated = (count: number, src: string, dst: string, port: number) =>
  Array<ReturnType<typeof there>>(count).fill(there(flow(UDP, src, dst, port)));

for (const { family, subnet, dst } of FAMILIES) {
  for (const [index, by] of (['DENY', 'REJECT'] as const).entries()) {
    t.test(`a source that floods a rule hides no other, IPv${family}, ${by}`, async (t) => {
      await load();
      const [noisy, quiet] = newSources(subnet, 2) as [string, string];
      const flood = repeated(1_000, noisy, dst, index + 1);
      const rulesetId = await stand.loader.kernel.rulesetId();
      const { logged, seconds } = await refuse(t, by, [...flood, ...repeated(1, quiet, dst, index + 1)]);
      t.equal(logged(quiet), 1);
      t.equal(await stand.loader.kernel.rulesetId(), rulesetId, 'what rules put into sets is no change');
      const { burstPackets } = LOG_LIMITS.source;
      t.ok(
        logged(noisy) >= burstPackets && logged(noisy) <= most(LOG_LIMITS.source, seconds),
        `${logged(noisy)} records`,
      );
    });
  }

  t.test(`what a source has used up stays so under another program, IPv${family}`, async (t) => {
    await load();
    const [noisy] = newSources(subnet, 1) as [string];
    const flood = repeated(1_000, noisy, dst, 1);
    const startMs = performance.now();
    const first = await refuse(t, 'DENY', flood);
    await load(inForce(denied, rejected, rule('more', 'PERMIT', 'functions', 'servers')));
    const second = await refuse(t, 'DENY', flood);
    const seconds = (performance.now() - startMs) / 1000;
    const both = first.logged() + second.logged();
    t.ok(both <= most(LOG_LIMITS.source, seconds), `${both} records in ${seconds} s`);
    const other = await refuse(t, 'REJECT', repeated(50, noisy, dst, 2));
    t.equal(other.logged(), 50, 'of another rule it has all');
  });

  t.test(`many sources together have the limit of the rule, IPv${family}`, async (t) => {
    await load();
    const sources = newSources(subnet, 100);
    const { logged, seconds } = await refuse(
      t,
      'DENY',
      sources.flatMap((src) => repeated(40, src, dst, 1)),
    );
    t.ok(logged() <= most(LOG_LIMITS.rule, seconds), `${logged()} records`);
  });

  t.test(`where no more sources can be kept, the limit of the rule holds, IPv${family}`, async (t) => {
    await load();
    const [noisy, quiet] = newSources(subnet, 2) as [string, string];
    const set = `log_sources${family}`;
    const others = Array.from({ length: 65_535 }, (_, index) =>
      family === 4 ? `10.9.${index >> 8}.${index & 255}` : `fd00:9::${index.toString(16)}`,
    );
    const elements = others.map((other) => `1 . ${other} timeout 1h`).join(', ');
    here.run('nft', ['-f', '-'], {
      input: `flush set inet sluice ${set}; add element inet sluice ${set} { ${elements} }`,
    });
    const { logged, seconds } = await refuse(t, 'DENY', repeated(4_000, noisy, dst, 1));
    t.ok(
      logged() > most(LOG_LIMITS.source, seconds) && logged() <= most(LOG_LIMITS.rule, seconds),
      `${logged()} records`,
    );
    here.run('nft', ['flush', 'set', 'inet', 'sluice', set]);
    const again = await refuse(t, 'DENY', repeated(1_000, quiet, dst, 1));
    t.ok(again.logged() <= most(LOG_LIMITS.source, again.seconds), 'with room again, that of the source');
    t.match(here.run('nft', ['list', 'set', 'inet', 'sluice', set]), quiet, 'nft lists what rules put there');
  });
}
