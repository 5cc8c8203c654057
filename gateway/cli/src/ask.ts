/** The gateway can't be asked, or has no answer. */
export class AskError extends Error {
  override readonly name = 'AskError';
}

type Query = Readonly<Record<string, string>>;

/** Asks a running gateway over its admin socket. Rejects with AskError in words for the user. */
export const ask = <Answer>(socket: string, path: string, query: Query = {}) =>
  request<Answer>('GET', socket, path, query);

/** Has a running gateway do something. Rejects as `ask` does. */
export const tell = <Answer>(socket: string, path: string, query: Query = {}) =>
  request<Answer>('POST', socket, path, query);

async function request<Answer>(
  method: 'GET' | 'POST',
  socket: string,
  path: string,
  query: Query,
): Promise<Answer> {
  const { Client } = await import('undici');
  const client = new Client('http://admin', { socketPath: socket });
  try {
    const search = new URLSearchParams(query).toString();
    const { statusCode, body } = await client.request({
      method,
      path: search ? `${path}?${search}` : path,
    });
    const answer = (await body.json()) as Answer & { error?: string };
    if (statusCode !== 200)
      throw new AskError(answer.error ?? `Cannot ask gateway: it answered ${statusCode}`);
    return answer;
  } catch (cause) {
    if (cause instanceof AskError) throw cause;
    const code = (cause as NodeJS.ErrnoException).code;
    const why =
      code === 'ENOENT' || code === 'ECONNREFUSED'
        ? `no gateway listens on ${socket}: start one with sluice run, or name another socket with --socket`
        : code === 'EACCES'
          ? `${socket} may be opened by root and by who runs the gateway only`
          : (cause as Error).message;
    throw new AskError(`Cannot ask gateway: ${why}`, { cause });
  } finally {
    await client.close();
  }
}
