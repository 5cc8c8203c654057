import '../support/own-namespace.js';
import { NETLINK_NETFILTER, NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { NetlinkError } from 'sluice-gateway/netlink/error.js';
import { Applier, ApplyError } from 'sluice-gateway/nft/apply.js';
import { NftKernel } from 'sluice-gateway/nft/kernel.js';
import type { Chain, Program } from 'sluice-gateway/nft/program.js';
import type { Rule } from 'sluice-gateway/nft/statement.js';
import { Compiler, judged, programOf } from 'sluice-gateway/policy/compile.js';
import t, { type Test } from 'tap';
import { inForce, labInterfaces, prefixes, rule } from '../support/load.js';
import { here } from '../support/namespace.js';

const nft = (...args: string[]) => here.run('nft', args);
const ruleset = () => nft('list', 'ruleset');

function open(t: Test): { connection: NetlinkConnection; kernel: NftKernel } {
  nft('flush', 'ruleset');
  const connection = new NetlinkConnection(NETLINK_NETFILTER);
  t.teardown(() => connection.close());
  return { connection, kernel: new NftKernel(connection) };
}

const EBUSY = 16;

/** A kernel that refuses the second transaction from `failSecond` on. */
function openFailing(t: Test): { kernel: NftKernel; failSecond: () => void } {
  const { kernel } = open(t);
  const commit = kernel.commit.bind(kernel);
  let left = Number.POSITIVE_INFINITY;
  kernel.commit = async (batch) => {
    if (left-- === 0) throw new NetlinkError('delete chain', EBUSY);
    await commit(batch);
  };
  return {
    kernel,
    failSecond: () => {
      left = 1;
    },
  };
}

/** Every chain has all of its rules, as `nft` lists them. */
function holdsWhole(t: Test, chains: readonly Chain[]): void {
  for (const { name, rules } of chains) {
    const lines = nft('list', 'chain', 'inet', 'sluice', name).split('\n');
    t.equal(lines.filter((line) => /^\t\t(?!type )/.test(line)).length, rules.length, name);
  }
}

/** The handles of the rules of each chain: another rule in the same place has another. */
function handlesOf(chains: readonly Chain[]): ReadonlyMap<string, string> {
  const handles = (name: string) =>
    nft('-a', 'list', 'chain', 'inet', 'sluice', name).match(/(?<=^\t\t.*# handle )\d+/gm) ?? [];
  return new Map(chains.map(({ name }) => [name, handles(name).join()]));
}

/** What a promise was rejected with. */
const rejection = (promise: Promise<unknown>): Promise<Error> =>
  promise.then(
    () => {
      throw new Error('Cannot go on: it was not rejected');
    },
    (error: Error) => error,
  );

const groups = new Map([
  ['functions', prefixes('10.0.1.0/24')],
  ['payments', prefixes('10.20.0.0/16')],
]);
const permit = (ports: number) =>
  inForce(
    rule(`pay ${ports}`, 'PERMIT', 'functions', 'payments', {
      protocol: 'TCP',
      portRanges: [{ lo: ports, hi: ports }],
    }),
  );
/** Makes one program after another, as a process does. */
function programs(epoch: string): (port: number, generation: number) => Program {
  const compiler = new Compiler(epoch);
  const parts = new Map([...groups].map(([name, members]) => [name, [members]]));
  return (port, generation) => {
    const { compiled } = compiler.compile({ policy: permit(port), groups: parts, excluded: [] });
    return programOf(compiled, labInterfaces, generation);
  };
}

function namesOf(program: Program): Set<string> {
  return new Set([...program.fixed, ...program.chains].map(({ name }) => name));
}

/** The program with one more rule in each of its chains of a kind. */
function withRule(program: Program, kind: string, rule: Rule): Program {
  const broken = (chain: Chain) =>
    chain.name.startsWith(kind) ? { ...chain, rules: [...chain.rules, rule] } : chain;
  return { ...program, fixed: program.fixed.map(broken), chains: program.chains.map(broken) };
}

t.test('a switch writes the chains that change, and all where it is not known what is there', async (t) => {
  const { kernel } = open(t);
  const applier = new Applier(kernel);
  await applier.takeOver();
  const programFor = programs('first');
  const { fixed } = programFor(443, 7);
  const apply = async (program: Program) => {
    const before = handlesOf(fixed);
    await applier.apply(program);
    const after = handlesOf(fixed);
    return fixed.map(({ name }) => name).filter((name) => after.get(name) !== before.get(name));
  };
  await applier.apply(programFor(443, 7));
  t.same(await apply(programFor(443, 8)), ['monitored', 'forward'], 'those that know the generation');
  t.same(await apply(programFor(443, 8)), []);
  holdsWhole(t, programFor(443, 8).fixed);
  nft('flush', 'chain', 'inet', 'sluice', 'gate');
  await applier.takeOver();
  t.equal((await apply(programs('second')(443, 9))).length, fixed.length);
  holdsWhole(t, programFor(443, 9).fixed);
});

t.test('the applier loads, switches, collects, and takes over what is there', async (t) => {
  const { connection, kernel } = open(t);
  const stages: string[] = [];
  const applier = new Applier(kernel, undefined, (stage) => stages.push(stage));
  t.equal(await applier.takeOver(), undefined);
  const programFor = programs('first');
  const [first, second] = [programFor(443, 7), programFor(444, 8)];
  await applier.apply(first);
  const present = await kernel.list();
  t.strictSame(present.chains, namesOf(first).add('generation_7'));
  t.strictSame(present.maps, new Set([...first.maps, ...first.liveSets].map(({ name }) => name)));
  t.strictSame(present.counters, new Set(first.counters));
  t.strictSame(present.limits, new Set(first.limits.map(({ name }) => name)));
  t.equal(await applier.collect(), false, 'nothing is old');

  await applier.apply(second);
  const both = await kernel.list();
  t.strictSame(
    both.chains,
    namesOf(first).union(namesOf(second)).add('generation_8'),
    'the old beside the new',
  );
  t.equal(await applier.collect(), false);
  t.strictSame((await kernel.list()).chains, namesOf(second).add('generation_8'));
  t.strictSame(stages, ['load', 'switch', 'load', 'switch', 'collect'], 'each is timed');

  const heir = new Applier(new NftKernel(connection));
  t.equal(await heir.takeOver(), 8);
  t.equal(await heir.collect(), false, 'what it did not apply it does not collect');
  const inherited = programs('heir')(443, 9);
  await heir.apply(inherited);
  t.equal(await heir.collect(), false);
  const left = await kernel.list();
  t.strictSame(left.chains, namesOf(inherited).add('generation_9'), 'nothing of its forebear is left');
  t.strictSame(left.maps, new Set([...inherited.maps, ...inherited.liveSets].map(({ name }) => name)));
  t.strictSame([left.counters, left.limits], [present.counters, present.limits], 'but what is named alike');
});

t.test('content whose collection was begun comes back whole', async (t) => {
  const { kernel, failSecond } = openFailing(t);
  const applier = new Applier(kernel);
  await applier.takeOver();
  const programFor = programs('back');
  await applier.apply(programFor(443, 7));
  await applier.apply(programFor(444, 8));
  failSecond();
  t.equal(await applier.collect(), true, 'its chains are still there, without their rules');
  const back = programFor(443, 9);
  await applier.apply(back);
  await applier.collect();
  const text = ruleset();
  t.match(text, /proto-dst 443 meta mark set 0x04004001/);
  t.notMatch(text, /proto-dst 444/);
  holdsWhole(t, back.chains);
});

t.test('and so does what comes back in place', async (t) => {
  const { kernel, failSecond } = openFailing(t);
  const applier = new Applier(kernel);
  await applier.takeOver();
  const compiler = new Compiler('back in place');
  const compile = (port: number, payments: string) => {
    const portRanges = [{ lo: port, hi: port }];
    const policy = inForce(rule('pay', 'PERMIT', 'functions', 'payments', { protocol: 'TCP', portRanges }));
    const parts = new Map([...groups].map(([name, members]) => [name, [members]]));
    return compiler.compile({ policy, groups: parts.set('payments', [prefixes(payments)]), excluded: [] });
  };
  const inPlace = async (port: number, payments: string) => {
    const { compiled, edits, added } = compile(port, payments);
    await applier.edit(edits!, undefined, added);
    return compiled;
  };
  await applier.apply(programOf(compile(443, '10.20.0.0/16').compiled, labInterfaces, 7));
  await inPlace(444, '10.20.0.0/16');
  t.match(ruleset(), /proto-dst 443[\s\S]*proto-dst 444|proto-dst 444[\s\S]*proto-dst 443/);
  await applier.apply(programOf(compile(445, '10.21.0.0/16').compiled, labInterfaces, 8));
  failSecond();
  t.equal(await applier.collect(), true, 'chains are still there, without their rules');
  const { chains } = await inPlace(443, '10.21.0.0/16');
  await applier.collect();
  t.notMatch(ruleset(), /proto-dst 444/);
  holdsWhole(t, chains);
});

t.test('where the kernel refuses a program the old one stays in force', async (t) => {
  const { kernel } = open(t);
  const applier = new Applier(kernel);
  await applier.takeOver();
  await applier.apply(programs('first')(443, 1));
  const inForceBefore = ruleset();
  const absent: Rule = [{ kind: 'verdictMap', field: 'mark', map: 'absent' }];
  for (const [kind, stage] of [
    ['list_', 'load'],
    ['forward', 'switch'],
  ] as const) {
    const error = await rejection(applier.apply(withRule(programs(`refused ${kind}`)(444, 2), kind, absent)));
    t.type(error, ApplyError);
    t.match(error, { stage, cause: { code: 'ENOENT' } });
    t.match(error.message, `Cannot ${stage} program: Cannot add rule to`);
    await applier.collect();
    t.equal(ruleset(), inForceBefore, `refused at ${stage}: nothing of it stays`);
  }
  await applier.apply(programs('next')(444, 2));
  await applier.collect();
  t.match(ruleset(), /proto-dst 444 meta mark set 0x04004001/, 'and the next works');
});

t.test(
  'an edit changes addresses in place, and takes the generation out of force where it revokes',
  async (t) => {
    const { kernel } = open(t);
    const applier = new Applier(kernel);
    await applier.takeOver();
    const compiler = new Compiler('edits');
    const compile = (...functions: string[]) =>
      compiler.compile({
        policy: permit(443),
        groups: new Map([
          ['functions', [prefixes(...functions)]],
          ['payments', [prefixes('10.20.0.0/16')]],
        ]),
        excluded: [],
      });
    await applier.apply(programOf(compile('10.0.1.0/24', '250.0.0.0/8').compiled, labInterfaces, 7));
    const before = await kernel.list();
    const listed = (kind: 'map' | 'set', start: string) =>
      nft('list', kind, 'inet', 'sluice', [...before.maps].find((name) => name.startsWith(start))!);
    t.match(listed('set', 'judged_7'), '0x0001c000');

    const more = compile('10.0.1.0/24', '10.0.9.0/24', '250.0.0.0/8');
    t.strictSame(more.effect, { grants: true, revokes: false });
    await applier.edit(more.edits!, undefined);
    t.match(listed('map', 'source4_classes'), /10\.0\.1\.0\/24 : 0:2.*10\.0\.9\.0\/24 : 0:2/s);
    t.match(listed('set', 'judged_7'), '0x0001c000', 'what was judged stays');

    const less = compile('10.0.9.0/24', '250.0.0.0/8');
    t.strictSame(less.effect, { grants: false, revokes: true });
    await applier.edit(less.edits!, judged(7));
    t.notMatch(listed('map', 'source4_classes'), '10.0.1.0');
    t.notMatch(listed('set', 'judged_7'), 'elements', 'everything is judged again');
    t.strictSame(await kernel.list(), before, 'the same names');

    const wrong = await rejection(applier.edit(less.edits!, undefined));
    t.match(wrong, { name: 'ApplyError', stage: 'edit', cause: { code: 'ENOENT' } }, 'what is not there');
  },
);
