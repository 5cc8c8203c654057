import '../support/own-namespace.js';
import { conntrackStats } from 'sluice-gateway/conntrack/stats.js';
import { NETLINK_NETFILTER, NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { Applier } from 'sluice-gateway/nft/apply.js';
import { NftKernel } from 'sluice-gateway/nft/kernel.js';
import { programOf } from 'sluice-gateway/policy/compile.js';
import { closedPolicy } from 'sluice-gateway/policy/compile-all.js';
import t from 'tap';
import { labInterfaces } from '../support/load.js';
import { here } from '../support/namespace.js';

const nft = (...args: string[]) => here.run('nft', args);
const connection = new NetlinkConnection(NETLINK_NETFILTER);
t.teardown(() => connection.close());

t.test('the default drop is seen to be there, and to be gone in any way', async (t) => {
  const isThere = () => new NftKernel(connection).hasDefaultDrop(['forward', 'gate']);
  t.equal(await isThere(), false, 'no table');
  const applier = new Applier(new NftKernel(connection));
  await applier.takeOver();
  await applier.apply(programOf(closedPolicy, labInterfaces, 1));
  t.equal(await isThere(), true, 'even the program that permits nothing has it');
  for (const chain of ['forward', 'gate']) {
    nft('chain', 'inet', 'sluice', chain, '{ policy accept; }');
    t.equal(await isThere(), false, `${chain} accepts`);
    nft('chain', 'inet', 'sluice', chain, '{ policy drop; }');
    t.equal(await isThere(), true);
  }
  nft('add', 'table', 'inet', 'sluice', '{ flags dormant; }');
  t.equal(await isThere(), false, 'the table sleeps');
  nft('add', 'table', 'inet', 'sluice');
  t.equal(await isThere(), true);
  nft('delete', 'chain', 'inet', 'sluice', 'gate');
  t.equal(await isThere(), false, 'one chain is gone');
  nft('add', 'chain', 'inet', 'sluice', 'gate');
  t.equal(await isThere(), false, 'it is there and sees no packets');
});

/** What `conntrack -S` says, all processors together. */
function judged(): Map<string, number> {
  const sums = new Map<string, number>();
  for (const [, kind, count] of here.run('conntrack', ['-S']).matchAll(/([a-z_]+)=([0-9]+)/g)) {
    sums.set(kind!, (sums.get(kind!) ?? 0) + Number(count));
  }
  return sums;
}

t.test('failures of connection tracking are those that conntrack tells', async (t) => {
  const stats = await conntrackStats(connection);
  const expected = judged();
  t.strictSame([...stats.keys()], ['insert_failed', 'drop', 'early_drop', 'error', 'chain_too_long']);
  for (const [kind, count] of stats)
    t.equal(count, expected.get(kind.replaceAll('_too_long', '_toolong')) ?? 0, kind);
});
