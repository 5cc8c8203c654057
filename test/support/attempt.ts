import { createSocket } from 'node:dgram';
import { createConnection } from 'node:net';
import { patience } from './patience.js';

/** One try to reach a server, from one address of a function. */
export interface Attempt {
  readonly from: string;
  readonly to: string;
  readonly port: number;
  readonly protocol: 'tcp' | 'udp';
}

const ANSWER_MS_MAX = 1_200 * patience;

function tcp({ from, to, port }: Attempt): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ host: to, port, localAddress: from });
    const end = (passed: boolean) => {
      clearTimeout(timer);
      socket.destroy();
      resolve(passed);
    };
    const timer = setTimeout(() => end(false), ANSWER_MS_MAX);
    socket.once('connect', () => socket.write('hello'));
    socket.once('data', () => end(true));
    socket.once('error', () => end(false));
  });
}

function udp({ from, to, port }: Attempt): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createSocket(to.includes(':') ? 'udp6' : 'udp4');
    const end = (passed: boolean) => {
      clearTimeout(timer);
      socket.close();
      resolve(passed);
    };
    const timer = setTimeout(() => end(false), ANSWER_MS_MAX);
    socket.once('message', () => end(true));
    socket.once('error', () => end(false));
    socket.bind(0, from, () => socket.send('hello', port, to));
  });
}

/** Makes the attempts given as JSON, all at once, and prints whether each was answered, as JSON. */
const attempts = JSON.parse(process.argv[2]!) as Attempt[];
const answered = await Promise.all(
  attempts.map((attempt) => (attempt.protocol === 'tcp' ? tcp(attempt) : udp(attempt))),
);
process.stdout.write(`${JSON.stringify(answered)}\n`);
