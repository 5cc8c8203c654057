import { fileURLToPath } from 'node:url';

/** Much is read and printed, and little of it kept: V8 would let the heap grow to three times of that. */
const FLAGS = ['--max-semi-space-size=8', '--heap-growing-percent=40'];
const MAIN = fileURLToPath(new URL('main.js', import.meta.url));

/** The controller client as a process: what Node.js is to be started with. */
export const clientArguments = (configFile: string): string[] => [...FLAGS, MAIN, '--config', configFile];
