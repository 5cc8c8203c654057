import { createConnection } from 'node:net';

/** A live TCP connection: `stream.js FROM TO PORT` sends a byte every few milliseconds and prints the time of each answer. */
const SEND_MS = 20;
const [from, to, port] = process.argv.slice(2) as [string, string, string];
const socket = createConnection({ host: to, port: Number(port), localAddress: from, noDelay: true });
socket.on('data', () => process.stdout.write(`${Date.now()}\n`));
socket.on('error', () => process.exit(0));
socket.on('close', () => process.exit(0));
socket.once('connect', () => setInterval(() => socket.write('.'), SEND_MS));
