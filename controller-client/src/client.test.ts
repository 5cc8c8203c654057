import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseConfig } from 'sluice-gateway/config/config.js';
import { eniMaxAge, groupsSection } from 'sluice-gateway/config/groups.js';
import type { Log } from 'sluice-gateway/log.js';
import { printPrefix } from 'sluice-gateway/net/prefix.js';
import { readOrigins } from 'sluice-gateway/snapshot/provenance.js';
import { readSnapshot } from 'sluice-gateway/snapshot/read.js';
import t, { type Test } from 'tap';
import { ControllerClient } from './client.js';

const GATEWAY =
  'gateway: { name: gw, lambdaInterfaces: [lam0], egressInterfaces: [wan0] }\npolicy: { path: policy.yaml }\n';
const POLICY = `version: sluice.policy/1
smartGroups:
  - name: blocked
    selector: { any: [ { all: { external: list, name: blocked } } ] }
policies:
  - { name: block, priority: 1, action: DENY, src: [Anywhere], dst: [blocked], protocol: ANY }
`;

/** A client at work in a folder, and what it says. */
function runClient(t: Test, folder: string) {
  const said: string[] = [];
  const say = (message: string) => said.push(message);
  const log = { debug: say, info: say, warn: say, error: say } as unknown as Log;
  const feeds = 'groups: { feeds: { refreshSeconds: 1, lists: { blocked: { path: blocked.txt } } } }\n';
  const config = parseConfig(`${GATEWAY}${feeds}snapshot: { path: snapshot }\n`, join(folder, 'sluice.yaml'));
  const client = new ControllerClient(config, log);
  const running = client.run();
  t.teardown(async () => {
    client.stop();
    await running;
  });
  const until = async <Found>(look: () => Promise<Found | undefined | false>): Promise<Found> => {
    for (;;) {
      const found = await look().catch(() => undefined);
      if (found) return found;
      await delay(20);
    }
  };
  const held = async () => {
    const snapshot = await readSnapshot(join(folder, 'snapshot'));
    const { parts } = snapshot.groups.find(({ name }) => name === 'blocked')!;
    return { snapshot, prefixes: parts.flat().map(printPrefix).join(' ') };
  };
  return { client, running, said, until, held };
}

t.test(
  'a feed gets into the snapshot with its provenance, changes with its file, and outlives it',
  async (t) => {
    const folder = t.testdir({ 'policy.yaml': POLICY, 'blocked.txt': '192.0.2.0/24\n' });
    const { held, until, said } = runClient(t, folder);
    const { snapshot } = await until(async () => (await held()).prefixes === '192.0.2.0/24' && held());
    const [origin] = (await readOrigins(join(folder, 'snapshot'), snapshot, 'blocked'))!;
    t.match(origin, { prefix: '192.0.2.0/24', via: 'feed list name=blocked' });
    t.match(snapshot.inventory.feeds, [{ name: 'feed list name=blocked', prefixes: 1 }]);
    writeFileSync(join(folder, 'blocked.txt'), '192.0.2.0/24\n198.51.100.0/24\n');
    await until(async () => (await held()).prefixes === '192.0.2.0/24 198.51.100.0/24');
    rmSync(join(folder, 'blocked.txt'));
    await until(async () => said.includes('a name or feed could not be read, what was known stays'));
    t.equal((await held()).prefixes, '192.0.2.0/24 198.51.100.0/24');
  },
);

t.test('a client that is stopped while it starts ends', async (t) => {
  const { running, client } = runClient(t, t.testdir({ 'policy.yaml': POLICY }));
  client.stop();
  await running;
  t.pass();
});

t.test('a DENY on a feed that was never read is refused until it is', async (t) => {
  const folder = t.testdir({ 'policy.yaml': POLICY });
  const { held, until, said } = runClient(t, folder);
  const refused = 'whose members are not all known: feed list name=blocked was never learnt';
  await until(async () => said.some((line) => line.includes(refused)));
  await t.rejects(held(), 'no snapshot');
});

t.test('the section groups of a configuration', async (t) => {
  const parse = (groups: string) => parseConfig(`${GATEWAY}groups: ${groups}\n`, '/etc/sluice.yaml').groups;
  const { feeds, strictIdentity, dns } = parse('{}');
  t.same([strictIdentity, dns, feeds.refreshSeconds], [false, { servers: [], graceSeconds: 600 }, 3600]);
  t.same(parse('{ feeds: { geo: { path: a.mmdb }, lists: { x: { path: l/x } } } }').feeds, {
    ...feeds,
    geo: { path: '/etc/a.mmdb' },
    lists: { x: { path: '/etc/l/x' } },
  });
  const bad: readonly (readonly [string, RegExp])[] = [
    [
      '{ dns: { servers: [dns.example.com] } }',
      /:3:28: groups\.dns\.servers\.0 is "dns\.example\.com": expected an address/,
    ],
    ['{ feeds: { lists: { x: {} } } }', /groups\.feeds\.lists\.x .*expected either url or path/],
    ['{ feeds: { lists: { x: { url: "ftp://example.com/x" } } } }', /expected an address such as https/],
    ['{ eniMaxAgeSeconds: 0 }', /groups\.eniMaxAgeSeconds is 0: the lowest allowed is 1/],
    ['{ strict: true }', /unknown key "strict" in groups/],
  ];
  for (const [groups, message] of bad) t.throws(() => parse(groups), { message });
  const ages = (section: object, refreshSeconds?: number) =>
    eniMaxAge(groupsSection.parse(section), refreshSeconds);
  t.same([ages({}), ages({}, 60), ages({}, 3_600), ages({ eniMaxAgeSeconds: 5 }, 60)], [900, 900, 10_800, 5]);
});
