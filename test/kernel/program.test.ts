import '../support/own-namespace.js';
import fc from 'fast-check';
import { parseAddress } from 'sluice-gateway/net/address.js';
import { printProgram } from 'sluice-gateway/nft/print.js';
import { evaluate } from 'sluice-gateway/policy/evaluate.js';
import { policyInForce } from 'sluice-gateway/policy/in-force.js';
import t from 'tap';
import { caseArbitrary } from '../support/arbitrary.js';
import { createLab, forwardPackets } from '../support/lab.js';
import { compileAll, Loader, labInterfaces, prefixes, TEST_EPOCH } from '../support/load.js';
import { here, macOf } from '../support/namespace.js';
import { rounds, seed } from '../support/seed.js';
import { capturePackets, sendPackets } from '../support/wire.js';

const space = {
  sources: prefixes('10.0.128.0/17', 'fd00:a::/64'),
  destinations: prefixes('203.0.113.0/24', '20.0.0.0/7', '2001:db8::/48', '2600::/16'),
};
const listTable = () => here.run('nft', ['list', 'table', 'inet', 'sluice']);
const interfaces = [
  labInterfaces,
  { ...labInterfaces, inputIcmp: false, snat: { interfaces: ['wan0'], to: 'masquerade' as const } },
  { ...labInterfaces, snat: { interfaces: ['wan0', 'dc0'], to: parseAddress('198.18.0.1') } },
];

t.test('nft lists our program as it lists the same program loaded by nft', async (t) => {
  const cases = fc.sample(caseArbitrary(space, 0), { seed, numRuns: 12 * rounds });
  for (const [index, { policy, groups }] of cases.entries()) {
    const loader = new Loader(TEST_EPOCH);
    const input = {
      policy: policyInForce(policy, new Date()),
      groups,
      excluded: prefixes('10.0.1.1/32'),
      interfaces: interfaces[index % interfaces.length]!,
    };
    await loader.load(input);
    const ours = listTable();
    here.run('nft', ['flush', 'ruleset']);
    here.run('nft', ['-f', '-'], { input: printProgram(compileAll(input)) });
    t.equal(ours, listTable(), `case ${index}`);
    here.run('nft', ['flush', 'ruleset']);
    loader.close();
  }
});

t.test('model and kernel judge random packets alike', async (t) => {
  const lab = createLab();
  t.teardown(() => lab.remove());
  const source = lab.a.namespace;
  here.ip('route', 'add', '10.0.128.0/17', 'via', lab.a.address4);
  here.ip('-6', 'route', 'add', 'fd00:a::/64', 'via', lab.a.address6);
  forwardPackets(here);
  const macs = { src: macOf(source, 'eth0'), dst: macOf(here, 'lam0') };
  const loader = new Loader();
  t.teardown(() => loader.close());
  const cases = fc.sample(caseArbitrary(space, 500), { seed, numRuns: 10 * rounds });
  const judged = { PERMIT: 0, DENY: 0, REJECT: 0 };
  for (const { policy, groups, connections } of cases) {
    const inForce = policyInForce(policy, new Date());
    await loader.load({ policy: inForce, groups });
    const packets = connections.map((connection, tag) => ({ ...connection, srcPort: 1024 + tag, tag }));
    const internet = await capturePackets(lab.internet.namespace, 'eth0');
    const function_ = await capturePackets(source, 'eth0');
    sendPackets(source, 'eth0', packets, macs);
    const passed = new Set((await internet.stop()).map((seen) => seen.tag));
    const answers = await function_.stop();
    for (const packet of packets) {
      const { decided } = evaluate(inForce, groups, [], packet);
      judged[decided.action]++;
      const text = JSON.stringify({ ...packet, rule: decided.number }, (_, value) =>
        typeof value === 'bigint' ? value.toString(16) : value,
      );
      if (passed.has(packet.tag) !== (decided.action === 'PERMIT')) t.fail(`${decided.action} ${text}`);
      const answered = answers.some(
        ({ protocol, tag, src, segment }) =>
          tag === packet.tag ||
          (protocol === 6 && src.value === packet.dst.value && segment.readUInt16BE(2) === packet.srcPort),
      );
      // ICMP answers are rate-limited by the kernel, resets are not.
      if (decided.action === 'REJECT' && packet.protocol === 6 && !answered) t.fail(`no rejection ${text}`);
      if (decided.action === 'DENY' && answered) t.fail(`not silent ${text}`);
    }
    await loader.applier.collect();
  }
  t.comment(JSON.stringify(judged));
  for (const [action, count] of Object.entries(judged)) t.ok(count > 0, `${action} was tried ${count} times`);
});
