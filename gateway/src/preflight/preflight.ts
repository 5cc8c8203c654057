import { readFile } from 'node:fs/promises';
import { release } from 'node:os';
import { join } from 'node:path';
import { NetlinkSocket } from 'nftables-napi';
import type { Log } from '../log.js';
import { NETLINK_NETFILTER, NetlinkConnection } from '../netlink/connection.js';
import { Attributes, readMessages } from '../netlink/reader.js';
import { NFT_MSG } from '../nft/batch.js';
import type { BaseChain } from '../nft/program.js';
import { fixedChains, type GatewayInterfaces } from '../policy/fixed-chains.js';
import type { Finding } from './finding.js';
import { ForeignTables, findLegacy, foreignFindings, isOurs } from './foreign.js';
import { parseKernelVersion, versionFindings } from './kernel-version.js';
import { type Feature, features, probeFeatures } from './probe.js';
import { findSysctls } from './sysctls.js';

/** `NFNLGRP_NFTABLES`; `NFT_MSG_NEWFLOWTABLE` and `DELFLOWTABLE` with their subsystem. */
const NFNLGRP_NFTABLES = 7;
const NEW_FLOWTABLE = (10 << 8) | 22;
const DEL_FLOWTABLE = (10 << 8) | 24;
const NFGENMSG_BYTES = 4;
/** Others change their tables in bursts: one look for each. */
const SETTLE_MS = 500;
/** After a look that failed, as when they change faster than they can be listed. */
const RETRY_MS = 2_000;

/** Events that may change what a look sees: elements never do. */
const CHANGES: ReadonlySet<number> = new Set([
  ...[NFT_MSG.newTable, NFT_MSG.delTable, NFT_MSG.newChain, NFT_MSG.delChain, NFT_MSG.newRule],
  ...[NFT_MSG.delRule, NEW_FLOWTABLE, DEL_FLOWTABLE],
]);

const PROC = '/proc';

export interface PreflightOptions {
  readonly interfaces: GatewayInterfaces;
  /** Where the kernel tells of itself. */
  readonly procRoot?: string;
  /** What is tried; by default all that a gateway with these interfaces may need. */
  readonly features?: readonly Feature[];
}

/** The kernel, or what else is in it, is not fit for the gateway: a line for each reason. */
export class PreflightError extends Error {
  override readonly name = 'PreflightError';

  constructor(findings: readonly Finding[]) {
    super(findings.map(({ name, detail }) => `Cannot start gateway: ${name}: ${detail}`).join('\n'));
  }
}

function baseChains(interfaces: GatewayInterfaces): BaseChain[] {
  const chains = fixedChains({ interfaces, generation: 1, top: undefined });
  return chains.flatMap(({ base }) => (base === undefined ? [] : [base]));
}

async function readText(path: string): Promise<string> {
  return readFile(path, 'utf8').catch(() => '');
}

async function lookAtForeign(interfaces: GatewayInterfaces, procRoot: string): Promise<Finding[]> {
  const connection = new NetlinkConnection(NETLINK_NETFILTER);
  try {
    const foreign = await new ForeignTables(connection, baseChains(interfaces)).look();
    return [...foreignFindings(foreign), await findLegacy(procRoot)];
  } finally {
    connection.close();
  }
}

const interfaceNames = ({ lambda, egress }: GatewayInterfaces) => [...lambda, ...egress];

async function findKernel({ interfaces, procRoot = PROC, ...options }: PreflightOptions): Promise<Finding[]> {
  const { snat } = interfaces;
  const needs = snat && ({ snat: snat.to === 'masquerade' ? 'masquerade' : 'address' } as const);
  const name = release();
  const texts = ['version', 'version_signature'].map((file) => readText(join(procRoot, file)));
  return [
    ...versionFindings(parseKernelVersion(name, ...(await Promise.all(texts))), name),
    ...(await probeFeatures(options.features ?? features(needs ?? {}))),
  ];
}

/**
 * Looks at the kernel of this network namespace: its release and what is known to be wrong with it, what it can do, its
 * settings, and what other tables do. Changes nothing. Needs CAP_NET_ADMIN: rejects with NetlinkError EPERM without.
 */
export async function preflight(options: PreflightOptions): Promise<readonly Finding[]> {
  const { interfaces, procRoot = PROC } = options;
  // Features first: they bring the modules whose settings are then there.
  const kernel = await findKernel(options);
  const hasTables = !kernel.some(({ name, level }) => name === 'feature.inet' && level === 'error');
  return [
    ...kernel,
    ...findSysctls(interfaceNames(interfaces), procRoot),
    ...(hasTables ? await lookAtForeign(interfaces, procRoot) : []),
  ];
}

/**
 * Has `look` called, once for each burst, when tables that are not ours changed or may have; again where it rejects. What
 * the owner of `portId` changes is not looked at.
 */
export function watchForeign(portId: number, look: () => Promise<void>): { close(): void } {
  let timer: NodeJS.Timeout | undefined;
  let looked = Promise.resolve();
  let isClosed = false;
  const lookIn = (delayMs: number) => {
    timer ??= setTimeout(() => {
      timer = undefined;
      looked = looked.then(look).catch(() => {
        if (!isClosed) lookIn(RETRY_MS);
      });
    }, delayMs);
  };
  const changed = () => lookIn(SETTLE_MS);
  const socket = new NetlinkSocket({
    protocol: NETLINK_NETFILTER,
    onReceive: (bytes, lost) => {
      if (lost > 0) changed();
      for (const { type, payload } of readMessages(bytes)) {
        if (timer !== undefined) return;
        if (!CHANGES.has(type)) continue;
        if (!isOurs(payload[0] ?? 0, new Attributes(payload, NFGENMSG_BYTES).string(1))) changed();
      }
    },
  });
  socket.ignore(portId);
  socket.join(NFNLGRP_NFTABLES);
  return {
    close() {
      isClosed = true;
      clearTimeout(timer);
      socket.close();
    },
  };
}

const isForeign = ({ name }: Finding) => name.startsWith('foreign.');
const isSetting = ({ name }: Finding) => name.startsWith('sysctl.');
const key = ({ name, value }: Finding) => `${name} ${value}`;

/**
 * What preflight found, kept true while the gateway runs: settings are read anew for whoever asks, other tables are
 * looked at again when they change.
 */
export class Preflight {
  readonly #options: PreflightOptions;
  readonly #log: Log;
  readonly #watch: { close(): void };
  #kernel: readonly Finding[] = [];
  #foreign: readonly Finding[] = [];

  private constructor(options: PreflightOptions, portId: number, log: Log) {
    this.#options = options;
    this.#log = log;
    this.#watch = watchForeign(portId, () => this.#lookAgain());
  }

  /**
   * Rejects with PreflightError where the gateway can not rely on the kernel. Warnings go to the log. `portId`: by which
   * the gateway changes its table.
   */
  static async start(options: PreflightOptions, portId: number, log: Log): Promise<Preflight> {
    // The watch first: no change falls between the look and it.
    const started = new Preflight(options, portId, log);
    try {
      const findings = await preflight(options);
      const errors = findings.filter(({ level }) => level === 'error');
      if (errors.length > 0) throw new PreflightError(errors);
      started.#kernel = findings.filter((finding) => !isForeign(finding) && !isSetting(finding));
      for (const finding of findings) started.#tell(finding);
      started.#foreign = findings.filter(isForeign);
      return started;
    } catch (error) {
      started.close();
      throw error;
    }
  }

  /** Kernel and tables of others. */
  found(): readonly Finding[] {
    return [...this.#kernel, ...this.#foreign];
  }

  /** Whether the kernel has a feature. */
  has(feature: string): boolean {
    return this.#kernel.some(({ name, value }) => name === `feature.${feature}` && value === 'yes');
  }

  /** Settings as they are now. Cost: a read of each, half a millisecond. */
  settings(): readonly Finding[] {
    const { interfaces, procRoot = PROC } = this.#options;
    return findSysctls(interfaceNames(interfaces), procRoot);
  }

  /** What is not as it should be, a line each. */
  warnings(): string[] {
    const all = [...this.found(), ...this.settings()];
    const findings = all.filter(({ level }) => level === 'warning' || level === 'error');
    return findings.map(({ name, detail }) => `${name}: ${detail}`);
  }

  #tell({ name, level, value, expected, detail }: Finding): void {
    const fields = { value, expected };
    if (level === 'warning') this.#log.warn(`${name}: ${detail}`, fields);
    if (level === 'error') this.#log.error(`${name}: ${detail}`, fields);
  }

  /** A table that begins to write connection marks now is no reason to stop enforcing: it is told. */
  async #lookAgain(): Promise<void> {
    const { interfaces, procRoot = PROC } = this.#options;
    try {
      const before = new Map(this.#foreign.map((finding) => [key(finding), finding]));
      this.#foreign = await lookAtForeign(interfaces, procRoot);
      const now = new Set(this.#foreign.map(key));
      for (const finding of this.#foreign) if (!before.has(key(finding))) this.#tell(finding);
      for (const [id, { name, level, value }] of before) {
        if (!now.has(id) && (level === 'warning' || level === 'error'))
          this.#log.info(`${name}: it is gone`, { value });
      }
    } catch (error) {
      this.#log.warn('tables of others could not be looked at, they will be again', {
        error: error as Error,
      });
      throw error;
    }
  }

  close(): void {
    this.#watch.close();
  }
}
