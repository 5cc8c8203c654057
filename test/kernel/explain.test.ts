import '../support/own-namespace.js';
import assert from 'node:assert/strict';
import { KernelTable } from 'sluice-gateway/analysis/kernel-table.js';
import { walkKernel } from 'sluice-gateway/analysis/kernel-walk.js';
import { explainAllLive } from 'sluice-gateway/analysis/live.js';
import type { Explanation } from 'sluice-gateway/analysis/output.js';
import { parseAddress } from 'sluice-gateway/net/address.js';
import { NETLINK_NETFILTER, NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { type Connection, evaluate } from 'sluice-gateway/policy/evaluate.js';
import type { GatewayInterfaces } from 'sluice-gateway/policy/fixed-chains.js';
import { policyInForce } from 'sluice-gateway/policy/in-force.js';
import t from 'tap';
import { walkArbitrary } from '../support/arbitrary.js';
import { inForce, Loader, labInterfaces, prefixes, rule } from '../support/load.js';
import { here } from '../support/namespace.js';
import { rounds } from '../support/seed.js';
import { printConnection, printWalk, tryProperty } from '../support/try-property.js';

const NOW = new Date('2026-11-01T00:00:00Z');
const everywhere = prefixes('0.0.0.0/0', '::/0');
const netlink = new NetlinkConnection(NETLINK_NETFILTER);
const table = new KernelTable(netlink);
const loader = new Loader();
await loader.applier.takeOver();
t.teardown(() => {
  netlink.close();
  loader.close();
});

t.test('the kernel, asked for its rules and elements, says what evaluate says', async () => {
  const space = { sources: everywhere, destinations: everywhere };
  await tryProperty(walkArbitrary(space, 4, 12), printWalk, 12 * rounds, async (steps) => {
    for (const { policy, groups, connections } of steps) {
      const inForce = policyInForce(policy, NOW);
      await loader.change({ policy: inForce, groups });
      for (const connection of connections) {
        const { decided } = evaluate(inForce, groups, [], connection);
        assert.deepEqual(
          await walkKernel(table, connection),
          { verdict: decided.action, rule: decided.number },
          printConnection(connection),
        );
      }
    }
  });
});

const policy = inForce(
  rule('files', 'REJECT', 'functions', 'servers', { protocol: 'TCP', portRanges: [{ lo: 22, hi: 23 }] }),
  rule('watched', 'DENY', 'functions', 'servers', { enforcement: 'MONITOR' }),
  rule('web', 'PERMIT', 'functions', 'servers', { protocol: 'TCP', portRanges: [{ lo: 443, hi: 443 }] }),
);
const groups = new Map([
  ['functions', prefixes('10.0.1.0/24')],
  ['servers', prefixes('203.0.113.0/24')],
]);
const connection: Connection = {
  src: parseAddress('10.0.1.7'),
  dst: parseAddress('203.0.113.9'),
  protocol: 6,
  dstPort: 443,
};

t.test('ranges of ports end where they should', async (t) => {
  await loader.load({ policy, groups });
  const rules: Record<number, number | undefined> = {};
  for (const dstPort of [21, 22, 23, 24, 443]) {
    rules[dstPort] = (await walkKernel(table, { ...connection, dstPort })).rule;
  }
  const [files, , web] = policy.rules.map(({ number }) => number);
  t.strictSame(rules, { 21: 0, 22: files, 23: files, 24: 0, 443: web });
});

async function asked(
  interfaces: GatewayInterfaces = labInterfaces,
  { action, name }: { action: Explanation['verdict']; name: string } = { action: 'PERMIT', name: 'web' },
) {
  const side = { ip: '', groups: [], functions: [] };
  const explanation: Explanation = {
    ...{ verdict: action, reason: 'rule', rule: { name, action }, passed: [], src: side, dst: side },
  };
  const [answer] = await explainAllLive([{ connection, explanation }], policy, interfaces);
  return answer!;
}

t.test('a kernel that holds something else is told', async (t) => {
  await loader.load({ policy, groups });
  t.match((await asked()).kernel, { state: 'same', verdict: 'PERMIT', rule: 'web' });
  t.strictSame((await asked(labInterfaces, { action: 'REJECT', name: 'files' })).kernel, {
    ...{ state: 'different', verdict: 'PERMIT', rule: 'web', why: 'another rule decides there' },
  });
  const maps = here.run('nft', ['list', 'maps', 'inet']);
  for (const [name] of maps.matchAll(/source4_classes_\w+/g)) {
    here.run('nft', ['flush', 'map', 'inet', 'sluice', name]);
  }
  t.strictSame((await asked()).kernel, {
    ...{ state: 'different', verdict: 'DENY', why: 'no rule decides there' },
  });
  loader.startAnew();
  await loader.load({ policy, groups });
  here.run('nft', ['flush', 'chain', 'inet', 'sluice', 'gate']);
  t.strictSame((await asked()).kernel, { state: 'different', why: 'chain "gate" is empty or not there' });
  loader.startAnew();
  await loader.load({ policy, groups });
  here.run('nft', ['insert', 'rule', 'inet', 'sluice', 'forward', 'ip', 'length', '60', 'accept']);
  t.match((await asked()).kernel, { state: 'unknown', why: /^Cannot read the kernel's program: / });
  here.run('nft', ['delete', 'table', 'inet', 'sluice']);
  t.strictSame((await asked()).kernel, { state: 'different', why: 'chain "forward" is empty or not there' });
});

t.test('source NAT by the routing table', async (t) => {
  loader.startAnew();
  await loader.applier.takeOver();
  await loader.load({ policy, groups });
  for (const [name, address] of [
    ['wan0', '198.18.0.1/30'],
    ['dc0', '10.99.0.1/24'],
  ] as const) {
    here.ip('link', 'add', name, 'type', 'veth', 'peer', 'name', `${name}-peer`);
    here.ip('addr', 'add', address, 'dev', name);
    for (const end of [name, `${name}-peer`]) here.ip('link', 'set', end, 'up');
  }
  const snat = { interfaces: ['wan0'], to: 'masquerade' as const };
  const masquerading = { ...labInterfaces, snat };
  const configured = { to: 'masquerade', interfaces: ['wan0'] };
  t.strictSame((await asked(masquerading)).snat, configured, 'there is no route');
  here.ip('route', 'add', 'default', 'via', '198.18.0.2');
  t.strictSame((await asked(masquerading)).snat, { ...configured, egress: 'wan0', ip: '198.18.0.1' });
  t.equal((await asked()).snat, undefined, 'none is configured');
  const to = parseAddress('198.18.0.9');
  const translating = { ...labInterfaces, snat: { ...snat, to } };
  t.match((await asked(translating)).snat, { to: '198.18.0.9', egress: 'wan0', ip: '198.18.0.9' });
  here.ip('route', 'add', '203.0.113.0/24', 'dev', 'dc0');
  t.match((await asked(translating)).snat, { egress: 'dc0', ip: '10.0.1.7' }, 'it leaves as it is');
  t.equal((await asked(masquerading, { action: 'DENY', name: 'default' })).snat, undefined);
});
