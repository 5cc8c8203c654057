import { createConnection } from 'node:net';

/**
 * `streams.js COUNT FROM|TO|PORT …` holds so many TCP connections on each, to echo servers, on which something is
 * always under way in both directions. Prints "ready" when all are open; when standard input ends prints what
 * became of each as JSON.
 */
const SEND_MS = 20;
const PIECE = Buffer.alloc(64, 'x');

/** What became of a connection. */
export interface StreamEnd {
  readonly bytes: number;
  readonly hasEnded: boolean;
  /** The longest time without an answer, up to the end. */
  readonly silentMs: number;
  /** Since the last answer. */
  readonly lastMs: number;
}

const [count, ...routes] = process.argv.slice(2);
const streams = routes.flatMap((route) => {
  const [from, to, port] = route.split('|') as [string, string, string];
  return Array.from({ length: Number(count) }, () => {
    const state = { bytes: 0, hasEnded: false, silentMs: 0, atMs: performance.now() };
    const socket = createConnection({ host: to, port: Number(port), localAddress: from, noDelay: true });
    const opened = new Promise<void>((resolve) => socket.once('connect', () => resolve()));
    socket.once('connect', () => {
      state.atMs = performance.now();
      setInterval(() => socket.writable && socket.write(PIECE), SEND_MS);
    });
    socket.on('data', (chunk) => {
      const now = performance.now();
      state.bytes += chunk.length;
      state.silentMs = Math.max(state.silentMs, now - state.atMs);
      state.atMs = now;
    });
    const end = () => {
      state.hasEnded = true;
    };
    socket.on('error', end);
    socket.on('close', end);
    return { state, opened };
  });
});
await Promise.all(streams.map(({ opened }) => opened));
process.stdout.write('ready\n');
process.stdin.resume().once('end', () => {
  const now = performance.now();
  const ends = streams.map(({ state: { atMs, silentMs, ...rest } }): StreamEnd => {
    const lastMs = now - atMs;
    return { ...rest, lastMs, silentMs: Math.max(silentMs, lastMs) };
  });
  process.stdout.write(`${JSON.stringify(ends)}\n`, () => process.exit(0));
});
