import { readFileSync } from 'node:fs';
import { chmod, mkdir, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { dirname } from 'node:path';
import { peerCredentials } from 'nftables-napi';
import { z } from 'zod';
import { addMemberships, type OriginsOf } from '../analysis/explain.js';
import { explainAllLive } from '../analysis/live.js';
import type { Changes } from '../changes/changes.js';
import { applyQuestionSchema, revertQuestionSchema, rollbackQuestionSchema } from '../changes/held.js';
import type { Matcher } from '../matcher/matcher.js';
import { type Prefix, printPrefix } from '../net/prefix.js';
import type { GatewayInterfaces } from '../policy/fixed-chains.js';
import type { PolicyInForce } from '../policy/in-force.js';
import { type Origin, originsOf, readOrigins } from '../snapshot/provenance.js';
import type { Snapshot } from '../snapshot/read.js';
import { printableJson } from '../text.js';
import { answerGroups, type GroupAnswer, type Status } from './answers.js';
import type { Busiest } from './busiest.js';
import { answerOf, explainQuestion, questionSchema } from './explain.js';
import { QuestionError } from './question.js';
import type { RecentFlows } from './recent-flows.js';

/** `(uid_t)-1`: nobody has logged in, a service does it. */
const NO_LOGIN = '4294967295';

/** A policy in force and the snapshot it is of; that of the closed program has none. */
export interface InForce {
  readonly policy: PolicyInForce;
  readonly snapshot: Snapshot | undefined;
}

/** What the admin server asks the gateway. */
export interface AdminSources {
  readonly status: () => Promise<Status>;
  readonly changes: Changes;
  readonly inForce: () => InForce | undefined;
  /** Where the snapshot was read from: what explains it is read only when somebody asks. */
  readonly snapshotFolder: string;
  readonly matcher: () => Matcher;
  readonly interfaces: GatewayInterfaces;
  /** How often each rule in force decided, by its name. */
  readonly decisions: () => Promise<ReadonlyMap<string, bigint>>;
  readonly ownAddresses: () => readonly Prefix[];
  readonly recent: RecentFlows;
  readonly busiest: Busiest;
  readonly now: () => Date;
}

export interface AdminServer {
  close(): Promise<void>;
}

function inForce(sources: AdminSources): InForce & { readonly snapshot: Snapshot } {
  const applied = sources.inForce();
  if (applied?.snapshot === undefined) throw new QuestionError('Cannot answer: no snapshot is in force yet');
  return { policy: applied.policy, snapshot: applied.snapshot };
}

/** Without those of members that have expired: the folder tells of the snapshot as it was written. */
function heldOrigins({ groups }: Snapshot, name: string, origins: readonly Origin[]): Origin[] {
  const parts = groups.find((group) => group.name === name)?.parts ?? [];
  const held = new Set(parts.flat().map(printPrefix));
  return origins.filter(({ prefix }) => held.has(prefix));
}

async function answerExplain(sources: AdminSources, query: Record<string, string>) {
  const { policy, snapshot } = inForce(sources);
  const known = { matcher: sources.matcher(), now: sources.now() };
  const explained = explainQuestion(snapshot, known, sources.ownAddresses(), questionSchema.parse(query));
  const read = new Map<string, ReturnType<typeof readOrigins>>();
  const origins: OriginsOf = async (group, address) => {
    const all = read.get(group) ?? readOrigins(sources.snapshotFolder, snapshot, group);
    read.set(group, all);
    return heldOrigins(snapshot, group, originsOf((await all) ?? [], address));
  };
  const told = await Promise.all(explained.map((one) => addMemberships(one, origins)));
  return answerOf(await explainAllLive(told, policy, sources.interfaces));
}

type Answer = (query: Record<string, string>, who: string) => unknown;

function answers(sources: AdminSources): Readonly<Record<string, Answer>> {
  const { changes } = sources;
  return {
    'GET /status': () => sources.status(),
    'GET /explain': (query) => answerExplain(sources, query),
    'GET /decisions': async () =>
      Object.fromEntries([...(await sources.decisions())].map(([rule, count]) => [rule, Number(count)])),
    'GET /groups': async ({ name }) => {
      const { snapshot } = inForce(sources);
      const groups = answerGroups(snapshot, name);
      const origins = name && (await readOrigins(sources.snapshotFolder, snapshot, name));
      if (!origins) return groups;
      return groups.map(
        (group): GroupAnswer => ({ ...group, origins: heldOrigins(snapshot, name, origins) }),
      );
    },
    'GET /inventory': () => inForce(sources).snapshot.inventory,
    'GET /flows': (query) => sources.recent.answer(query),
    'GET /top': (query) => sources.busiest.answer(query),
    'GET /history': () => changes.history(),
    'POST /apply': (query, who) => changes.apply(applyQuestionSchema.parse(query), who),
    'POST /confirm': (_, who) => changes.confirm(who),
    'POST /revert': (query, who) => changes.revert(revertQuestionSchema.parse(query).why, who),
    'POST /rollback': (query, who) => changes.rollback(rollbackQuestionSchema.parse(query), who),
    'POST /release': (_, who) => changes.release(who),
  };
}

/** Who asks: the kernel's word for it, and the user who logged in where the audit system keeps that. */
function peerOf({ socket }: IncomingMessage): string {
  const { fd } = (socket as unknown as { readonly _handle: { readonly fd: number } })._handle;
  const { uid, pid } = peerCredentials(fd);
  let login = NO_LOGIN;
  try {
    login = readFileSync(`/proc/${pid}/loginuid`, 'utf8').trim();
  } catch {
    // It has ended meanwhile, or the kernel keeps none.
  }
  return login === NO_LOGIN ? `uid ${uid}` : `uid ${uid} (login ${login})`;
}

async function respond(
  known: Readonly<Record<string, Answer>>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const url = URL.parse(request.url ?? '/', 'http://admin');
  const send = (status: number, value: unknown) => {
    response.writeHead(status, { 'content-type': 'application/json; charset=utf-8' });
    response.end(`${printableJson(value)}\n`);
  };
  const name = `${request.method} ${url?.pathname}`;
  const answer = Object.hasOwn(known, name) ? known[name] : undefined;
  if (url === null || answer === undefined) {
    return send(404, { error: `Cannot answer: ${request.method} ${request.url} is not known` });
  }
  try {
    send(200, await answer(Object.fromEntries(url.searchParams), peerOf(request)));
  } catch (error) {
    if (error instanceof QuestionError) return send(422, { error: error.message });
    if (error instanceof z.ZodError) return send(422, { error: `Cannot answer: ${z.prettifyError(error)}` });
    send(500, { error: (error as Error).message });
  }
}

/** Serves the CLI on a UNIX socket that only root, and who runs the gateway, can open. */
export async function serveAdmin(socket: string, sources: AdminSources): Promise<AdminServer> {
  await mkdir(dirname(socket), { recursive: true });
  await rm(socket, { force: true });
  const known = answers(sources);
  const server = createServer((request, response) => void respond(known, request, response));
  // Nobody else may connect in the moment between its making and the chmod.
  const umask = process.umask(0o177);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(socket, resolve);
  }).finally(() => process.umask(umask));
  await chmod(socket, 0o600);
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
