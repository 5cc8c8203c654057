import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Prefix, parsePrefix, prefixOf, printPrefix, sortPrefixes } from 'sluice-gateway/net/prefix.js';
import { openSnapshotFolder, type SnapshotStore } from 'sluice-gateway/snapshot/folder.js';
import {
  bodyDigest,
  functionsBodySchema,
  groupBodySchema,
  inventoryBodySchema,
  type Manifest,
  manifestSchema,
  policyBodySchema,
  SNAPSHOT_LIMITS,
} from 'sluice-gateway/snapshot/format.js';
import { readSnapshot } from 'sluice-gateway/snapshot/read.js';
import t from 'tap';
import { publish, type SnapshotContent, writeSnapshot } from './write.js';

const seed = Number(process.env.TEST_SEED ?? Date.now() % 2 ** 31);
t.comment(`TEST_SEED=${seed}`);

const now = new Date('2026-11-21T12:00:00.000Z');

/** Numbers below 2^32 that look random and are the same on every run of one seed. */
function randomNumbers(start: number): () => number {
  let state = start >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}

function randomPrefixes(count: number): Prefix[] {
  const random = randomNumbers(seed);
  return sortPrefixes(
    Array.from({ length: count }, (): Prefix => {
      const [length, value] = [16 + (random() % 17), BigInt(random())];
      if (random() % 4 > 0) return prefixOf({ family: 4, value }, length);
      return prefixOf({ family: 6, value: (0x20010db8n << 96n) | (value << 48n) }, 32 + 2 * length);
    }),
  );
}

function content(groups: Readonly<Record<string, readonly Prefix[]>>): SnapshotContent {
  return {
    policy: { rules: [], defaultAction: { action: 'DENY', logging: false } },
    groups: Object.entries(groups).map(([name, prefixes]) => ({
      name,
      resolved: true,
      prefixes,
      members: [],
    })),
    inventory: { functions: [], scopes: [{ accountId: '111122223333', region: 'us-east-1' }] },
  };
}

const digestsOf = ({ policy, groups, inventory }: Manifest) =>
  new Set([
    policy.digest,
    inventory.digest,
    ...inventory.functions,
    ...groups.flatMap(({ bodies }) => bodies),
  ]);

/**
 * The snapshot in a folder, read as the gateway would: every body there, with the bytes its name promises.
 */
function read(folder: string) {
  const manifest = manifestSchema.parse(JSON.parse(readFileSync(join(folder, 'manifest.json'), 'utf8')));
  const body = (digest: string): unknown => {
    const bytes = readFileSync(join(folder, 'bodies', digest));
    if (bodyDigest(bytes) !== digest) throw new Error(`body ${digest} has other bytes`);
    return JSON.parse(bytes.toString('utf8'));
  };
  const policy = policyBodySchema.parse(body(manifest.policy.digest));
  const functions = manifest.inventory.functions.flatMap(
    (digest) => functionsBodySchema.parse(body(digest)).functions,
  );
  const inventory = { ...inventoryBodySchema.parse(body(manifest.inventory.digest)), functions };
  const groups = manifest.groups.map(({ name, resolved, bodies, prefixCount }) => {
    const prefixes = bodies.flatMap((digest) => groupBodySchema.parse(body(digest)).prefixes);
    if (prefixes.length !== prefixCount) throw new Error(`group ${name} has ${prefixes.length} prefixes`);
    return { name, resolved, prefixes };
  });
  return { manifest, policy, inventory, groups };
}

const write = (folder: string, what: SnapshotContent) => writeSnapshot(folder, what, { now });

t.test('what is written is what is read, names of any characters included', async (t) => {
  const folder = join(t.testdir(), 'made', 'on', 'the', 'way');
  const name = 'a\nb\u001b[2J"=\\\u2028\ud83d\ude00';
  const prefixes = [parsePrefix('10.0.0.0/8'), parsePrefix('2001:db8::/32')];
  const written = await write(folder, {
    policy: {
      rules: [
        {
          ...{ name, priority: 1, action: 'REJECT', src: [name], dst: ['Anywhere'], protocol: 'TCP' },
          ...{ portRanges: [{ lo: 1, hi: 2 }], logging: true, enforcement: 'MONITOR', ticket: name },
        },
      ],
      defaultAction: { action: 'PERMIT', logging: true },
    },
    groups: [
      { name, resolved: true, prefixes, members: [] },
      { name: 'nothing', resolved: false, prefixes: [], members: [] },
    ],
    inventory: {
      functions: [
        {
          ...{ arn: `arn:${name}`, name, accountId: '1', region: 'r', identity: 'shared', prefixes },
          ...{ sharedWith: ['arn:other'], sharedBy: ['subnet-1'], addresses: [] },
        },
      ],
      scopes: [
        { accountId: '1', region: 'r', refreshedAt: '2026-11-21T11:59:00.000Z', error: 'x'.repeat(5_000) },
      ],
    },
  });
  t.same(written, { revision: 1, changed: true });
  const { manifest, policy, inventory, groups } = read(folder);
  t.equal(manifest.createdAt, '2026-11-21T12:00:00.000Z');
  t.equal(policy.rules[0]!.name, name);
  t.equal(policy.rules[0]!.ticket, name);
  t.same(groups, [
    { name, resolved: true, prefixes: ['10.0.0.0/8', '2001:db8::/32'] },
    { name: 'nothing', resolved: false, prefixes: [] },
  ]);
  t.equal(inventory.functions[0]!.name, name);
  t.same(inventory.functions[0]!.sharedWith, ['arn:other']);
  t.equal(inventory.scopes[0]!.error!.length, 4_096);
});

t.test('the revision grows with the content, over restarts too', async (t) => {
  const folder = t.testdir();
  const [a, b] = [content({ g: [parsePrefix('10.0.0.0/8')] }), content({ g: [parsePrefix('10.0.0.0/9')] })];
  t.same(await write(folder, a), { revision: 1, changed: true });
  const before = statSync(join(folder, 'manifest.json')).mtimeMs;
  t.same(await writeSnapshot(folder, a, { now: new Date('2026-11-22') }), { revision: 1, changed: false });
  t.equal(statSync(join(folder, 'manifest.json')).mtimeMs, before, 'nothing was written');
  t.same(await write(folder, b), { revision: 2, changed: true });
  t.same(await write(folder, a), { revision: 3, changed: true }, 'old content is a new revision');
  writeFileSync(join(folder, 'manifest.json'), '{}');
  const { revision } = await write(folder, b);
  t.ok(
    revision > 1_700_000_000,
    'one that a disk spoiled is followed by a revision above all that were counted',
  );
  const [body] = read(folder).manifest.groups[0]!.bodies;
  rmSync(join(folder, 'bodies', body!));
  t.same(await write(folder, b), { revision, changed: false });
  t.ok(existsSync(join(folder, 'bodies', body!)), 'a body that is lost is written again');
});

t.test(
  'no revision comes again, whatever the disk did to the manifest, and whatever the clock says',
  async (t) => {
    const path = join(t.testdir(), 'snapshot');
    const of = (n: number) => content({ g: [parsePrefix(`10.0.${n}.0/24`)] });
    const put = (n: number, at: Date) => writeSnapshot(path, of(n), { now: at });
    const ahead = new Date('2036-01-01');
    const spoil = (text: string) => writeFileSync(join(path, 'manifest.json'), text);
    await put(1, now);
    await put(2, now);
    spoil('{}');
    const { revision } = await put(3, ahead);
    t.equal(revision, ahead.getTime() + 1);
    t.same(await put(4, now), { revision: revision + 1, changed: true });
    t.same(await put(5, now), { revision: revision + 2, changed: true });
    spoil('{');
    t.same(await put(6, now), { revision: revision + 3, changed: true }, 'the clock went back');
    t.same(await put(7, now), { revision: revision + 4, changed: true });
    const manifest = readFileSync(join(path, 'manifest.json'), 'utf8');
    spoil(manifest.replace(/"revision":\d+/, '"revision":7'));
    t.same(await put(8, now), { revision: revision + 5, changed: true }, 'a spoiled number shows by nothing');
  },
);

t.test('a later time of expiry is written when half of the one before is over', async (t) => {
  const folder = t.testdir();
  const write = async (seconds: number, { until = seconds + 900, left = ['10.0.1.0/24'] } = {}) => {
    const at = (of: number) => new Date(now.getTime() + of * 1_000);
    const { groups, ...rest } = content({ pay: [parsePrefix('10.0.1.0/24'), parsePrefix('10.0.9.9/32')] });
    const expires = { at: at(until), prefixes: left.map(parsePrefix) };
    const all = { ...rest, groups: groups.map((group) => ({ ...group, expires })) };
    const { revision } = await writeSnapshot(folder, all, { now: at(seconds) });
    const { groups: written } = await readSnapshot(folder);
    const { parts, at: said } = written[0]!.expires!;
    t.strictSame(parts.flat().map(printPrefix), left);
    return [revision, (said.getTime() - now.getTime()) / 1_000];
  };
  t.strictSame(await write(0), [1, 900]);
  t.strictSame(await write(449), [1, 900]);
  t.strictSame(await write(450), [2, 1_350]);
  t.strictSame(await write(460, { until: 1_000 }), [3, 1_000], 'an earlier one at once');
  t.strictSame(await write(461, { until: 1_001, left: [] }), [4, 1_000], 'so does other content');
});

t.test('bodies of the manifest before stay, older ones go', async (t) => {
  const folder = t.testdir();
  const bodies = () => readdirSync(join(folder, 'bodies')).sort();
  const manifests: Manifest[] = [];
  for (const length of [8, 9, 10]) {
    await write(folder, content({ g: [parsePrefix(`10.0.0.0/${length}`)] }));
    manifests.push(read(folder).manifest);
    writeFileSync(join(folder, 'bodies', `${'0'.repeat(64)}.new`), 'left by a writer that was killed');
  }
  await write(folder, content({ g: [parsePrefix('10.0.0.0/11')] }));
  manifests.push(read(folder).manifest);
  t.same(bodies(), [...digestsOf(manifests[3]!).union(digestsOf(manifests[2]!))].sort());
});

t.test('a body of the right name and the wrong size is written again', async (t) => {
  const folder = t.testdir();
  const a = content({ g: [parsePrefix('10.0.0.0/8')] });
  await write(folder, a);
  const [digest] = read(folder).manifest.groups[0]!.bodies;
  writeFileSync(join(folder, 'bodies', digest!), '');
  await write(folder, { ...a, policy: { rules: [], defaultAction: { action: 'PERMIT', logging: false } } });
  t.doesNotThrow(() => read(folder));
});

t.test('what the writer saw in the folder is looked at again where nothing changed', async (t) => {
  const folder = t.testdir();
  const seen = new Set<string>();
  const both = (other: string) => content({ g: [parsePrefix('10.0.0.0/8')], other: [parsePrefix(other)] });
  const put = (what: SnapshotContent) => writeSnapshot(folder, what, { now, seen });
  await put(both('192.0.2.0/24'));
  const [kept] = read(folder).manifest.groups[0]!.bodies;
  const path = join(folder, 'bodies', kept!);
  rmSync(path);
  await put(both('198.51.100.0/24'));
  t.notOk(existsSync(path), 'a change writes what is other');
  t.same(await put(both('198.51.100.0/24')), { revision: 2, changed: false });
  t.doesNotThrow(() => read(folder), 'what was lost is back');
  const later = new Set<string>();
  await writeSnapshot(folder, both('198.51.100.0/24'), { now, seen: later });
  for (const one of [seen, later]) t.same([...one].sort(), [...digestsOf(read(folder).manifest)].sort());
  rmSync(folder, { recursive: true });
  t.same(await put(both('198.51.100.0/24')), { revision: 1, changed: true });
  t.doesNotThrow(() => read(folder), 'nor is anything taken to be there that no manifest names');
});

t.test('bodies are put together, and a failure waits for those that are under way', async (t) => {
  const store = await openSnapshotFolder(t.testdir());
  let running = 0;
  let most = 0;
  const putBody = async () => {
    most = Math.max(most, ++running);
    if (running === 3) {
      running--;
      throw new Error('disk is full');
    }
    await delay(5);
    running--;
  };
  const groups = Object.fromEntries(
    Array.from({ length: 50 }, (_, index) => [`g${index}`, [parsePrefix(`10.0.${index}.0/24`)]]),
  );
  await t.rejects(publish({ ...store, putBody }, content(groups), { now }), { message: 'disk is full' });
  t.equal(running, 0);
  t.ok(most > 1 && most <= 16, `${most} at once`);
  t.equal(await store.readManifest(), undefined);
});

t.test('one prefix among 100,000 rewrites one body of its group', async (t) => {
  const folder = t.testdir();
  const prefixes = randomPrefixes(100_000);
  await write(folder, content({ big: prefixes, small: [] }));
  const before = read(folder);
  t.same(before.groups[0]!.prefixes, prefixes.map(printPrefix));
  t.ok(before.manifest.groups[0]!.bodies.length > 20);
  const random = randomNumbers(seed + 1);
  const without = prefixes.toSpliced(random() % prefixes.length, 1);
  for (const next of [without, prefixes, without]) {
    const old = read(folder).manifest;
    await write(folder, content({ big: next, small: [] }));
    const { manifest } = read(folder);
    const fresh = [...digestsOf(manifest)].filter((digest) => !digestsOf(old).has(digest));
    const split = manifest.groups[0]!.bodies.length > old.groups[0]!.bodies.length ? 1 : 0;
    t.equal(fresh.length, 1 + split);
  }
});

/** A store that dies before its n-th change. */
function mortal(store: SnapshotStore, changesMax: number): SnapshotStore {
  let changes = 0;
  const step = () => {
    if (++changes > changesMax) throw new Error('killed');
  };
  return {
    ...store,
    putBody: async (digest, body) => {
      step();
      await store.putBody(digest, body);
    },
    prepareManifest: async (manifest) => {
      step();
      const place = await store.prepareManifest(manifest);
      return async () => {
        step();
        await place();
      };
    },
    keepBodies: async (digests) => {
      step();
      await store.keepBodies(digests);
    },
  };
}

t.test('killed anywhere, the folder holds the old or the new snapshot whole', async (t) => {
  const [old, next] = [randomPrefixes(10_000), randomPrefixes(12_000)];
  const base = t.testdir();
  const revisions: number[] = [];
  for (let changesMax = 0; ; changesMax++) {
    const folder = join(base, String(changesMax));
    mkdirSync(folder, { recursive: true });
    await write(folder, content({ g: old }));
    const before = read(folder);
    const store = mortal(await openSnapshotFolder(folder), changesMax);
    const killed = await publish(store, content({ g: next }), { now }).then(
      () => false,
      () => true,
    );
    const after = read(folder);
    revisions.push(after.manifest.revision);
    const expected = after.manifest.revision === 1 ? before.groups[0]!.prefixes : next.map(printPrefix);
    t.same(after.groups[0]!.prefixes, expected, `killed after ${changesMax} changes`);
    t.same(await write(folder, content({ g: next })), {
      revision: 2,
      changed: after.manifest.revision === 1,
    });
    if (!killed) break;
  }
  t.ok(revisions.length > 5, 'there was something to interrupt');
  t.equal(
    revisions.indexOf(2),
    revisions.length - 2,
    'the manifest comes after all bodies, before the removal',
  );
});

t.test('an inventory too large for one body loses detail, not functions', async (t) => {
  const folder = t.testdir();
  const arn = (index: number) => `arn:aws:lambda:us-east-1:111122223333:function:a-rather-long-name-${index}`;
  const sharedWith = Array.from({ length: 16 }, (_, index) => arn(index));
  const functions = Array.from({ length: 15_000 }, (_, index) => ({
    ...{
      arn: arn(index),
      name: `a-rather-long-name-${index}`,
      accountId: '111122223333',
      region: 'us-east-1',
    },
    ...{ identity: 'shared' as const, sharedWith, prefixes: [parsePrefix('10.0.0.0/24')] },
    ...{ sharedBy: ['subnet-1'], addresses: [] },
  }));
  await write(folder, { ...content({}), inventory: { functions, scopes: [] } });
  const { inventory } = read(folder);
  t.equal(inventory.functions.length, 15_000);
  t.same(inventory.functions[0]!.sharedWith, []);
});

t.test('limits are refused by name, and nothing is written', async (t) => {
  const folder = t.testdir();
  const many = Array.from(
    { length: SNAPSHOT_LIMITS.groupsMax + 1 },
    (_, index) => [`g${index}`, []] as const,
  );
  await t.rejects(write(folder, content(Object.fromEntries(many))), {
    message: 'Cannot write snapshot: it holds 1001 groups, the limit is 1000',
  });
  const prefixes = Array.from({ length: 600_000 }, (_, index) =>
    prefixOf({ family: 4, value: BigInt(index) }, 32),
  );
  await t.rejects(write(folder, content({ a: prefixes, b: prefixes })), {
    message: 'Cannot write snapshot: it holds 1200000 prefixes, the limit is 1000000',
  });
  await t.rejects(write(folder, content({ ['x'.repeat(257)]: [] })), {
    message: /^Cannot write snapshot: the manifest is not valid at groups\.0\.name: /,
  });
  t.same(readdirSync(folder).includes('manifest.json'), false);
});
