import { type ChildProcess, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { frame, type TestPacket } from 'sluice-test/support/frames.js';
import type { Place } from 'sluice-test/support/namespace.js';

/** The compiled benchmarks lie in a folder of their own; the program is compiled where it is run. */
const SOURCE = fileURLToPath(new URL('../../wire/wire.c', import.meta.url));
/** A tag with this bit must not arrive; one without it is the epoch in which it was sent. */
export const DENIED_TAG = 0x8000_0000;

/** Compiles the program that sends and counts frames into a folder, and gives its path. Needs gcc. */
export function compileWire(folder: string): string {
  const program = join(folder, 'wire');
  const { status, stderr, error } = spawnSync('gcc', ['-O2', '-o', program, SOURCE]);
  if (status !== 0) throw new Error(`Cannot compile ${SOURCE}: ${error?.message ?? stderr.toString()}`);
  return program;
}

/** Writes packets as frames for a sender. */
export function writeFrames(
  path: string,
  packets: readonly TestPacket[],
  macs: { readonly src: string; readonly dst: string },
): void {
  const parts = packets.flatMap((packet) => {
    const bytes = frame(packet, macs);
    return [Buffer.from([bytes.length >>> 8, bytes.length & 0xff]), bytes];
  });
  writeFileSync(path, Buffer.concat(parts));
}

/** A running program that takes commands and answers each with a line. */
class Talk {
  readonly #child: ChildProcess;
  readonly #answers: string[] = [];
  readonly #error: Buffer[] = [];
  #wake: () => void = () => {};
  #ended = false;

  constructor(child: ChildProcess, onLine: (line: string) => void) {
    this.#child = child;
    child.stderr!.on('data', (chunk: Buffer) => this.#error.push(chunk));
    child.stdin!.on('error', () => undefined);
    child.once('close', () => {
      this.#ended = true;
      this.#wake();
    });
    createInterface(child.stdout!).on('line', (line) => {
      if (!line.startsWith('=')) return onLine(line);
      this.#answers.push(line);
      this.#wake();
    });
  }

  say(command: string): void {
    this.#child.stdin!.write(`${command}\n`);
  }

  /** The words of the next answer, without its first. */
  async answer(): Promise<string[]> {
    while (this.#answers.length === 0) {
      if (this.#ended) throw new Error(`Cannot use the wire: it ended\n${Buffer.concat(this.#error)}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#answers.shift()!.split(' ').slice(1);
  }

  close(): void {
    this.#child.stdin!.end();
  }
}

function countsOf(words: readonly string[]): Map<number, number> {
  return new Map(words.map((word) => word.split(':').map(Number) as [number, number]));
}

/** What one run sent, and what it took. Forwarding happens in the sender's own time, up to the far end. */
export interface Ran {
  readonly sent: number;
  readonly wallSeconds: number;
  readonly cpuSeconds: number;
}

/** Sends the frames of a file from an interface, again and again in their order. */
export class FrameSender {
  readonly #talk: Talk;

  private constructor(talk: Talk) {
    this.#talk = talk;
  }

  /** `cpu` is the processor that it stays on. */
  static async open(
    place: Place,
    program: string,
    options: { readonly interfaceName: string; readonly frames: string; readonly cpu?: number },
  ): Promise<FrameSender> {
    const { interfaceName, frames, cpu = -1 } = options;
    const child = place.spawn(program, ['send', interfaceName, frames, String(cpu)]);
    const talk = new Talk(child, () => undefined);
    await talk.answer();
    return new FrameSender(talk);
  }

  /** Sends as fast as it can until it has sent so many, or has had so much of the processor. */
  async run(limits: { packets: number; cpuMs: number; shiftPorts?: boolean }): Promise<Ran> {
    this.#talk.say(`run ${limits.packets} ${limits.cpuMs} ${limits.shiftPorts === true ? 1 : 0}`);
    const [sent, wallNs, cpuNs] = (await this.#talk.answer()).map(Number) as [number, number, number];
    return { sent, wallSeconds: wallNs / 1e9, cpuSeconds: cpuNs / 1e9 };
  }

  /** Sends at a rate, at least 1,000 a second, until `stop`. */
  async start(perSecond: number, shiftPorts = false): Promise<void> {
    this.#talk.say(`start ${perSecond} ${shiftPorts ? 1 : 0}`);
    await this.#talk.answer();
  }

  /** Datagrams without the tag for denied ones carry this number from now on; below 65,536. */
  epoch(number: number): void {
    this.#talk.say(`epoch ${number}`);
  }

  /** Ends what `start` began, and gives how many were sent in each epoch. */
  async stop(): Promise<ReadonlyMap<number, number>> {
    this.#talk.say('stop');
    return countsOf(await this.#talk.answer());
  }

  close(): void {
    this.#talk.close();
  }
}

/** Counts what comes in on an interface, by epoch, and tells of each frame that must not. */
export class FrameCounter {
  readonly #talk: Talk;

  private constructor(talk: Talk) {
    this.#talk = talk;
  }

  /** `onDenied` gets the tag of a denied packet, without its high bit, as soon as it has come in. */
  static async open(
    place: Place,
    program: string,
    interfaceName: string,
    onDenied: (tag: number) => void,
  ): Promise<FrameCounter> {
    const talk = new Talk(place.spawn(program, ['count', interfaceName]), (line) => onDenied(Number(line)));
    await talk.answer();
    return new FrameCounter(talk);
  }

  /** What has come in until now; `lost` are frames that were not looked at. */
  async report(): Promise<{ readonly lost: number; readonly counts: ReadonlyMap<number, number> }> {
    this.#talk.say('report');
    const [lost, ...counts] = await this.#talk.answer();
    return { lost: Number(lost), counts: countsOf(counts) };
  }

  close(): void {
    this.#talk.close();
  }
}
