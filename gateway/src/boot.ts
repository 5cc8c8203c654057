import { chmod, mkdir } from 'node:fs/promises';
import type { Config } from './config/config.js';
import { ConntrackTable } from './conntrack/table.js';
import { interfacesOf, namesOf } from './interfaces.js';
import type { Log } from './log.js';
import { NETLINK_NETFILTER, NETLINK_ROUTE, NetlinkConnection } from './netlink/connection.js';
import { Applier } from './nft/apply.js';
import { NftKernel } from './nft/kernel.js';
import type { GatewayInterfaces } from './policy/fixed-chains.js';
import { Preflight } from './preflight/preflight.js';
import { Reconciler } from './reconcile.js';
import { ProgramMemory } from './remembered.js';
import { Guard } from './route/guard.js';
import { SnapshotKeeper } from './snapshot/keeper.js';
import { enableTracking, honourMarks } from './sysctl.js';

/** What a boot has brought into the kernel. */
export interface Booted {
  /** Undefined: nothing was known, all is dropped. */
  readonly revision: number | undefined;
  readonly generation: number;
}

/** What comes before any program. Rejects, with the guard in force, where the kernel lacks what a program needs. */
export async function prepare(
  { state }: Config,
  { guard, kernel, interfaces }: { guard: Guard; kernel: NftKernel; interfaces: GatewayInterfaces },
  log: Log,
) {
  await guard.ensure();
  // Interfaces that are not there yet have the settings of `default` when they come.
  await honourMarks([...namesOf(interfaces), 'default']);
  await mkdir(state.path, { recursive: true });
  await chmod(state.path, 0o700);
  return Preflight.start({ interfaces }, kernel.portId, log);
}

/**
 * Enforces the last good snapshot without a client, a listener or an interface, and leaves it to the kernel: guard first,
 * then the program, or the closed one where nothing is known. The gateway that starts later takes both over. Forwarding
 * is left as it is. Rejects, with the guard alone in force, where the kernel does not take the program.
 *
 * Cost: that of one program.
 */
export async function boot(config: Config, log: Log): Promise<Booted> {
  const netfilter = new NetlinkConnection(NETLINK_NETFILTER);
  const routing = new NetlinkConnection(NETLINK_ROUTE);
  const interfaces = interfacesOf(config);
  const kernel = new NftKernel(netfilter);
  const memory = new ProgramMemory(config.state.path, kernel, log);
  try {
    const remembered = await memory.recall();
    const guard = new Guard(routing, namesOf(interfaces));
    const preflight = await prepare(config, { guard, kernel, interfaces }, log);
    preflight.close();
    await enableTracking();
    const addresses = await memory.addressesThen();
    const conntrack = new ConntrackTable(netfilter);
    const reconciler = new Reconciler({
      applier: new Applier(kernel, () => preflight.has('table_owner_persist')),
      interfaces,
      ownAddresses: () => addresses,
      generationsInUse: () => conntrack.generationsInUse(),
      log,
      now: () => new Date(),
      onSwitch: () => undefined,
      onCompiled: () => undefined,
      onApplied: () => undefined,
      onFailed: () => undefined,
      remember: (next, isStillSo) => memory.remember(next, isStillSo),
    });
    const lastGood = await new SnapshotKeeper({
      wanted: config.snapshot.path,
      statePath: config.state.path,
      log,
      onSnapshot: () => undefined,
      onRefused: () => undefined,
    }).loadLastGood();
    await reconciler.start(lastGood, remembered);
    await reconciler.stop();
    return { revision: lastGood?.revision, generation: reconciler.applied!.generation };
  } finally {
    netfilter.close();
    routing.close();
  }
}
