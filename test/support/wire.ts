import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { frame, readFrame, type SeenPacket, type TestPacket } from './frames.js';
import type { Place } from './namespace.js';

/** The compiled tests lie one folder below the sources; the script is not compiled. */
export const RAW = fileURLToPath(new URL('../../support/raw.py', import.meta.url));
/** Debian's own Python, whatever else is first in the path. */
export const PYTHON = '/usr/bin/python3';

/** Sends packets as frames from an interface of a place to the next hop with the given hardware address. */
export function sendPackets(
  place: Place,
  interfaceName: string,
  packets: readonly TestPacket[],
  macs: { readonly src: string; readonly dst: string },
): void {
  const input = packets.map((packet) => frame(packet, macs).toString('hex')).join('\n');
  place.run(PYTHON, [RAW, 'send', interfaceName], { input: `${input}\n` });
}

/** A running capture of what comes in on an interface. */
export interface Capture {
  /** Ends the capture when the wire has been silent for a moment, and gives what it saw. */
  stop(): Promise<readonly SeenPacket[]>;
}

export async function capturePackets(place: Place, interfaceName: string): Promise<Capture> {
  const child = place.spawn(PYTHON, [RAW, 'capture', interfaceName]);
  const chunks: Buffer[] = [];
  child.stdout!.on('data', (chunk: Buffer) => chunks.push(chunk));
  const ended = once(child, 'close');
  await once(child.stdout!, 'data');
  return {
    stop: async () => {
      child.stdin!.end();
      await ended;
      const lines = Buffer.concat(chunks).toString().trim().split('\n').slice(1);
      return lines.map((line) => readFrame(Buffer.from(line, 'hex'))).filter((seen) => seen !== undefined);
    },
  };
}
