import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';
import { Machine, whyNoMachine } from './machine.js';
import { needPrivileges } from './privileged.js';
import type { Stage } from './stage.js';
import { until } from './wait.js';

const BUILD = fileURLToPath(new URL('../../../deploy/deb/build.mjs', import.meta.url));

/** Ends this test file as skipped where there can be no machine to install the package on. */
export function needMachine(t: Test): void {
  needPrivileges();
  const reason = whyNoMachine();
  if (reason === undefined) return;
  t.plan(0, reason);
  process.exit(0);
}

/** What both processes are told of AWS by their environment files. */
export const AWS_ENVIRONMENT = `AWS_ENDPOINT_URL=http://127.0.0.1:4566
AWS_ACCESS_KEY_ID=AKIAEXAMPLE
AWS_SECRET_ACCESS_KEY=example
`;

/** A machine in the stage's gateway namespace, on which AWS is as the stage has it. */
export async function bootMachine(t: Test, stage: Stage): Promise<Machine> {
  const machine = await Machine.boot(stage.gateway, stage.path('machine'));
  t.teardown(async () => {
    if (!t.passing()) t.comment(machine.try('journalctl', '--no-pager', '-n', '60').out);
    await machine.remove();
  });
  machine.write('/etc/default/sluice-controller-client', AWS_ENVIRONMENT);
  return machine;
}

/** Builds the package, uncompressed, onto a machine as `path`. */
export function putPackage(machine: Machine, stage: Stage, version: string, path: string): void {
  const out = stage.path('built');
  const args = [BUILD, '--version', version, '--compression', 'none', '--out', out];
  const file = execFileSync(process.execPath, args).toString().trim();
  execFileSync('cp', [file, machine.path(path)]);
  rmSync(join(out), { recursive: true });
}

/** Waits until `sluice status` on the machine says that it is ready. */
export async function readyOn(
  machine: Machine,
  isWanted: (text: string) => boolean = () => true,
): Promise<void> {
  await until('the gateway is ready', () => {
    const { code, out } = machine.try('sluice', 'status');
    return code === 0 && isWanted(out);
  });
}
