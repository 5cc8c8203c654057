import { chmod, mkdir, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { dirname } from 'node:path';
import { z } from 'zod';
import type { Prefix } from '../net/prefix.js';
import { readOrigins } from '../snapshot/provenance.js';
import type { Snapshot } from '../snapshot/read.js';
import { printableJson } from '../text.js';
import {
  answerExplain,
  answerGroups,
  type GroupAnswer,
  QuestionError,
  questionSchema,
  type RecentFlows,
  type Status,
} from './answers.js';

/** What the admin server asks the gateway. */
export interface AdminSources {
  readonly status: () => Promise<Status>;
  /** The snapshot in force. */
  readonly snapshot: () => Snapshot | undefined;
  /** Where it was read from: what explains it is read only when somebody asks. */
  readonly snapshotFolder: string;
  readonly ownAddresses: () => readonly Prefix[];
  readonly recent: RecentFlows;
  readonly now: () => Date;
}

export interface AdminServer {
  close(): Promise<void>;
}

function inForce(sources: AdminSources): Snapshot {
  const snapshot = sources.snapshot();
  if (snapshot === undefined) throw new QuestionError('Cannot answer: no snapshot is in force yet');
  return snapshot;
}

type Answer = (query: Record<string, string>) => unknown;

function answers(sources: AdminSources): Readonly<Record<string, Answer>> {
  return {
    '/status': () => sources.status(),
    '/explain': (query) =>
      answerExplain(inForce(sources), sources.ownAddresses(), questionSchema.parse(query), sources.now()),
    '/groups': async ({ name }) => {
      const snapshot = inForce(sources);
      const groups = answerGroups(snapshot, name);
      const origins = name && (await readOrigins(sources.snapshotFolder, snapshot, name));
      return origins ? groups.map((group): GroupAnswer => ({ ...group, origins })) : groups;
    },
    '/inventory': () => inForce(sources).inventory,
    '/flows': ({ since }) => sources.recent.since(Number(since ?? 0)),
  };
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
  const answer = url !== null && Object.hasOwn(known, url.pathname) ? known[url.pathname] : undefined;
  if (url === null || answer === undefined || request.method !== 'GET') {
    return send(404, { error: `Cannot answer: ${request.method} ${request.url} is not known` });
  }
  try {
    send(200, await answer(Object.fromEntries(url.searchParams)));
  } catch (error) {
    if (error instanceof QuestionError) return send(422, { error: error.message });
    if (error instanceof z.ZodError) return send(422, { error: `Cannot explain: ${z.prettifyError(error)}` });
    send(500, { error: (error as Error).message });
  }
}

/** Serves the CLI on a UNIX socket that only root, and who runs the gateway, can open. */
export async function serveAdmin(socket: string, sources: AdminSources): Promise<AdminServer> {
  await mkdir(dirname(socket), { recursive: true });
  await rm(socket, { force: true });
  const known = answers(sources);
  const server = createServer((request, response) => void respond(known, request, response));
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(socket, resolve);
  });
  await chmod(socket, 0o600);
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
