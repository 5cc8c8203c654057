import '../support/own-namespace.js';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import fc from 'fast-check';
import { ConntrackTable } from 'sluice-gateway/conntrack/table.js';
import { Generations } from 'sluice-gateway/generations.js';
import { printAddress } from 'sluice-gateway/net/address.js';
import { NETLINK_NETFILTER, NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { Applier } from 'sluice-gateway/nft/apply.js';
import { NftKernel } from 'sluice-gateway/nft/kernel.js';
import { generationChain, type Program } from 'sluice-gateway/nft/program.js';
import type { GatewayInterfaces } from 'sluice-gateway/policy/fixed-chains.js';
import t from 'tap';
import { FUNCTION, policyOf, SERVERS, SIDES, type Side } from '../support/apply-loop.js';
import { TCP, type TestPacket } from '../support/frames.js';
import { compileAll, labInterfaces } from '../support/load.js';
import { here } from '../support/namespace.js';
import { FILE_MS_MAX, patience } from '../support/patience.js';
import { seed } from '../support/seed.js';
import { back, flow, Stand, there } from '../support/stand.js';

/** Invariants 3 and 4: a killed gateway leaves a whole program behind, and the next one takes it over. */

const KILLS = 20;
/** Longer than one application takes: the kill hits any part of one. */
const KILL_MS_MAX = 400 * patience;
const PER_SECOND = 1_000;

t.setTimeout(FILE_MS_MAX);

const stand = await Stand.create();
t.teardown(() => stand.close());

const FAMILIES = [4, 6] as const;
const APPLY_LOOP = new URL('../support/apply-loop.js', import.meta.url).href;

/** What a gateway that has just started has: netlink sockets of its own, and no memory. */
class NextGateway {
  readonly #connection = new NetlinkConnection(NETLINK_NETFILTER);
  readonly #table = new ConntrackTable(this.#connection);
  readonly kernel = new NftKernel(this.#connection);
  readonly #applier = new Applier(this.kernel);

  constructor() {
    t.teardown(() => this.close());
  }

  /** Takes the table over, applies a program under the next generation and collects. */
  async takeOver(side: Side, interfaces: GatewayInterfaces = labInterfaces): Promise<Program> {
    const found = await this.#applier.takeOver();
    const generations = new Generations(found, () => this.#table.generationsInUse());
    const epoch = randomBytes(8).toString('hex');
    const program = compileAll({ ...policyOf(side), interfaces, epoch }, await generations.next());
    await this.#applier.apply(program);
    if (await this.#applier.collect()) throw new Error('Cannot go on: not everything was collected');
    return program;
  }

  async content() {
    const { chains, maps, counters } = await this.kernel.list();
    return [chains, maps, counters].map((names) => [...names].sort());
  }

  close(): void {
    this.#connection.close();
  }
}

function contentOf({ fixed, generation, chains, maps, liveSets, counters }: Program) {
  const chainNames = [...fixed, generationChain(generation), ...chains].map(({ name }) => name);
  return [chainNames, [...maps, ...liveSets].map(({ name }) => name), [...counters]].map((names) =>
    names.sort(),
  );
}

/** Starts a process that applies or edits programs over and over, and kills it in the midst. */
async function loadAndKill(
  loop: 'applyForever' | 'editForever',
  generation: number,
  ms: number,
): Promise<void> {
  const script = `import { ${loop} } from '${APPLY_LOOP}'; await ${loop}(${generation});`;
  const child = here.spawn(process.execPath, ['--input-type=module', '-e', script]);
  const errors: Buffer[] = [];
  child.stderr!.on('data', (chunk: Buffer) => errors.push(chunk));
  const ended = once(child, 'exit');
  await Promise.race([once(child.stdout!, 'data'), ended]);
  await delay(ms);
  child.kill('SIGKILL');
  const [, signal] = await ended;
  if (signal !== 'SIGKILL')
    throw new Error(`Cannot go on: the loading process failed\n${Buffer.concat(errors)}`);
}

const opening = (server: keyof typeof SERVERS) =>
  FAMILIES.flatMap((family) => [
    there(flow(6, FUNCTION[family], SERVERS[server][family], 443), TCP.syn),
    there(flow(17, FUNCTION[family], SERVERS[server][family], 53)),
  ]);

/** The side whose policy new connections meet; undefined where they meet parts of both, or of none. */
async function sideInForce(): Promise<Side | undefined> {
  const packets = {
    both: opening('both'),
    left: opening('left'),
    right: opening('right'),
    neither: opening('neither'),
  };
  const passed = await stand.passed('a', 'internet', ...Object.values(packets).flat());
  const isExactly = (...groups: (readonly TestPacket[])[]) => {
    const expected = groups.flat();
    return passed.length === expected.length && expected.every((packet) => passed.includes(packet));
  };
  return SIDES.find((side) => isExactly(packets.both, packets[side]));
}

t.test('a killed gateway leaves one program, whole, and the next one takes over', async (t) => {
  const first = new NextGateway();
  let generation = (await first.takeOver('left')).generation;
  first.close();
  const live = FAMILIES.flatMap((family) => [
    flow(6, FUNCTION[family], SERVERS.both[family], 443),
    flow(17, FUNCTION[family], SERVERS.both[family], 53),
  ]);
  for (const flow of live) {
    if (flow.protocol === 6) await stand.handshake('a', 'internet', flow);
    await stand.carries('a', 'internet', there(flow));
  }
  const permitted = { there: live.map((flow) => there(flow)), back: live.map((flow) => back(flow)) };
  const denied = opening('neither');
  const streams = [
    await stand.stations.a.stream([...permitted.there, ...denied], PER_SECOND),
    await stand.stations.internet.stream(permitted.back, PER_SECOND),
  ];
  let unfinished = 0;
  for (const [round, ms] of fc.sample(fc.nat(KILL_MS_MAX), { seed, numRuns: KILLS }).entries()) {
    await loadAndKill(round % 2 === 0 ? 'applyForever' : 'editForever', generation + 1, ms);
    const side = await sideInForce();
    if (side === undefined) t.fail(`round ${round}: what is in force is no side's program`);
    const next = new NextGateway();
    const left = await next.content();
    const wanted = SIDES[(round >> 1) % 2]!;
    const program = await next.takeOver(wanted);
    const content = contentOf(program);
    t.same(await next.content(), content, `round ${round}: nothing else is left`);
    t.match(
      here.run('nft', ['list', 'set', 'inet', 'sluice', `judged_${program.generation}`]),
      /elements = /,
    );
    if (left.flat().length !== content.flat().length) unfinished++;
    t.equal(await sideInForce(), wanted, 'the next program is in force');
    generation = program.generation;
    next.close();
  }
  t.comment(`${unfinished} of ${KILLS} kills left an unfinished load or collection`);
  t.ok(unfinished > 0, 'some kills hit a load');
  const sent = new Map([...(await streams[0]!.halt()), ...(await streams[1]!.halt())]);
  await stand.settle();
  for (const { tag } of permitted.there)
    t.equal(stand.stations.internet.count(tag), sent.get(tag), 'none lost');
  for (const { tag } of permitted.back) t.equal(stand.stations.a.count(tag), sent.get(tag), 'none lost back');
  for (const { tag } of denied) t.equal(stand.stations.internet.count(tag), 0, 'none leaked');
});

t.test('fixed chains of another configuration are gone after the collection', async (t) => {
  const translating = { ...labInterfaces, snat: { interfaces: ['wan0'], to: 'masquerade' } } as const;
  const renamed = { ...labInterfaces, lambda: ['lam0', 'fn1'] };
  const takeOver = async (interfaces: GatewayInterfaces) => {
    const gateway = new NextGateway();
    const program = await gateway.takeOver('left', interfaces);
    t.same(await gateway.content(), contentOf(program));
    gateway.close();
    return here.run('nft', ['-t', 'list', 'table', 'inet', 'sluice']);
  };
  const sources = async () => {
    const packets = opening('both');
    await stand.carries('a', 'internet', ...packets);
    const seen = stand.stations.internet.seen.filter(({ tag }) =>
      packets.some((packet) => packet.tag === tag),
    );
    return [...new Set(seen.map(({ src }) => printAddress(src)))];
  };
  const before = await takeOver(translating);
  t.match(before, /masquerade/);
  t.match(before, /lam1/);
  t.same(await sources(), ['198.18.0.1', 'fd00:f::1']);
  const after = await takeOver(renamed);
  t.notMatch(after, /masquerade|postrouting/);
  t.notMatch(after, /lam1/);
  t.match(after, /fn1/);
  t.same(await sources(), [FUNCTION[4], FUNCTION[6]]);
  t.match(await takeOver(translating), /masquerade/);
  t.same(await sources(), ['198.18.0.1', 'fd00:f::1'], 'and back again');
});
