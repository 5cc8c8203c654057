import { Resolver } from 'node:dns/promises';

/** What a name was found to be. */
export interface NameAnswer {
  readonly addresses: readonly string[];
  /** Of the shortest-lived of them. */
  readonly ttlSeconds: number;
}

export type Lookup = (name: string) => Promise<NameAnswer>;

const ATTEMPT_MS = 2_000;
const ATTEMPTS = 2;
/** No answer of this family: the other may have one. */
const NOTHING = new Set(['ENODATA', 'ENOTFOUND']);

/**
 * Asks the given servers, or the system's, for IPv4 and IPv6 addresses of names. A name without any is an error:
 * what was known of it counts for more.
 */
export function createLookup(servers: readonly string[]): Lookup {
  const resolver = new Resolver({ timeout: ATTEMPT_MS, tries: ATTEMPTS });
  if (servers.length > 0) resolver.setServers(servers);
  const ask = async (name: string, family: 4 | 6) => {
    try {
      const found =
        family === 4 ? resolver.resolve4(name, { ttl: true }) : resolver.resolve6(name, { ttl: true });
      return await found;
    } catch (error) {
      if (NOTHING.has((error as NodeJS.ErrnoException).code ?? '')) return [];
      throw error;
    }
  };
  return async (name) => {
    const records = (await Promise.all([ask(name, 4), ask(name, 6)])).flat();
    if (records.length === 0) throw new Error(`Cannot resolve name: ${name} has no address`);
    return {
      addresses: records.map(({ address }) => address),
      ttlSeconds: Math.min(...records.map(({ ttl }) => ttl)),
    };
  };
}
