import '../support/own-namespace.js';
import { spawnSync } from 'node:child_process';
import { NETLINK_NETFILTER, NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { Applier } from 'sluice-gateway/nft/apply.js';
import { Batch, TABLE_OWNER, TABLE_PERSIST } from 'sluice-gateway/nft/batch.js';
import { NftKernel } from 'sluice-gateway/nft/kernel.js';
import { preflight } from 'sluice-gateway/preflight/preflight.js';
import t, { type Test } from 'tap';
import { compileAll, inForce, labInterfaces, prefixes, rule } from '../support/load.js';
import { here } from '../support/namespace.js';
import { flow, Stand, there } from '../support/stand.js';
import { until } from '../support/wait.js';

/** The table is ours alone where the kernel can have it so, and enforces on without us all the same. */

const findings = await preflight({ interfaces: labInterfaces });
const has = findings.some(({ name, value }) => name === 'feature.table_owner_persist' && value === 'yes');
const skip = has ? false : 'this kernel has no owner with persist: Linux 6.9';

const stand = await Stand.create();
t.teardown(() => stand.close());

const UDP = 17;
const groups = new Map([
  ['functions', prefixes('10.0.128.0/17')],
  ['servers', prefixes('203.0.113.0/24')],
]);
const policy = inForce(
  rule('web', 'PERMIT', 'functions', 'servers', { protocol: 'UDP', portRanges: [{ lo: 443, hi: 443 }] }),
);

class Process {
  readonly #connection = new NetlinkConnection(NETLINK_NETFILTER);
  readonly kernel = new NftKernel(this.#connection);
  readonly #applier = new Applier(this.kernel, () => has);

  async enforce(): Promise<void> {
    const generation = ((await this.#applier.takeOver()) ?? 0) + 1;
    await this.#applier.apply(compileAll({ policy, groups, epoch: `${generation}` }, generation));
    await this.#applier.apply(compileAll({ policy, groups, epoch: `${generation}` }, generation + 1));
    while (await this.#applier.collect());
  }

  end(): void {
    this.#connection.close();
  }
}

async function enforces(t: Test, what: string): Promise<void> {
  const to = (port: number) => there(flow(UDP, '10.0.128.9', '203.0.113.9', port));
  t.ok(await stand.carries('a', 'internet', to(443)), `${what}: permitted`);
  t.ok(await stand.stops('a', 'internet', to(80)), `${what}: denied`);
}
const refuses = (command: string) => spawnSync('nft', [command]).status !== 0;

t.test('the table is owned where the kernel can have it so, and enforces either way', async (t) => {
  const process = new Process();
  t.teardown(() => process.end());
  await process.enforce();
  t.equal(await process.kernel.tableFlags(), has ? TABLE_OWNER | TABLE_PERSIST : 0);
  await enforces(t, has ? 'owned' : 'not owned');
  await process.kernel.commit(new Batch().deleteTable());
});

t.test('others can not change the table, and it stays when its owner dies', { skip }, async (t) => {
  const first = new Process();
  t.teardown(() => first.end());
  await first.enforce();
  t.equal(await first.kernel.tableFlags(), TABLE_OWNER | TABLE_PERSIST);
  here.run('nft', ['flush ruleset']);
  for (const command of [
    'delete table inet sluice',
    'add rule inet sluice forward accept',
    'flush chain inet sluice forward',
  ])
    t.ok(refuses(command), `refused: ${command}`);
  await enforces(t, 'after all that');
  here.run('nft', ['list', 'table', 'inet', 'sluice']);

  first.end();
  const heir = new Process();
  t.teardown(() => heir.end());
  await until('the kernel knows of the end', async () => (await heir.kernel.tableFlags()) === TABLE_PERSIST);
  await enforces(t, 'without a process');
  await heir.enforce();
  t.equal(await heir.kernel.tableFlags(), TABLE_OWNER | TABLE_PERSIST, 'the next one owns it');
  t.ok(refuses('add rule inet sluice forward accept'));
  await enforces(t, 'under the next one');
  await heir.kernel.commit(new Batch().deleteTable());
});

t.test('a table that was there without an owner is used as it is', { skip }, async (t) => {
  here.run('nft', ['add table inet sluice']);
  const late = new Process();
  t.teardown(() => late.end());
  await late.enforce();
  t.equal(await late.kernel.tableFlags(), 0);
  await enforces(t, 'without an owner');
});
