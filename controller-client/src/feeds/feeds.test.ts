import { createSocket } from 'node:dgram';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import fc from 'fast-check';
import { type CountryResponse, Reader } from 'mmdb-lib';
import { type GroupsSection, groupsSection } from 'sluice-gateway/config/groups.js';
import type { Log } from 'sluice-gateway/log.js';
import { printAddress } from 'sluice-gateway/net/address.js';
import { prefixContains, printPrefix } from 'sluice-gateway/net/prefix.js';
import t, { type Test } from 'tap';
import { type FeedQuery, feedKey } from '../sources/model.js';
import { readContent } from './content.js';
import { FeedKeeper, knownFeeds, NAME_ADDRESSES_MAX, readKnownFeeds } from './keeper.js';
import { writeMmdb } from './mmdb-fixture.js';
import { createLookup, type Lookup } from './names.js';
import { fetchSource } from './source.js';

const seed = Number(process.env.TEST_SEED ?? Date.now() % 2 ** 31);
t.comment(`TEST_SEED=${seed}`);

/** It brings no types. */
interface Packet {
  readonly id: number;
  readonly type: 'response';
  readonly flags: number;
  readonly questions: readonly { readonly name: string; readonly type: string }[];
  readonly answers: readonly object[];
}
const dns = createRequire(import.meta.url)('dns-packet') as {
  decode(bytes: Buffer): Packet;
  encode(packet: Packet): Buffer;
};

const at = { file: 'p.yaml', line: 1, column: 1 };
const fqdn = (name: string) => ({ type: 'fqdn' as const, fqdn: name, at });
const external = (query: FeedQuery) => ({ type: 'external' as const, query, at });

/** A keeper whose clock and log are the test's. */
async function keeperOf(t: Test, config: object, lookup?: Lookup, folder = t.testdir()) {
  const said: string[] = [];
  const say = (message: string, fields?: object) => said.push(`${message} ${JSON.stringify(fields)}`);
  const log = { debug: say, info: say, warn: say, error: say } as unknown as Log;
  const clock = { now: Date.parse('2026-11-21T12:00:00.000Z') };
  let changes = 0;
  const section: GroupsSection = groupsSection.parse(config);
  const file = join(folder, 'feeds.json');
  const keeper = await FeedKeeper.open({
    ...{ section, file, log, learnt: () => changes++, now: () => new Date(clock.now) },
    ...(lookup && { lookup }),
  });
  const want = (...selectors: (ReturnType<typeof fqdn> | ReturnType<typeof external>)[]) =>
    keeper.want(new Map(selectors.map((one) => [feedKey(one), one])));
  return {
    ...{ keeper, want, said, file },
    changes: () => changes,
    later: async (seconds: number) => {
      clock.now += seconds * 1_000;
      await keeper.refreshDue();
    },
    held: (key: string) => keeper.learnt.feeds.get(key)?.prefixes.map(({ prefix }) => printPrefix(prefix)),
  };
}

t.test('a name: addresses stay for their time to live and the grace time', async (t) => {
  let answer: readonly string[] | Error = ['192.0.2.1', '2001:db8::1'];
  const lookup: Lookup = async () => {
    if (answer instanceof Error) throw answer;
    return { addresses: answer, ttlSeconds: 60 };
  };
  const { want, later, held, keeper, changes, said } = await keeperOf(
    t,
    { dns: { graceSeconds: 100 } },
    lookup,
  );
  const name = fqdn('api.example.com');
  const key = 'fqdn api.example.com';
  await want(name);
  t.same(held(key)?.sort(), ['192.0.2.1/32', '2001:db8::1/128']);
  answer = ['192.0.2.2'];
  await later(59);
  t.notOk(held(key)?.includes('192.0.2.2/32'), 'not asked before its time to live is over');
  await later(1);
  t.same(
    held(key)?.sort(),
    ['192.0.2.1/32', '192.0.2.2/32', '2001:db8::1/128'],
    'rotating addresses collect',
  );
  t.equal(changes(), 1);
  await later(60);
  t.equal(held(key)?.length, 3);
  await later(60);
  t.same(held(key), ['192.0.2.2/32'], 'the old ones went after 160 s');
  answer = new Error('SERVFAIL');
  await later(100_000);
  t.same(held(key), ['192.0.2.2/32'], 'what is not answered stays');
  t.match(keeper.learnt.status, [
    { name: key, prefixes: 1, refreshedAt: '2026-11-21T12:03:00.000Z', error: 'SERVFAIL' },
  ]);
  await later(15);
  t.equal(said.filter((line) => line.includes('SERVFAIL')).length, 1, 'told once');
  answer = ['192.0.2.9'];
  await later(15);
  t.same(held(key), ['192.0.2.9/32'], 'old beyond its grace, and answered again');
  await want();
  t.equal(held(key), undefined, 'no group speaks of it any more');
});

t.test('a name with too many addresses keeps those seen last', async (t) => {
  let round = 0;
  const lookup: Lookup = async () => {
    round++;
    return { addresses: Array.from({ length: 200 }, (_, index) => `10.0.${round}.${index}`), ttlSeconds: 5 };
  };
  const { want, later, held, said } = await keeperOf(t, {}, lookup);
  await want(fqdn('many.example.com'));
  await later(5);
  const addresses = held('fqdn many.example.com')!;
  t.equal(addresses.length, NAME_ADDRESSES_MAX);
  t.equal(addresses.filter((text) => text.startsWith('10.0.2.')).length, 200);
  t.ok(said.some((line) => line.includes(`"limit":${NAME_ADDRESSES_MAX}`)));
});

t.test('what was never answered is not known; what was is known after a restart', async (t) => {
  const folder = t.testdir();
  const fails: Lookup = async () => {
    throw new Error('no server');
  };
  const name = fqdn('a.example.com');
  const first = await keeperOf(t, {}, fails, folder);
  await first.want(name);
  t.equal(first.held('fqdn a.example.com'), undefined);
  const second = await keeperOf(t, {}, async () => ({ addresses: ['192.0.2.1'], ttlSeconds: 1 }), folder);
  await second.want(name);
  const third = await keeperOf(t, {}, fails, folder);
  await third.want(name);
  t.same(third.held('fqdn a.example.com'), ['192.0.2.1/32']);
  t.same([...knownFeeds(await readKnownFeeds(third.file)).keys()], ['fqdn a.example.com']);
  writeFileSync(third.file, '{"x":{"prefixes":[["bad"]]}}');
  t.equal((await readKnownFeeds(third.file)).size, 0, 'what is not ours counts for nothing');
});

t.test('names are asked of the configured server, both families', async (t) => {
  const zone: Readonly<Record<string, readonly object[]>> = {
    'A api.example.com': [
      { type: 'CNAME', name: 'api.example.com', ttl: 300, data: 'edge.example.net' },
      { type: 'A', name: 'edge.example.net', ttl: 30, data: '192.0.2.7' },
      { type: 'A', name: 'edge.example.net', ttl: 20, data: '192.0.2.8' },
    ],
    'AAAA api.example.com': [{ type: 'AAAA', name: 'api.example.com', ttl: 60, data: '2001:db8::7' }],
    'A only4.example.com': [{ type: 'A', name: 'only4.example.com', ttl: 5, data: '192.0.2.4' }],
    'AAAA only4.example.com': [],
  };
  const server = createSocket('udp4', (message, { address, port }) => {
    const { id, questions } = dns.decode(message);
    const answers = zone[`${questions[0]!.type} ${questions[0]!.name}`];
    const rcode = answers === undefined ? 3 : 0;
    server.send(
      dns.encode({ type: 'response', id, flags: rcode, questions, answers: answers ?? [] }),
      port,
      address,
    );
  });
  await new Promise<void>((resolve) => server.bind(0, '127.0.0.1', resolve));
  t.teardown(() => server.close());
  const lookup = createLookup([`127.0.0.1:${server.address().port}`]);
  t.same(await lookup('api.example.com'), {
    addresses: ['192.0.2.7', '192.0.2.8', '2001:db8::7'],
    ttlSeconds: 20,
  });
  t.same(await lookup('only4.example.com'), { addresses: ['192.0.2.4'], ttlSeconds: 5 });
  await t.rejects(lookup('none.example.com'), {
    message: 'Cannot resolve name: none.example.com has no address',
  });
});

t.test(
  'a list on a web server is fetched again only where it changed, and a bad one changes nothing',
  async (t) => {
    let text = '# partners\n192.0.2.0/25\n192.0.2.128/25 ; one block\n\n2001:db8::1\r\n';
    let status = 200;
    const asked: string[] = [];
    const server = createServer((request, response) => {
      const tag = `"${text.length}"`;
      const same = status === 200 && request.headers['if-none-match'] === tag;
      asked.push(same ? '304' : String(status));
      response.writeHead(same ? 304 : status, { etag: tag }).end(same ? undefined : text);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    t.teardown(() => server.close());
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/list`;
    const { want, later, held, keeper, changes } = await keeperOf(t, {
      feeds: { refreshSeconds: 60, lists: { partners: { url } } },
    });
    const key = 'feed list name=partners';
    await want(external({ external: 'list', name: 'partners' }));
    t.same(held(key), ['192.0.2.0/24', '2001:db8::1/128'], 'in the fewest prefixes');
    await later(60);
    t.same([asked, changes()], [['200', '304'], 0]);
    t.notOk(keeper.learnt.status[0]!.error);
    text = '192.0.2.0/24\nnot an address\n';
    await later(60);
    t.equal(held(key)?.length, 2);
    t.match(keeper.learnt.status, [
      { error: /^Cannot read feed: line 2: Cannot parse CIDR: "not an address"/ },
    ]);
    text = ' \n';
    await later(60);
    t.equal(held(key)?.length, 2, 'one that was cut short');
    t.match(keeper.learnt.status, [{ error: /^Cannot read feed: it is empty/ }]);
    status = 500;
    await later(60);
    t.match(keeper.learnt.status, [{ error: `Cannot read feed: ${url} answered 500`, prefixes: 2 }]);
    status = 200;
    text = '198.51.100.0/24\n';
    await later(60);
    t.same(held(key), ['198.51.100.0/24']);
    t.notOk(keeper.learnt.status[0]!.error);
    t.equal(changes(), 1);
    text = '# nobody any more\n';
    await later(60);
    t.same(held(key), [], 'one that says that it holds nothing');
  },
);

t.test('a list in a file, one that nobody configured, and one that is too long', async (t) => {
  const folder = t.testdir({ 'list.txt': '10.0.0.0/8\n' });
  const path = join(folder, 'list.txt');
  const feeds = { refreshSeconds: 60, lists: { here: { path } } };
  const { want, later, held, keeper } = await keeperOf(t, { feeds }, undefined, folder);
  await want(
    external({ external: 'list', name: 'here' }),
    external({ external: 'list', name: 'toString' }),
    external({ external: 'geo', is_in_eu: true }),
  );
  t.same(held('feed list name=here'), ['10.0.0.0/8']);
  t.match(keeper.learnt.status, [
    {},
    { error: 'Cannot read feed: the configuration has no groups.feeds.lists.toString' },
    { error: 'Cannot read feed: the configuration has no groups.feeds.geo' },
  ]);
  writeFileSync(
    path,
    Array.from({ length: 250_001 }, (_, index) => printAddress({ family: 4, value: BigInt(index * 2) })).join(
      '\n',
    ),
  );
  await later(60);
  t.same(held('feed list name=here'), ['10.0.0.0/8']);
  t.match(keeper.learnt.status[0]!.error, 'it holds 250001 prefixes, the limit is 250000');
});

t.test("AWS's ranges by service and region", async (t) => {
  const prefixes = [
    { ip_prefix: '3.5.0.0/20', region: 'us-east-1', service: 'S3', network_border_group: 'us-east-1' },
    { ip_prefix: '3.5.16.0/20', region: 'us-east-1', service: 'S3', network_border_group: 'us-east-1' },
    { ip_prefix: '52.0.0.0/16', region: 'eu-west-1', service: 'EC2', network_border_group: 'eu-west-1' },
  ];
  const ipv6_prefixes = [{ ipv6_prefix: '2600:1fa0::/40', region: 'us-east-1', service: 'S3' }];
  const content = await readContent(
    'aws',
    Buffer.from(JSON.stringify({ syncToken: '1', prefixes, ipv6_prefixes })),
  );
  const select = (query: object) => content({ external: 'aws', ...query }).map(printPrefix);
  t.same(select({ service: 'S3', region: 'us-east-1' }), ['3.5.0.0/19', '2600:1fa0::/40']);
  t.same(select({ region: 'eu-west-1' }), ['52.0.0.0/16']);
  t.equal(select({}).length, 3);
  t.same(select({ service: 'EC2', region: 'us-east-1' }), [], 'both exist, not together');
  t.throws(() => select({ service: 's3' }), { message: 'Cannot read feed: AWS publishes no service "s3"' });
  await t.rejects(readContent('aws', Buffer.from('{}')));
  await t.rejects(readContent('aws', Buffer.from('{"prefixes":[],"ipv6_prefixes":[]}')), /no ranges/);
});

const country = (iso: string, continent: string, eu = false) => ({
  continent: { code: continent },
  country: { iso_code: iso, ...(eu && { is_in_european_union: true }) },
});

t.test('countries, held against what the library says of each address', async (t) => {
  const entries = {
    '192.0.2.0/25': country('DE', 'EU', true),
    '192.0.2.128/26': country('DE', 'EU', true),
    '192.0.2.192/26': country('CH', 'EU'),
    '198.51.0.0/16': country('US', 'NA'),
    '203.0.113.7/32': country('FR', 'EU', true),
    '2001:db8::/33': country('DE', 'EU', true),
    '2a00::/12': country('US', 'NA'),
  };
  for (const recordSize of [24, 28, 32] as const) {
    const bytes = writeMmdb(entries, recordSize);
    const content = await readContent('geo', bytes);
    const select = (query: object) => content({ external: 'geo', ...query }).map(printPrefix);
    t.same(select({ country_iso_code: 'DE' }), ['192.0.2.0/25', '192.0.2.128/26', '2001:db8::/33']);
    t.same(select({ is_in_eu: true, country_iso_code: 'FR' }), ['203.0.113.7/32']);
    t.same(select({ is_in_eu: false, continent_code: 'EU' }), ['192.0.2.192/26']);
    t.same(select({ country_iso_code: 'XX' }), []);
    const reader = new Reader<CountryResponse>(bytes);
    const german = content({ external: 'geo', country_iso_code: 'DE' });
    const near = fc.oneof(
      fc
        .integer({ min: 0, max: 511 })
        .map((low) => ({ family: 4 as const, value: 0xc0000200n + BigInt(low) })),
      fc
        .bigInt({ min: 0n, max: (1n << 97n) - 1n })
        .map((low) => ({ family: 6 as const, value: (0x20010db8n << 96n) + low })),
    );
    fc.assert(
      fc.property(near, (address) => {
        const said = reader.get(printAddress(address))?.country?.iso_code === 'DE';
        return said === german.some((prefix) => prefixContains(prefix, address));
      }),
      { seed },
    );
  }
  await t.rejects(readContent('geo', Buffer.from('no database')));
});

t.test('a file that is written while it is read is not taken', async (t) => {
  const path = join(t.testdir({ list: '' }), 'list');
  const reading = fetchSource({ path } as Parameters<typeof fetchSource>[0], '');
  let isOver = false;
  const over = reading.then(
    () => 'taken',
    (error: Error) => error.message,
  );
  void over.then(() => {
    isOver = true;
  });
  for (let text = ''; !isOver; text += '192.0.2.1\n') {
    writeFileSync(path, text);
    await new Promise(setImmediate);
  }
  t.equal(await over, `Cannot read feed: ${path} was written while it was read`);
});
