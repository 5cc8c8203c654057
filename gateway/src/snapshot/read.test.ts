import { execFileSync } from 'node:child_process';
import { rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { parsePrefix, printPrefix } from '../net/prefix.js';
import { type SnapshotDraft, writeDraft } from './fixture.js';
import { BODIES_FOLDER, bodyDigest, MANIFEST_FILE, type Manifest, SNAPSHOT_LIMITS } from './format.js';
import { groupPrefixes, readSnapshot, SnapshotError } from './read.js';

t.test('a snapshot as it was written', async (t) => {
  const folder = t.testdir();
  const fn = {
    arn: 'arn:aws:lambda:us-east-1:111122223333:function:gatus_lambda',
    name: 'gatus_lambda',
    accountId: '111122223333',
    region: 'us-east-1',
    identity: 'shared',
    sharedWith: ['arn:aws:lambda:us-east-1:111122223333:function:other'],
    prefixes: ['10.0.1.0/24'],
  };
  const scopes = [{ accountId: '111122223333', region: 'us-east-1', error: 'Throttled' }];
  const manifest = writeDraft(folder, {
    revision: 5,
    rules: [
      { name: 'second', priority: 20 },
      { name: 'first', priority: 3, expires: '2027-01-31T00:00:00Z' },
      { name: 'third', priority: 20, action: 'DENY', enforcement: 'MONITOR', dst: ['unknown'] },
      { name: 'fourth', priority: 30, src: ['unknown'] },
    ],
    groups: [
      { name: 'functions', parts: [['10.0.1.0/24'], ['2001:db8:1::/64']] },
      { name: 'payments', parts: [['10.20.0.0/16']] },
      { name: 'unknown', resolved: false },
    ],
    inventory: { functions: [fn], scopes },
  });
  const snapshot = await readSnapshot(folder);
  t.match(snapshot, { revision: 5, createdAt: '2026-11-01T00:00:00.000Z' });
  t.strictSame(
    snapshot.policy.rules.map(({ name }) => name),
    ['first', 'second', 'third', 'fourth'],
    'in order of priority, and as given where that is equal',
  );
  t.strictSame(snapshot.groups, [
    {
      name: 'functions',
      resolved: true,
      parts: ['10.0.1.0/24', '2001:db8:1::/64'].map((one) => [parsePrefix(one)]),
    },
    { name: 'payments', resolved: true, parts: [[parsePrefix('10.20.0.0/16')]] },
    { name: 'unknown', resolved: false, parts: [] },
  ]);
  t.strictSame(groupPrefixes(snapshot).get('functions')?.map(printPrefix), [
    '10.0.1.0/24',
    '2001:db8:1::/64',
  ]);
  t.strictSame(snapshot.inventory, { functions: [fn], scopes });
  const digests = [
    manifest.policy.digest,
    manifest.inventory.digest,
    ...manifest.inventory.functions,
    ...manifest.groups.flatMap((g) => g.bodies),
  ];
  t.strictSame([...snapshot.bodies.keys()].sort(), digests.sort(), 'what it consists of');
  t.strictSame(JSON.parse(Buffer.from(snapshot.manifestBytes).toString()), manifest);
});

const group = (more: NonNullable<SnapshotDraft['groups']>[number]): SnapshotDraft => ({
  groups: [
    { name: 'functions', parts: [['10.0.1.0/24']] },
    { name: 'payments', parts: [['10.20.0.0/16']], ...more },
  ],
});
const manyRules = Array.from({ length: SNAPSHOT_LIMITS.rulesMax + 1 }, (_, index) => ({ name: `${index}` }));
const manyGroups = Array.from({ length: SNAPSHOT_LIMITS.groupsMax + 1 }, (_, index) => ({
  name: `${index}`,
}));
const manyRanges = Array.from({ length: SNAPSHOT_LIMITS.portRangesMax + 1 }, () => ({ lo: 1, hi: 1 }));
const rule = (more: NonNullable<SnapshotDraft['rules']>[number]): SnapshotDraft => ({ rules: [more] });

/** What is wrong with a snapshot that verifies otherwise, and what is said of it. */
const REFUSED: Readonly<Record<string, readonly [SnapshotDraft, RegExp]>> = {
  'another format': [
    { manifest: { format: 'sluice.snapshot/2' } },
    /the manifest is not as expected at "format"/,
  ],
  'revision 0': [{ revision: 0 }, /at "revision"/],
  'a revision that is no number': [{ revision: '2' }, /at "revision"/],
  'a key that nobody knows': [{ manifest: { webGroups: [] } }, /the manifest .* "webGroups"/],
  'no time': [{ manifest: { createdAt: 'yesterday' } }, /at "createdAt"/],
  'a digest that leads elsewhere': [
    { manifest: { policy: { digest: '../../../etc/passwd' } } },
    /at "policy.digest"/,
  ],
  'too many groups': [{ groups: manyGroups }, /at "groups": .*1000/],
  'too many rules': [{ rules: manyRules }, /the policy .* at "rules": .*10000/],
  'too many port ranges': [rule({ portRanges: manyRanges }), /at "rules.0.portRanges": .*64/],
  'too many prefixes': [
    group({ prefixCount: SNAPSHOT_LIMITS.prefixesMax }),
    /its groups hold 1000001 prefixes, the limit is 1000000/,
  ],
  'fewer prefixes than said': [
    group({ prefixCount: 2 }),
    /group "payments" has 1 prefixes, its manifest says 2/,
  ],
  'more prefixes than said': [
    group({ prefixCount: 0 }),
    /group "payments" has 1 prefixes, its manifest says 0/,
  ],
  'another number of what is left': [
    group({ expires: { at: '2026-11-02T00:00:00Z', prefixCount: 1, bodies: [] } }),
    /group "payments" as it expires has 0 prefixes, its manifest says 1/,
  ],
  'a body twice': [group({ parts: [['10.20.0.0/16'], ['10.20.0.0/16']] }), /two bodies of group "payments"/],
  'host bits': [group({ parts: [['10.20.0.1/16']] }), /group "payments": .*host bits/],
  'no address': [group({ parts: [['localhost']] }), /group "payments": .*"localhost"/],
  'a body of another kind': [group({ parts: [{ prefixes: 1 }] }), /of group "payments" is not as expected/],
  'two rules of a name': [{ rules: [{}, { priority: 11 }] }, /two rules are called "pay"/],
  'two groups of a name': [group({ name: 'functions' }), /two groups are called "functions"/],
  'a rule called default': [rule({ name: 'default' }), /a rule is called "default"/],
  'a group that is not there': [
    rule({ dst: ['vault'] }),
    /rule "pay" names group "vault", which is not there/,
  ],
  'no source': [rule({ src: [] }), /at "rules.0.src"/],
  'ports with ICMP': [rule({ protocol: 'ICMP' }), /rule "pay" has ports with ICMP/],
  'ports backwards': [rule({ portRanges: [{ lo: 2, hi: 1 }] }), /at "rules.0.portRanges.0": lo is above hi/],
  'port 0': [rule({ portRanges: [{ lo: 0, hi: 1 }] }), /at "rules.0.portRanges.0.lo"/],
  'port 65536': [rule({ portRanges: [{ lo: 1, hi: 65_536 }] }), /at "rules.0.portRanges.0.hi"/],
  'another action': [rule({ action: 'ALLOW' }), /at "rules.0.action"/],
  'another enforcement': [rule({ enforcement: 'NO' }), /at "rules.0.enforcement"/],
  'another protocol': [rule({ protocol: 'SCTP' }), /at "rules.0.protocol"/],
  'an expiry that is no time': [rule({ expires: 'soon' }), /at "rules.0.expires"/],
  'a priority below 0': [rule({ priority: -1 }), /at "rules.0.priority"/],
  'a name that is too long': [rule({ name: 'x'.repeat(257) }), /at "rules.0.name"/],
  'what would narrow a rule': [{ rules: [{ tls: true } as object] }, /the policy .* "tls"/],
  'no default action': [{ policy: { defaultAction: undefined } }, /at "defaultAction"/],
  'a DENY by what is not known': [
    { ...rule({ action: 'DENY' }), ...group({ resolved: false }) },
    /rule "pay" denies by group "payments", which could not be resolved/,
  ],
  'a REJECT by what is not known': [
    { ...rule({ action: 'REJECT', src: ['payments'] }), ...group({ resolved: false }) },
    /rule "pay" denies by group "payments"/,
  ],
  'an inventory of another kind': [
    { inventory: { functions: {} } },
    /body [0-9a-f]{64} of functions is not as expected at "functions"/,
  ],
};

async function refusal(t: Test, folder: string, message: RegExp, label: string): Promise<void> {
  await t.rejects(readSnapshot(folder), { constructor: SnapshotError, message }, label);
}

t.test('what is refused', async (t) => {
  for (const [label, [draft, message]] of Object.entries(REFUSED)) {
    const folder = t.testdir();
    writeDraft(folder, draft);
    await refusal(t, folder, message, label);
  }
  const functionWith = (prefixes: string[]) => ({
    inventory: {
      functions: [
        { arn: 'arn', name: 'f', accountId: '1', region: 'r', identity: 'unknown', sharedWith: [], prefixes },
      ],
    },
  });
  const folder = t.testdir();
  writeDraft(folder, functionWith(['10.0.0.1/8']));
  await refusal(t, folder, /function "arn": .*host bits/, 'host bits of a function');
});

/** Changes the files of a snapshot that verifies. */
type Damage = (files: { manifest: string; body: string; policy: string }, manifest: Manifest) => void;
const DAMAGED: Readonly<Record<string, readonly [Damage, RegExp]>> = {
  'a manifest that is no JSON': [({ manifest }) => writeFileSync(manifest, '{'), /the manifest is not JSON/],
  'a manifest that is not UTF-8': [
    ({ manifest }) => writeFileSync(manifest, Uint8Array.of(0x22, 0xff, 0x22)),
    /the manifest is not JSON/,
  ],
  'an empty manifest': [({ manifest }) => truncateSync(manifest), /the manifest is not JSON/],
  'a manifest that is too large': [
    ({ manifest }) => truncateSync(manifest, SNAPSHOT_LIMITS.manifestBytesMax + 1),
    /manifest.json has 16777217 bytes, the limit is 16777216/,
  ],
  'a body that is too large': [
    ({ body }) => truncateSync(body, SNAPSHOT_LIMITS.bodyBytesMax + 1),
    /has 16777217 bytes, the limit is 16777216/,
  ],
  'a body whose bytes are others': [
    ({ body }) => writeFileSync(body, '{"prefixes":["0.0.0.0/0"]}'),
    /body [0-9a-f]{64} does not have this digest/,
  ],
  'a body that is not there': [
    ({ body }) => rmSync(body),
    /a body that the manifest names can't be read: ENOENT/,
  ],
  'a policy that is not there': [({ policy }) => rmSync(policy), /can't be read: ENOENT/],
  'a device for a manifest': [
    ({ manifest }) => {
      rmSync(manifest);
      symlinkSync('/dev/zero', manifest);
    },
    /manifest.json is not a regular file/,
  ],
  'a pipe for a body': [
    ({ body }) => {
      rmSync(body);
      execFileSync('mkfifo', [body]);
    },
    /is not a regular file/,
  ],
};

t.test('what is damaged', async (t) => {
  for (const [label, [damage, message]] of Object.entries(DAMAGED)) {
    const folder = t.testdir();
    const manifest = writeDraft(folder);
    const bodyPath = (digest: string) => join(folder, BODIES_FOLDER, digest);
    const body = bodyPath(manifest.groups[1]!.bodies[0]!);
    damage(
      { manifest: join(folder, MANIFEST_FILE), body, policy: bodyPath(manifest.policy.digest) },
      manifest,
    );
    await refusal(t, folder, message, label);
  }
  await t.rejects(readSnapshot(t.testdir()), { code: 'ENOENT' }, 'none is no bad one');
});

t.test('bodies are bounded together, however few prefixes they hold', async (t) => {
  const { bodyBytesMax, bodiesBytesMax } = SNAPSHOT_LIMITS;
  const folder = t.testdir();
  const { groups } = writeDraft(folder);
  const bodies = Array.from({ length: bodiesBytesMax / bodyBytesMax }, (_, index) => {
    const text = `{"prefixes":[]}${' '.repeat(bodyBytesMax - 15 - index)}`;
    const digest = bodyDigest(text);
    writeFileSync(join(folder, BODIES_FOLDER, digest), text);
    return digest;
  });
  writeDraft(folder, {
    manifest: { groups: [...groups, { name: 'large', resolved: true, prefixCount: 0, bodies }] },
  });
  await refusal(
    t,
    folder,
    /its bodies have more than 134217728 bytes, the limit of all together/,
    'too many bytes',
  );
});
