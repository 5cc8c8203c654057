import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { globSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { FileResult, Said } from './plan.js';

export interface Boot {
  /** Of the unpacked kernel package. */
  readonly folder: string;
  readonly initramfs: string;
  /** What the guest runs first, with its arguments. */
  readonly init: readonly string[];
  /** The file that keeps what the kernel and the guest's first process write. */
  readonly console: string;
  readonly msMax: number;
  readonly onFile: (result: FileResult) => void;
}

export interface Booted {
  /** As the kernel calls itself; undefined where it never came to the tests. */
  readonly release: string | undefined;
  /** Why the guest did not come to its end; undefined where it did. */
  readonly reason: string | undefined;
}

const MACHINE = ['-M', 'q35', '-accel', 'tcg,thread=multi', '-cpu', 'max', '-smp', '2', '-m', '6144'];
const HEADLESS = ['-display', 'none', '-monitor', 'none', '-nic', 'none', '-no-reboot'];
/** Emulation pays dearly for what a kernel does against leaking processors, and no test is about that. */
const COMMAND_LINE = 'console=ttyS0 panic=-1 mitigations=off nokaslr audit=0';

/**
 * Runs a guest to its end. It says on its second serial port how each test file ended. Emulated always: a /dev/kvm that can be
 * opened may still not start a guest, or hang it, where this machine is a guest itself.
 */
export async function boot({ folder, initramfs, init, console, msMax, onFile }: Boot): Promise<Booted> {
  const [kernel] = globSync('boot/vmlinuz-*', { cwd: folder });
  const [first, ...arguments_] = init;
  const commandLine = [COMMAND_LINE, `rdinit=${first}`, '--', ...arguments_].join(' ');
  const args = [
    ...[...MACHINE, ...HEADLESS],
    ...['-kernel', join(folder, kernel!), '-initrd', initramfs, '-append', commandLine],
    ...['-serial', `file:${console}`, '-serial', 'stdio'],
  ];
  const child = spawn('qemu-system-x86_64', args, {
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: msMax,
    killSignal: 'SIGKILL',
  });
  // Without whom it tells it would go on in vain.
  const endBoth = () => {
    child.kill('SIGKILL');
    process.exit(1);
  };
  process.once('SIGTERM', endBoth);
  let release: string | undefined;
  let hasEnded = false;
  createInterface(child.stdout).on('line', (line) => {
    const said = JSON.parse(line) as Said;
    switch (said.kind) {
      case 'start':
        release = said.release;
        return;
      case 'file':
        onFile(said);
        return;
      case 'end':
        hasEnded = true;
        return;
      default:
        said satisfies never;
    }
  });
  const [status, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  process.off('SIGTERM', endBoth);
  let reason: string | undefined;
  if (signal !== null) reason = `the guest was ended after ${msMax / 1000} s`;
  else if (!hasEnded) reason = `the guest ended before its tests did (QEMU's exit code ${status})`;
  return { release, reason };
}
