import { EC2Client } from '@aws-sdk/client-ec2';
import { LambdaClient } from '@aws-sdk/client-lambda';
import { ResourceGroupsTaggingAPIClient } from '@aws-sdk/client-resource-groups-tagging-api';
import { SQSClient } from '@aws-sdk/client-sqs';
import { fromIni, fromTemporaryCredentials } from '@aws-sdk/credential-providers';
import { type Rate, TokenBucket } from './rate.js';

/** As whom to ask. */
export interface Identity {
  /** A profile of the SDK's shared configuration; absent, the usual chain. */
  readonly profile?: string;
  /** A role to assume with those credentials. */
  readonly roleArn?: string;
  readonly externalId?: string;
}

/** Where one set of clients asks, and as whom. */
export interface ClientKey extends Identity {
  readonly accountId: string;
  readonly region: string;
}

export interface Clients {
  readonly lambda: LambdaClient;
  readonly ec2: EC2Client;
  readonly tagging: ResourceGroupsTaggingAPIClient;
}

/** Keeps one set of clients for each account and region, with their connections, retry and rate budgets. */
export interface ClientPool {
  of(key: ClientKey): Clients;
  queue(key: Identity & { readonly region: string }): SQSClient;
  /** Ends all connections. The pool makes new clients if it is asked again. */
  close(): void;
}

/**
 * What is left to the account's other users is a third: AWS allows 15 calls a second to Lambda's control plane
 * (Lambda quotas), 20 with bursts of 100 to EC2's paged Describe calls (EC2 API throttling), and 15 to
 * GetResources (Tagging API quotas), each by account and region.
 */
const RATES = {
  lambda: { perSecond: 10, burst: 10 },
  ec2: { perSecond: 14, burst: 50 },
  tagging: { perSecond: 10, burst: 10 },
} as const satisfies Record<string, Rate>;

/** AWS answers within seconds: what does not is asked again, and holds nobody up for ever. */
const TIME_LIMITS = { connectionTimeout: 5_000, requestTimeout: 30_000, throwOnRequestTimeout: true };
/** A queue answers when it has something, or after 20 s. */
const QUEUE_TIME_LIMITS = { ...TIME_LIMITS, requestTimeout: 40_000 };

type Credentials = LambdaClient['config']['credentials'];
type Next = (args: unknown) => Promise<unknown>;

/** What the clients of all services have in common; their own types differ by what they send. */
interface Limited {
  addRelativeTo(
    middleware: (next: Next) => Next,
    options: { name: string; relation: 'after'; toMiddleware: string },
  ): void;
}

/** Every attempt takes a token, repeated ones too. */
function limit<T extends Clients[keyof Clients]>(client: T, rate: Rate): T {
  const bucket = new TokenBucket(rate);
  const stack = client.middlewareStack as unknown as Limited;
  stack.addRelativeTo(
    (next) => async (args) => {
      await bucket.take();
      return next(args);
    },
    { name: 'sluiceRate', relation: 'after', toMiddleware: 'retryMiddleware' },
  );
  return client;
}

/** Credentials of an identity: none for the usual chain. */
function credentialsOf({ profile, roleArn, externalId }: Identity, region: string) {
  const own = profile === undefined ? {} : { masterCredentials: fromIni({ profile }) };
  if (roleArn === undefined) return profile === undefined ? {} : { profile };
  const params = {
    RoleArn: roleArn,
    RoleSessionName: 'sluice',
    ...(externalId === undefined ? {} : { ExternalId: externalId }),
  };
  return { credentials: fromTemporaryCredentials({ ...own, params, clientConfig: { region } }) };
}

/**
 * Credentials, endpoint (`AWS_ENDPOINT_URL`) and attempts (`AWS_MAX_ATTEMPTS`) come from the SDK's usual
 * chain. `AWS_RETRY_MODE` overrides the mode, which is `adaptive` here: when others use up an account's rate,
 * `standard` gives a whole refresh up after three attempts of one call, where `adaptive` slows down.
 */
export function createClientPool(): ClientPool {
  const pool = new Map<string, Clients>();
  const queues: SQSClient[] = [];
  const credentials = new Map<string, Credentials>();
  const mode = () => (process.env.AWS_RETRY_MODE === undefined ? { retryMode: 'adaptive' } : {});
  const make = ({ accountId, region, ...identity }: ClientKey): Clients => {
    // The account's first client caches its credentials for all: a role is assumed once, not for each client.
    const account = JSON.stringify([accountId, identity]);
    const known = credentials.get(account);
    const how = known === undefined ? credentialsOf(identity, region) : { credentials: known };
    const lambda = new LambdaClient({ region, ...mode(), ...how, requestHandler: TIME_LIMITS });
    credentials.set(account, lambda.config.credentials);
    const { requestHandler } = lambda.config;
    const config = { region, ...mode(), credentials: lambda.config.credentials, requestHandler };
    return {
      lambda: limit(lambda, RATES.lambda),
      ec2: limit(new EC2Client(config), RATES.ec2),
      tagging: limit(new ResourceGroupsTaggingAPIClient(config), RATES.tagging),
    };
  };
  return {
    of: (key) => {
      const name = JSON.stringify(key);
      const clients = pool.get(name) ?? make(key);
      pool.set(name, clients);
      return clients;
    },
    queue: ({ region, ...identity }) => {
      const how = { ...mode(), ...credentialsOf(identity, region), requestHandler: QUEUE_TIME_LIMITS };
      const client = new SQSClient({ region, ...how });
      queues.push(client);
      return client;
    },
    close: () => {
      for (const clients of pool.values()) for (const client of Object.values(clients)) client.destroy();
      for (const client of queues.splice(0)) client.destroy();
      pool.clear();
      credentials.clear();
    },
  };
}
