import { createSocket } from 'node:dgram';
import type { Attempt } from './attempt.js';
import { patience } from './patience.js';

/** Sends a datagram every few milliseconds to each destination given as JSON, until it is ended. */
const SEND_MS = 2 * patience;
const destinations = JSON.parse(process.argv[2]!) as Pick<Attempt, 'from' | 'to' | 'port'>[];
for (const { from, to, port } of destinations) {
  const socket = createSocket(to.includes(':') ? 'udp6' : 'udp4');
  // Refused or unreachable for a moment: what arrives is counted elsewhere.
  socket.on('error', () => undefined);
  socket.bind(0, from, () => setInterval(() => socket.send('.', port, to), SEND_MS));
}
