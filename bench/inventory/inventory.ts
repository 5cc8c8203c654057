import { type ChildProcess, fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  watch,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { SendMessageCommand, SQSClient } from '@aws-sdk/client-sqs';
import { clientArguments } from 'sluice-controller-client/command.js';
import type { Manifest } from 'sluice-gateway/snapshot/format.js';
import { eventOf } from 'sluice-test/support/aws/event.js';
import { GATEWAY_CONFIG, GatewayProcess } from '../gateway-process.js';
import { type Bench, type Report, spreadOf } from '../harness.js';
import { processBytes } from '../memory-use.js';
import {
  ACCOUNTS,
  accountId,
  cidrOf,
  FUNCTIONS,
  functionOf,
  keyOf,
  type Probe,
  policy,
  QUEUE,
  REGION,
  SUBNETS,
} from './cloud.js';

const ENDPOINT = fileURLToPath(new URL('endpoint.js', import.meta.url));
/** Each gives a function a tag and takes it back. */
const ROUNDS = 100;
/** Before them, and not counted: client and gateway have just started. */
const WARM_UP_ROUNDS = 10;
/** Between two events. */
const PAUSE_MS = 250;
const WAIT_MS_MAX = 60_000;
const MIB = 1 << 20;

const CONFIG = (queueUrl: string) => `${GATEWAY_CONFIG}policy: { path: policy.yaml }
inventory:
  aws:
    refreshSeconds: 300
    events: { queueUrl: "${queueUrl}", region: ${REGION}, profile: a0 }
    accounts:
${Array.from({ length: ACCOUNTS }, (_, a) => `      - { id: "${accountId(a)}", regions: [${REGION}], profile: a${a} }`).join('\n')}
`;

const CREDENTIALS = Array.from(
  { length: ACCOUNTS },
  (_, account) => `[a${account}]\naws_access_key_id = ${keyOf(account)}\naws_secret_access_key = x\n`,
).join('');

/** A folder with everything that a client reads, and the snapshot that it writes. */
class Site {
  readonly folder = mkdtempSync(join(tmpdir(), 'sluice-bench-'));

  constructor(queueUrl: string) {
    mkdirSync(join(this.folder, 'snapshot'));
    writeFileSync(join(this.folder, 'sluice.yaml'), CONFIG(queueUrl));
    writeFileSync(join(this.folder, 'policy.yaml'), policy());
    writeFileSync(join(this.folder, 'credentials'), CREDENTIALS);
    writeFileSync(join(this.folder, 'config'), '');
  }

  get environment(): NodeJS.ProcessEnv {
    return {
      PATH: process.env.PATH,
      AWS_SHARED_CREDENTIALS_FILE: join(this.folder, 'credentials'),
      AWS_CONFIG_FILE: join(this.folder, 'config'),
      AWS_EC2_METADATA_DISABLED: 'true',
    };
  }

  /** Resolves when the snapshot's manifest is as wanted. */
  async until(isWanted: (manifest: Manifest) => boolean): Promise<void> {
    const path = join(this.folder, 'snapshot', 'manifest.json');
    const holds = () => existsSync(path) && isWanted(JSON.parse(readFileSync(path, 'utf8')) as Manifest);
    // Before the first look: what comes between them would be missed.
    const watcher = watch(join(this.folder, 'snapshot'));
    const timer = setTimeout(
      () => watcher.emit('error', new Error('Cannot measure: no snapshot as wanted')),
      WAIT_MS_MAX,
    );
    try {
      while (!holds()) await once(watcher, 'change');
    } finally {
      clearTimeout(timer);
      watcher.close();
    }
  }

  /** Which manifest is there, and since when it is in its place, in milliseconds since 1970: it is on disk before. */
  manifest(): { readonly revision: number; readonly placedMs: number } {
    const path = join(this.folder, 'snapshot', 'manifest.json');
    const { revision } = JSON.parse(readFileSync(path, 'utf8')) as Manifest;
    return { revision, placedMs: statSync(path).ctimeMs };
  }

  /** The prefixes of a group in the snapshot. */
  prefixesOf({ groups }: Manifest, name: string): string[] {
    const { bodies } = groups.find((group) => group.name === name)!;
    return bodies.flatMap((digest) => {
      const body = readFileSync(join(this.folder, 'snapshot', 'bodies', digest), 'utf8');
      return (JSON.parse(body) as { prefixes: string[] }).prefixes;
    });
  }
}

const tagging = ({ account, name, tags }: Probe) =>
  eventOf({ account, region: REGION }, 'TagResource20170331v2', {
    resource: `arn:aws:lambda:${REGION}:${account}:function:${name}`,
    tags,
  });

/**
 * Tags one function after the other, and takes the tag away again; milliseconds from event to snapshot, and from the
 * snapshot's manifest to the kernel.
 */
async function followEvents(
  report: Report,
  site: Site,
  gateway: GatewayProcess,
  endpoint: ChildProcess,
  url: string,
): Promise<{ readonly toSnapshot: number[]; readonly toKernel: number[] }> {
  const credentials = { accessKeyId: keyOf(0), secretAccessKey: 'x' };
  const sqs = new SQSClient({ region: REGION, endpoint: url, credentials });
  const [toSnapshot, toKernel]: [number[], number[]] = [[], []];
  for (let round = 0; round < WARM_UP_ROUNDS + ROUNDS; round++) {
    const [number, index] = [round % ACCOUNTS, (7 * round) % (FUNCTIONS / ACCOUNTS)];
    const fn = functionOf(number, index);
    const probe: Probe = { account: accountId(number), name: fn.name, tags: { ...fn.tags, probe: '1' } };
    for (const [step, isMember] of [
      [probe, true],
      [{ ...probe, tags: fn.tags! }, false],
    ] as const) {
      endpoint.send(step);
      await once(endpoint, 'message');
      const startMs = performance.now();
      const QueueUrl = `${url}/${accountId(0)}/${QUEUE}`;
      await sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: tagging(step) }));
      const wanted = isMember ? cidrOf(number, index % (SUBNETS / ACCOUNTS)) : '';
      await site.until((manifest) => site.prefixesOf(manifest, 'probe').join() === wanted);
      toSnapshot.push(performance.now() - startMs);
      const { revision, placedMs } = site.manifest();
      toKernel.push((await gateway.inForce(revision)) - placedMs);
      await delay(PAUSE_MS);
    }
    report.progress(`event ${round + 1} of ${WARM_UP_ROUNDS + ROUNDS}`);
  }
  sqs.destroy();
  const counted = (samples: number[]) => samples.slice(2 * WARM_UP_ROUNDS);
  return { toSnapshot: counted(toSnapshot), toKernel: counted(toKernel) };
}

async function run(report: Report): Promise<void> {
  const endpoint = fork(ENDPOINT);
  const [url] = (await once(endpoint, 'message')) as [string];
  const site = new Site(`${url}/${accountId(0)}/${QUEUE}`);
  const startMs = performance.now();
  const client = spawn(process.execPath, clientArguments(join(site.folder, 'sluice.yaml')), {
    env: { ...site.environment, AWS_ENDPOINT_URL: url },
    stdio: 'ignore',
  });
  let gateway: GatewayProcess | undefined;
  try {
    const isWhole = (manifest: Manifest) =>
      manifest.groups.every(({ name, prefixCount }) => name === 'probe' || prefixCount > 0);
    await site.until(isWhole);
    report.figure('fullSyncSeconds', (performance.now() - startMs) / 1000);
    const known = JSON.parse(readFileSync(join(site.folder, 'snapshot', 'inventory.json'), 'utf8')) as {
      functions: object[];
      subnets: object[];
    };
    if (known.functions.length !== FUNCTIONS || known.subnets.length !== SUBNETS)
      throw new Error('Cannot measure: the client does not know everything');
    gateway = new GatewayProcess(site.folder);
    await gateway.inForce(site.manifest().revision);
    const { toSnapshot, toKernel } = await followEvents(report, site, gateway, endpoint, url);
    for (const [name, samples] of Object.entries({
      eventToSnapshot: toSnapshot,
      snapshotToKernel: toKernel,
    })) {
      report.figure(`${name}Ms`, spreadOf(samples));
      report.figure(`${name}P99Ms`, samples.toSorted((a, b) => a - b)[Math.ceil(samples.length * 0.99) - 1]!);
    }
    report.figure('rssMiB', processBytes(client.pid!, 'VmHWM') / MIB);
  } finally {
    gateway?.remove();
    client.kill();
    endpoint.disconnect();
    await Promise.all([once(client, 'exit'), once(endpoint, 'exit')]);
    rmSync(site.folder, { recursive: true });
  }
}

export const inventory: Bench = {
  question: 'how fast and how small is what follows AWS? 10,000 functions, 2,000 subnets, 20 accounts',
  run,
};
