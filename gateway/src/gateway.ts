import { join } from 'node:path';
import type { Status } from './admin/answers.js';
import { Busiest } from './admin/busiest.js';
import { RecentFlows } from './admin/recent-flows.js';
import { type AdminServer, serveAdmin } from './admin/server.js';
import { prepare } from './boot.js';
import { AuditLog } from './changes/audit.js';
import { Changes } from './changes/changes.js';
import type { Config } from './config/config.js';
import { ConntrackTable } from './conntrack/table.js';
import { CONNECTIONS_MAX, FlowAssembler } from './flows/assemble.js';
import type { FlowSink } from './flows/queue.js';
import type { FlowRecord } from './flows/record.js';
import { openSink } from './flows/sinks/open.js';
import { FlowWatch, UPDATE_RECORDS_MAX } from './flows/watch.js';
import { interfacesOf, namesOf } from './interfaces.js';
import { Crowd } from './live/crowd.js';
import { Judge } from './live/judge.js';
import { speaker } from './live/reset.js';
import { type InForce, Revoker } from './live/revoker.js';
import type { Log } from './log.js';
import { matcherOf, ownAddresses } from './matcher/of-snapshot.js';
import { ConnectionSums } from './metrics/connections.js';
import { LABEL_VALUES_MAX } from './metrics/labels.js';
import { createMetrics, type Metrics } from './metrics/metrics.js';
import { type MetricsServer, parseListen, serveMetrics } from './metrics/server.js';
import { exportSources } from './metrics/sources.js';
import { NETLINK_NETFILTER, NETLINK_ROUTE, NetlinkConnection } from './netlink/connection.js';
import { isBusy, isPermissionDenied } from './netlink/error.js';
import type { NflogPacket } from './nflog/decode.js';
import { Applier } from './nft/apply.js';
import { NftKernel } from './nft/kernel.js';
import { watchTable } from './nft/watch.js';
import { crowdedSets } from './policy/fairness.js';
import { type GatewayInterfaces, LOG_GROUP } from './policy/fixed-chains.js';
import type { Preflight } from './preflight/preflight.js';
import { type Applied, Reconciler } from './reconcile.js';
import { ProgramMemory } from './remembered.js';
import { Guard } from './route/guard.js';
import { RuleCounters } from './rule-counters.js';
import { RuleHistory } from './rule-history.js';
import type { Health } from './service-manager.js';
import { SnapshotKeeper } from './snapshot/keeper.js';
import { SpareMemory } from './spare-memory.js';
import { enableForwarding, enableTracking, hasInterface } from './sysctl.js';

const SUPPRESSED_MS = 1_000;

/** Enforces the newest snapshot and tells what happens: everything between the snapshot folder and the kernel. */
export class Gateway {
  readonly #config: Config;
  readonly #log: Log;
  readonly #metrics: Metrics;
  readonly #sums = new ConnectionSums(LABEL_VALUES_MAX - 1, (source) => this.#matcher.groupsOf(source));
  readonly #history = new RuleHistory();
  readonly #recent = new RecentFlows();
  readonly #busiest = new Busiest(
    () => performance.now(),
    (source) => this.#matcher.functionsOf(source),
  );
  readonly #sinks: FlowSink[] = [];
  readonly #closers: (() => void | Promise<void>)[] = [];
  readonly #netfilter = new NetlinkConnection(NETLINK_NETFILTER);
  readonly #tracking = new NetlinkConnection(NETLINK_NETFILTER);
  readonly #sweeping = new NetlinkConnection(NETLINK_NETFILTER);
  readonly #routing = new NetlinkConnection(NETLINK_ROUTE);
  readonly #scraping = new NetlinkConnection(NETLINK_NETFILTER);
  readonly #kernel = new NftKernel(this.#netfilter);
  readonly #conntrack = new ConntrackTable(this.#tracking);
  readonly #counters = new RuleCounters(this.#kernel, () => this.#reconciler.applied?.policy);
  readonly #interfaces: GatewayInterfaces;
  readonly #names: readonly string[];
  readonly #revoker: Revoker;
  readonly #crowd: Crowd;
  readonly #guard: Guard;
  readonly #reconciler: Reconciler;
  readonly #keeper: SnapshotKeeper;
  readonly #changes: Changes;
  readonly #memory: ProgramMemory;
  readonly #spare: SpareMemory;
  readonly #assembler: FlowAssembler;
  #preflight: Preflight | undefined;
  #matcher = matcherOf(undefined, []);
  #matched: Pick<Applied, 'snapshot' | 'own'> | undefined;
  #judged: (InForce & { readonly applied: Applied }) | undefined;
  /** The generation that the log last told of: a new revision of the same content has none of its own. */
  #told = 0;

  constructor(config: Config, log: Log) {
    this.#config = config;
    this.#log = log;
    this.#metrics = createMetrics({ rulesMax: config.metrics.rulesMax });
    this.#interfaces = interfacesOf(config);
    this.#names = namesOf(this.#interfaces);
    this.#revoker = new Revoker({
      table: this.#conntrack,
      listing: new ConntrackTable(this.#sweeping),
      inForce: () => (this.#reconciler.isCurrent ? this.#judged : undefined),
      rules: this.#history,
      speaker,
      onRefused: (packet) => this.#onRevoked(this.#assembler.packet(packet)),
      onSwept: (entry, decision) => this.#onRevoked(this.#assembler.revoked(entry, decision)),
      log,
    });
    this.#crowd = new Crowd({
      connectionsMax: config.gateway.fairness.connectionsMax,
      holdBack: (sources) => this.#kernel.fillSets(crowdedSets(sources)),
      log,
    });
    this.#closers.push(() => this.#crowd.stop());
    this.#guard = new Guard(this.#routing, this.#names);
    this.#reconciler = new Reconciler({
      applier: new Applier(
        this.#kernel,
        () => this.#preflight?.has('table_owner_persist') === true,
        this.#metrics.applyTook,
      ),
      interfaces: this.#interfaces,
      ownAddresses,
      generationsInUse: () => this.#conntrack.generationsInUse(),
      log,
      now: () => new Date(),
      onSwitch: (generation, policy) => this.#history.remember(generation, policy),
      onCompiled: (seconds) => this.#metrics.applyTook('compile', seconds),
      onApplied: (applied, seconds) => this.#onApplied(applied, seconds),
      remember: async (remembered, isStillSo) => {
        const isFree = () => this.#crowd.holdsNobody && isStillSo();
        if (isFree()) await this.#memory.remember(remembered, isFree);
      },
      onFailed: (stage, error) => {
        this.#metrics.applyFailed(stage);
        this.#changes.failed(error);
        log.error('the program could not be applied, the old one stays in force', { stage, error });
      },
    });
    this.#keeper = new SnapshotKeeper({
      wanted: config.snapshot.path,
      statePath: config.state.path,
      log,
      onSnapshot: (snapshot, readSeconds) => {
        this.#metrics.applyTook('snapshot', readSeconds);
        this.#metrics.revision('wanted', snapshot.revision);
        this.#changes.offered(snapshot);
      },
      onRefused: () => this.#metrics.applyFailed('snapshot'),
    });
    this.#changes = new Changes({
      keeper: this.#keeper,
      statePath: config.state.path,
      want: (snapshot) => this.#reconciler.want(snapshot),
      log,
    });
    this.#memory = new ProgramMemory(config.state.path, this.#kernel, log);
    this.#spare = new SpareMemory(() => this.#reconciler.busyMs > 0, log);
    this.#closers.push(() => this.#spare.stop());
    this.#assembler = new FlowAssembler({
      gateway: config.gateway.name,
      rules: this.#history,
      matcher: () => this.#matcher,
      now: () => new Date(),
      connectionsMax: CONNECTIONS_MAX,
    });
  }

  /**
   * Guard, preflight, last good program, then forwarding, then everything that only observes: in this order nothing
   * passes before policy is in force. Rejects, with the kernel unforwarding or the old program in force, when one fails.
   */
  async start(): Promise<void> {
    this.#watchDrift();
    const remembered = await this.#memory.recall();
    // What is remembered held nobody back.
    if (remembered !== undefined) this.#crowd.knowNobodyHeld();
    const preflight = await prepare(
      this.#config,
      { guard: this.#guard, kernel: this.#kernel, interfaces: this.#interfaces },
      this.#log,
    );
    this.#preflight = preflight;
    this.#closers.push(() => preflight.close());
    this.#metrics.kernel(
      () => preflight.found(),
      () => preflight.settings(),
    );
    const options = { gateway: this.#config.gateway.name, log: this.#log };
    for (const sink of this.#config.flows.sinks) this.#sinks.push(await openSink(sink, options));
    await enableTracking();
    const watch = await this.#listen();
    this.#closers.push(() => watch.close());
    const audit = new AuditLog(join(this.#config.state.path, 'audit.jsonl'), this.#log);
    const lastGood = await this.#changes.resume(audit);
    if (lastGood === undefined)
      this.#log.warn('no snapshot is known yet: everything is dropped until one comes');
    else this.#metrics.revision('wanted', lastGood.revision);
    await this.#reconciler.start(lastGood, remembered);
    await watch.takeOver();
    if (remembered === undefined) this.#crowd.tell();
    await enableForwarding(this.#names);
    exportSources(this.#metrics, {
      connection: this.#scraping,
      reconciler: this.#reconciler,
      sums: this.#sums,
      crowd: this.#crowd,
      sinks: this.#sinks,
      interfaces: this.#names,
    });
    await this.#serve();
    await this.#keeper.start();
    const timer = setInterval(() => void this.#tellSuppressed(), SUPPRESSED_MS);
    this.#closers.push(() => clearInterval(timer));
  }

  health(): Health {
    return { status: this.#readiness().reason, busyMs: this.#reconciler.busyMs };
  }

  /** Opens the log files again, after they were rotated. */
  reopenSinks(): void {
    for (const sink of this.#sinks) sink.reopen();
  }

  /** Ends this process's part. Table and guard stay and go on enforcing. */
  async stop(): Promise<void> {
    this.#keeper.stop();
    await this.#changes.stop();
    await this.#reconciler.stop();
    await this.#revoker.stop();
    for (const close of this.#closers.reverse()) await close();
    for (const record of this.#assembler.finish()) this.#write(record);
    await Promise.all(this.#sinks.map((sink) => sink.stop()));
    const netfilter = [this.#netfilter, this.#tracking, this.#sweeping, this.#scraping];
    for (const connection of [...netfilter, this.#routing]) connection.close();
  }

  #onApplied(applied: Applied, seconds: number): void {
    const { snapshot, generation, policy, own } = applied;
    this.#metrics.applyTook('all', seconds);
    this.#crowd.tellAgain();
    this.#spare.applied();
    if (snapshot !== undefined) {
      this.#metrics.revision('applied', snapshot.revision);
      const level = generation === this.#told ? 'debug' : 'info';
      this.#told = generation;
      const fields = { revision: snapshot.revision, generation, seconds: Number(seconds.toFixed(3)) };
      this.#log[level]('in force', fields);
    }
    if (this.#matched?.snapshot !== snapshot || this.#matched?.own !== own) {
      this.#matcher = matcherOf(snapshot, own);
      this.#matched = applied;
    }
    if (snapshot === undefined) return;
    this.#changes.applied(applied.wanted!, generation);
    if (this.#judged?.applied !== applied)
      this.#judged = { applied, generation, judge: new Judge(policy, this.#matcher) };
    this.#revoker.sweep();
  }

  async #listen(): Promise<FlowWatch> {
    try {
      return await FlowWatch.start({
        logGroup: LOG_GROUP,
        table: new ConntrackTable(this.#sweeping),
        assembler: this.#assembler,
        observers: [this.#crowd, this.#sums, this.#busiest],
        onPacket: (packet) => this.#onPacket(packet),
        onRecord: (record) => this.#write(record),
        onLost: (source, events) => this.#metrics.eventsLost(source, events),
        updateSeconds: this.#config.flows.updateSeconds,
        updateRecordsMax: UPDATE_RECORDS_MAX,
        log: this.#log,
      });
    } catch (cause) {
      // A group that another process holds: EPERM, since CAP_NET_ADMIN is there, or EBUSY.
      if (!isBusy(cause) && !isPermissionDenied(cause)) throw cause;
      throw new Error(
        `Cannot start gateway: another process listens to log group ${LOG_GROUP}, is another sluice running?`,
        { cause },
      );
    }
  }

  #onPacket(packet: NflogPacket): void {
    if (packet.prefix === 'revoke') this.#revoker.refused(packet);
    else this.#write(this.#assembler.packet(packet));
  }

  #onRevoked(record: FlowRecord | undefined): void {
    this.#changes.revoked();
    this.#write(record);
  }

  #write(record: FlowRecord | undefined): void {
    if (record === undefined) return;
    this.#recent.add(record);
    this.#busiest.record(record);
    for (const sink of this.#sinks) sink.write(record);
  }

  #watchDrift(): void {
    const table = watchTable(this.#kernel.portId, (kind) => {
      this.#metrics.drifted(kind);
      this.#log.warn('somebody else changed the table inet sluice, it is written anew', { kind });
      this.#reconciler.drifted();
      this.#crowd.tell();
    });
    let restoring = Promise.resolve();
    const rules = this.#guard.watch(() => {
      restoring = restoring.then(() => this.#restoreGuard());
    });
    this.#closers.push(
      () => table.close(),
      () => rules.close(),
    );
  }

  async #restoreGuard(): Promise<void> {
    try {
      const missing = await this.#guard.ensure();
      if (missing === 0) return;
      this.#metrics.drifted('guard');
      this.#log.warn('somebody else removed routing rules of the guard, they are back', { missing });
    } catch (error) {
      this.#log.error('routing rules of the guard could not be restored', { error: error as Error });
    }
  }

  async #tellSuppressed(): Promise<void> {
    try {
      for (const record of this.#assembler.suppressedCounts(await this.#counters.suppressed()))
        this.#write(record);
    } catch (error) {
      this.#log.debug('counters could not be read', { error: error as Error });
    }
  }

  #readiness(): { ready: boolean; reason: string } {
    const missing = this.#names.find((name) => !hasInterface(name));
    if (missing !== undefined) return { ready: false, reason: `there is no interface ${missing}` };
    const applied = this.#reconciler.applied;
    if (applied?.snapshot === undefined)
      return { ready: false, reason: 'no snapshot is in force, all is dropped' };
    if (!this.#reconciler.isCurrent)
      return { ready: false, reason: 'the wanted program is not in the kernel yet' };
    return { ready: true, reason: `revision ${applied.snapshot.revision} is in the kernel` };
  }

  async #status(): Promise<Status> {
    const applied = this.#reconciler.applied;
    const snapshot = applied?.snapshot;
    return {
      gateway: this.#config.gateway.name,
      ...this.#readiness(),
      generation: applied?.generation,
      revision: { wanted: this.#keeper.newest?.revision, applied: snapshot?.revision },
      rules: applied?.policy.rules.length ?? 0,
      groups: snapshot?.groups.length ?? 0,
      functions: snapshot?.inventory.functions.length ?? 0,
      scopes: snapshot?.inventory.scopes ?? [],
      dropped: await this.#counters.dropped(),
      warnings: this.#preflight?.warnings() ?? [],
      held: this.#changes.status(),
    };
  }

  async #serve(): Promise<void> {
    const listen = parseListen(this.#config.metrics.listen);
    const metrics: MetricsServer = await serveMetrics(listen, this.#metrics, () => this.#readiness());
    const admin: AdminServer = await serveAdmin(this.#config.admin.socket, {
      snapshotFolder: this.#config.snapshot.path,
      status: () => this.#status(),
      changes: this.#changes,
      inForce: () => this.#reconciler.applied,
      matcher: () => this.#matcher,
      interfaces: this.#interfaces,
      decisions: () => this.#counters.decisions(),
      ownAddresses,
      recent: this.#recent,
      busiest: this.#busiest,
      now: () => new Date(),
    });
    this.#closers.push(
      () => metrics.close(),
      () => admin.close(),
    );
  }
}
