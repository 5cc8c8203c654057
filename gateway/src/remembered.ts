import { createHash } from 'node:crypto';
import { readFile, readlink, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import type { Log } from './log.js';
import { type Prefix, parsePrefix, printPrefix } from './net/prefix.js';
import type { NftKernel } from './nft/kernel.js';
import { fixedChains, type GatewayInterfaces } from './policy/fixed-chains.js';
import type { PolicyInForce } from './policy/in-force.js';
import { writeWhole } from './snapshot/folder.js';
import type { Snapshot } from './snapshot/read.js';

/** What a process that ends leaves to the next: which program is in the kernel, and what it was made of. */
export interface Remembered {
  readonly fingerprint: string;
  readonly generation: number;
  readonly numbers: readonly (readonly [rule: string, number: number])[];
  /** The gateway's addresses then. */
  readonly own: readonly string[];
}

const rememberedSchema = z.strictObject({
  fingerprint: z.string(),
  generation: z.int(),
  numbers: z.array(z.tuple([z.string(), z.int()])),
  own: z.array(z.string()),
  kernel: z.string(),
});

const { version } = JSON.parse(await readFile(new URL('../package.json', import.meta.url), 'utf8')) as {
  readonly version: string;
};

const IN_FORCE_FILE = 'in-force.json';
/** Events of transactions that were over have been read after this. */
const EVENTS_MS = 100;

/** What a program is made of: where it is equal, so is the program, but for the names of content. */
export function fingerprintOf(
  { policyDigest, groups, parts }: Snapshot,
  { rules }: PolicyInForce,
  interfaces: GatewayInterfaces,
  ownAddresses: readonly Prefix[],
): string {
  const digests = new Map([...parts].map(([digest, part]) => [part, digest]));
  const made = {
    version,
    fixed: fixedChains({ interfaces, generation: 1, top: undefined }),
    own: ownAddresses.map(printPrefix).sort(),
    policyDigest,
    rules: rules.map(({ name, number }) => [name, number]),
    groups: groups.map((group) => [group.name, ...group.parts.map((part) => digests.get(part))]),
  };
  const text = JSON.stringify(made, (_, value) => (typeof value === 'bigint' ? String(value) : value));
  return createHash('sha256').update(text).digest('hex');
}

/**
 * Keeps on disk which program is in force, so that a process that starts with the same wanted writes nothing. It
 * holds for one boot, one network namespace and one id of nf_tables' ruleset, which every transaction of anyone
 * changes: what may have been touched is written anew.
 */
export class ProgramMemory {
  readonly #path: string;
  readonly #nft: Pick<NftKernel, 'rulesetId'>;
  readonly #log: Log;

  constructor(statePath: string, kernel: Pick<NftKernel, 'rulesetId'>, log: Log) {
    this.#path = join(statePath, IN_FORCE_FILE);
    this.#nft = kernel;
    this.#log = log;
  }

  /** What is known to be in the kernel untouched. To be asked before this process writes anything there. */
  async recall(): Promise<Remembered | undefined> {
    const { kernel, ...remembered } = (await this.#read()) ?? {};
    const isUntouched = kernel !== undefined && kernel === (await this.#kernel());
    return isUntouched ? (remembered as Remembered) : undefined;
  }

  /** The gateway's addresses when it last ran, in this boot or another: before the network is up it has none. */
  async addressesThen(): Promise<Prefix[]> {
    return ((await this.#read())?.own ?? []).map(parsePrefix);
  }

  async #read(): Promise<z.output<typeof rememberedSchema> | undefined> {
    try {
      return rememberedSchema.parse(JSON.parse(await readFile(this.#path, 'utf8')));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
        this.#log.warn('what was in force is not known, it is written anew', { error: error as Error });
      return undefined;
    }
  }

  /**
   * Notes it, unless it is not so any more when the event of a transaction before has had time to come: the id that it
   * left behind must not stand for a table that somebody else changed.
   */
  async remember(remembered: Remembered, isStillSo: () => boolean): Promise<void> {
    try {
      const kernel = await this.#kernel();
      await delay(EVENTS_MS);
      if (kernel !== (await this.#kernel()) || !isStillSo()) return;
      await writeWhole(this.#path, JSON.stringify({ ...remembered, kernel }));
    } catch (error) {
      this.#log.debug('what is in force could not be noted', { error: error as Error });
      // What stays names another ruleset, which nobody finds.
      await rm(this.#path, { force: true }).catch(() => undefined);
    }
  }

  async #kernel(): Promise<string> {
    const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8');
    return `${boot.trim()} ${await readlink('/proc/self/ns/net')} ${await this.#nft.rulesetId()}`;
  }
}
