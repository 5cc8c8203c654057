import { createConnection, createServer, type Socket } from 'node:net';

/**
 * One end of TCP connections: `peer.js listen ADDRESS PORT`, or `peer.js connect FROM TO PORT`. Prints "ready PORT" when
 * it listens or is connected, "got" for each piece of data and "ended CODE" for each end of a connection. On the input
 * "talk" all its connections send a piece every few milliseconds, on "hush" none, after it has printed "hushed".
 */
const TALK_MS = 20;
const [verb, ...words] = process.argv.slice(2) as [string, ...string[]];
const sockets = new Set<Socket>();
const say = (...text: (string | number)[]) => process.stdout.write(`${text.join(' ')}\n`);

function take(socket: Socket): void {
  let code = 'CLOSED';
  sockets.add(socket);
  socket.setNoDelay(true);
  socket.on('data', () => say('got'));
  socket.on('error', (error: NodeJS.ErrnoException) => {
    code = error.code ?? error.message;
  });
  socket.on('close', () => {
    sockets.delete(socket);
    say('ended', code);
  });
}

if (verb === 'listen') {
  const [host, port] = words as [string, string];
  createServer(take).listen(Number(port), host, () => say('ready', port));
} else {
  const [from, to, port] = words as [string, string, string];
  const socket = createConnection({ host: to, port: Number(port), localAddress: from });
  take(socket);
  socket.once('connect', () => say('ready', socket.localPort!));
}

let talking: NodeJS.Timeout | undefined;
process.stdin.on('data', (chunk) => {
  clearInterval(talking);
  if (chunk.toString().trim() !== 'talk') {
    say('hushed');
    return;
  }
  talking = setInterval(() => {
    for (const socket of sockets) socket.write('a piece');
  }, TALK_MS);
});
