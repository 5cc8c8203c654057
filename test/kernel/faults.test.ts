import '../support/own-namespace.js';
import { setTimeout as delay } from 'node:timers/promises';
import { ConntrackTable } from 'sluice-gateway/conntrack/table.js';
import { createLog } from 'sluice-gateway/log.js';
import { sortPrefixes } from 'sluice-gateway/net/prefix.js';
import { NETLINK_NETFILTER, NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { NetlinkError, UnknownOutcomeError } from 'sluice-gateway/netlink/error.js';
import { Applier } from 'sluice-gateway/nft/apply.js';
import { NftKernel } from 'sluice-gateway/nft/kernel.js';
import { generationChain, type Program } from 'sluice-gateway/nft/program.js';
import { Reconciler } from 'sluice-gateway/reconcile.js';
import type { Snapshot } from 'sluice-gateway/snapshot/read.js';
import t from 'tap';
import { FUNCTION, SERVERS, type Side } from '../support/apply-loop.js';
import { type Fault, FaultyConnection, STAGES, type Stage } from '../support/faulty.js';
import { TCP } from '../support/frames.js';
import { labInterfaces, prefixes, rule } from '../support/load.js';
import { Meter } from '../support/meter.js';
import { here } from '../support/namespace.js';
import { patience } from '../support/patience.js';
import { flow, Stand, there } from '../support/stand.js';
import { until } from '../support/wait.js';

/**
 * Whatever goes wrong with a request once, packets meet the old or the new program, whole: through the real
 * reconciler, which then gets to the new one by itself. Meanwhile a flood that every policy denies gets nothing
 * through, and a connection that every policy permits goes on.
 */

t.setTimeout(240_000 * patience);
const PER_SECOND = 1_000;
const STRIKE_MS_MAX = 10_000;

const stand = await Stand.create();
t.teardown(() => stand.close());

const FAMILIES = [4, 6] as const;
/** What differs between the sides: the rules, so that a program is loaded and switched to, or members alone. */
type Shape = 'rules' | 'members';

let revision = 0;

function snapshotOf(side: Side, shape: Shape): Snapshot {
  // With neighbours above: the last interval of the address space is not changed in place.
  const members = {
    both: [...Object.values(SERVERS.both), '223.255.0.0/16', 'fd00:ffff::/32'],
    own: Object.values(SERVERS[side]),
  };
  const name = shape === 'rules' ? `to ${side}` : 'to side';
  const groups = { functions: ['10.0.128.0/17', 'fd00:a::/64'], both: members.both, [name]: members.own };
  const host = (text: string) => (text.includes('/') ? text : `${text}/${text.includes(':') ? 128 : 32}`);
  return {
    revision: ++revision,
    createdAt: '2026-11-01T00:00:00Z',
    policyDigest: '',
    policy: {
      rules: [rule('both', 'PERMIT', 'functions', 'both'), rule(name, 'PERMIT', 'functions', name)],
      defaultAction: { action: 'DENY', logging: false },
    },
    groups: Object.entries(groups).map(([name, texts]) => ({
      name,
      resolved: true,
      parts: [sortPrefixes(prefixes(...texts.map(host)))],
    })),
    inventory: { functions: [], scopes: [] },
    manifestBytes: new Uint8Array(),
    bodies: new Map(),
    parts: new Map(),
    functionParts: new Map(),
  };
}

const opening = (server: keyof typeof SERVERS) =>
  FAMILIES.flatMap((family) => [
    there(flow(6, FUNCTION[family], SERVERS[server][family], 443), TCP.syn),
    there(flow(17, FUNCTION[family], SERVERS[server][family], 53)),
  ]);

/** The side whose policy new connections meet; text where they meet parts of both, or of none. */
async function sideInForce(): Promise<string> {
  const packets = {
    both: opening('both'),
    left: opening('left'),
    right: opening('right'),
    neither: opening('neither'),
  };
  const passed = await stand.passed('a', 'internet', ...Object.values(packets).flat());
  const seen = Object.entries(packets).flatMap(([name, of]) => {
    const count = of.filter((packet) => passed.includes(packet)).length;
    return count === 0 ? [] : [count === of.length ? name : `${count} of ${of.length} to ${name}`];
  });
  const side = seen.length === 2 && seen[0] === 'both' ? seen[1] : undefined;
  return side ?? `only ${seen}`;
}

/** The reconciler as the gateway has it, but that it collects at once. */
class Gateway {
  readonly connection = new FaultyConnection(NETLINK_NETFILTER);
  readonly #asking = new NetlinkConnection(NETLINK_NETFILTER);
  readonly applier = new Applier(new NftKernel(this.connection));
  readonly #table = new ConntrackTable(this.#asking);
  readonly kernel = new NftKernel(this.#asking);
  readonly failed: string[] = [];
  /** The one that was applied last. */
  program: Program | undefined;
  /** Said by a collection that did not succeed. */
  warnings = 0;
  readonly reconciler = new Reconciler({
    applier: {
      takeOver: () => this.applier.takeOver(),
      apply: (program) => {
        this.program = program;
        return this.applier.apply(program);
      },
      edit: (edits, revoked, added) => this.applier.edit(edits, revoked, added),
      collect: () => this.applier.collect(),
    },
    interfaces: labInterfaces,
    ownAddresses: () => [],
    generationsInUse: () => this.#table.generationsInUse(),
    log: createLog({ write: () => void this.warnings++ }),
    now: () => new Date(),
    onSwitch: () => {},
    onCompiled: () => {},
    onApplied: () => {},
    onFailed: (stage, error) => this.failed.push(`${stage}: ${error.message}`),
    remember: async () => {},
  });

  /** Wants a snapshot, and waits until it is in force and the one before is gone. */
  async reach(side: Side, shape: Shape): Promise<void> {
    this.reconciler.want(snapshotOf(side, shape));
    await this.settled();
    await this.collected();
  }

  async settled(): Promise<void> {
    await until('a program in force', () => this.reconciler.isCurrent);
  }

  async collected(): Promise<void> {
    await until('a collection', async () => (await this.leftovers()).length === 0);
  }

  /** What is in the table beyond the program in force, by name. */
  async leftovers(): Promise<string[]> {
    const program = this.program!;
    const { chains, maps, counters } = await this.kernel.list();
    const { fixed, liveSets } = program;
    const own = [
      ...fixed,
      ...program.chains,
      generationChain(program.generation),
      ...program.maps,
      ...liveSets,
    ];
    const names = new Set([...own.map(({ name }) => name), ...program.counters]);
    return [...chains, ...maps, ...counters].filter((name) => !names.has(name));
  }

  async stop(): Promise<void> {
    await this.reconciler.stop();
    this.connection.close();
    this.#asking.close();
  }
}

const gateway = new Gateway();
t.teardown(() => gateway.stop());
await gateway.reconciler.start(snapshotOf('left', 'rules'));

const live = FAMILIES.flatMap((family) => [
  flow(6, FUNCTION[family], SERVERS.both[family], 443),
  flow(17, FUNCTION[family], SERVERS.both[family], 53),
]);
for (const flow of live) {
  if (flow.protocol === 6) await stand.handshake('a', 'internet', flow);
  await stand.carries('a', 'internet', there(flow));
}
const denied = opening('neither');
const ports = (flows: readonly { readonly srcPort: number }[]) =>
  `meta l4proto { tcp, udp } th sport { ${flows.map(({ srcPort }) => srcPort).join(', ')} }`;
const meter = new Meter({
  live: ports(live),
  denied: ports(denied),
});
const stream = await stand.stations.a.stream([...live.map((flow) => there(flow)), ...denied], PER_SECOND);

const ERRORS: readonly (readonly [string, () => Error])[] = [
  ...(
    [
      ['ENOBUFS', 105],
      ['EBUSY', 16],
      ['EINTR', 4],
      ['ENOSPC', 28],
      ['EEXIST', 17],
    ] as const
  ).map(([code, errno]) => [code, () => new NetlinkError('do what was asked', errno)] as const),
  ['a lost acknowledgement', () => new UnknownOutcomeError('Cannot tell outcome of a test: it was lost')],
];

const SHAPE: Readonly<Record<Stage, Shape>> = {
  load: 'rules',
  switch: 'rules',
  collect: 'rules',
  edit: 'members',
};

/** Goes from one side to the other with a fault on the way. */
async function meetFault(
  t: Pick<typeof import('tap').t, 'ok' | 'same' | 'equal'>,
  fault: Fault,
  what: string,
): Promise<void> {
  const shape = SHAPE[fault.stage];
  await gateway.reach('left', shape);
  gateway.failed.length = 0;
  const struck = gateway.connection.strike(fault);
  gateway.reconciler.want(snapshotOf('right', shape));
  await Promise.race([
    struck,
    delay(STRIKE_MS_MAX).then(() => Promise.reject(new Error(`no ${fault.stage} came`))),
  ]);
  const side = await sideInForce();
  const isSwitched = fault.stage === 'collect' || (fault.isDone && fault.stage !== 'load');
  t.equal(side, isSwitched ? 'right' : 'left', `${what}: whole meanwhile`);
  gateway.connection.goOn();
  await gateway.settled();
  t.equal(await sideInForce(), 'right', 'the new program by itself');
  if (fault.stage === 'collect') {
    await gateway.collected();
  } else {
    t.equal(gateway.failed.length, 1, `told once: ${gateway.failed}`);
    t.same(await gateway.leftovers(), [], 'nothing else is left');
  }
}

for (const stage of STAGES) {
  t.test(`a request fails once: ${stage}`, async (t) => {
    for (const [name, error] of ERRORS) {
      for (const isDone of [false, true]) {
        await meetFault(
          t,
          { stage, isDone, error: error() },
          `${name} ${isDone ? 'after' : 'before'} the kernel took it`,
        );
      }
    }
  });
}

t.test('answers that really do not fit into the buffer', async (t) => {
  for (const stage of STAGES)
    await meetFault(t, { stage, isDone: true, error: undefined }, `ENOBUFS at ${stage}`);
});

t.test('a name that is really taken: EEXIST', async (t) => {
  await gateway.reach('left', 'rules');
  gateway.failed.length = 0;
  const next = gateway.program!.generation + 1;
  here.run('nft', [`add set inet sluice judged_${next} { type ipv4_addr; }`]);
  gateway.reconciler.want(snapshotOf('right', 'rules'));
  await gateway.settled();
  t.match(gateway.failed, [/^switch: .*EEXIST/]);
  t.equal(await sideInForce(), 'right');
  t.same(await gateway.leftovers(), [], 'what was in the way is gone too');
});

t.test('an element that somebody changed under an edit', async (t) => {
  await gateway.reach('left', 'members');
  gateway.failed.length = 0;
  const map = gateway.program!.maps.find(
    ({ name, key, elements }) =>
      name.startsWith('destination4_classes') && key === 'ipv4_addr' && elements.length > 1,
  )!;
  const [element] = here
    .run('nft', ['list', 'map', 'inet', 'sluice', map.name])
    .match(/203\.0\.113\.101 : 0x[0-9a-f]+/)!;
  here.run('nft', [
    `delete element inet sluice ${map.name} { ${element} }; ` +
      `add element inet sluice ${map.name} { 203.0.113.101 : 0x0fffffff }`,
  ]);
  gateway.reconciler.want(snapshotOf('right', 'members'));
  await gateway.settled();
  t.equal(await sideInForce(), 'right', `${gateway.failed}`);
});

t.test('old content that somebody really refers to: EBUSY', async (t) => {
  await gateway.reach('left', 'rules');
  const { maps } = await gateway.kernel.list();
  const referred = [...maps].find((name) => /^destination4_[0-9a-f]/.test(name))!;
  here.run('nft', [
    `add chain inet sluice hand; add rule inet sluice hand ct original ip daddr vmap @${referred}`,
  ]);
  gateway.reconciler.want(snapshotOf('right', 'rules'));
  await gateway.settled();
  t.equal(await sideInForce(), 'right');
  await until('a collection that fails', async () => (await gateway.leftovers()).includes(referred));
  here.run('nft', ['delete chain inet sluice hand']);
  await gateway.collected();
  t.equal(await sideInForce(), 'right');
});

t.test('in the end nothing is left to be collected', async (t) => {
  t.equal(await gateway.applier.collect(), false);
});

t.test('no packet of the flood passed, and the connection went on', async (t) => {
  await stream.halt();
  await stand.settle();
  const { live, denied } = meter.read();
  t.ok(live.in > 0 && live.in === live.out, `permitted: ${live.out} of ${live.in}`);
  t.ok(denied.in > 0, `${denied.in} denied packets came`);
  t.equal(denied.out, 0, 'none passed');
});
