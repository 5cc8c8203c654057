import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { program } from 'sluice/dist/main.js';
import t from 'tap';

/** The manual and the completion that the package brings know every command and every option. */
const made = (name: string) => fileURLToPath(new URL(`../../../deploy/deb/${name}.mjs`, import.meta.url));
const { manual } = (await import(made('manual'))) as { manual(program: Command, version: string): string };
const { bashCompletion, zshCompletion } = (await import(made('completion'))) as Readonly<
  Record<'bashCompletion' | 'zshCompletion', (program: Command) => string>
>;

const commands = program.commands.map((command) => ({
  name: command.name(),
  flags: command.options.map(({ flags }) => flags),
  long: command.options.map(({ long }) => long!),
}));

t.test('the manual has them all, with what each is for', async (t) => {
  const page = manual(program, '1.0').replaceAll('\\-', '-');
  for (const command of program.commands) {
    const section = page.split('.SS ').find((text) => text.startsWith(`${command.name()} `))!;
    t.match(section, command.description());
    for (const { flags, description } of command.options) {
      t.ok(section.includes(`.B ${flags}\n${description}`), `${command.name()} ${flags}`);
    }
    for (const argument of command.registeredArguments) t.ok(section.includes(`.I ${argument.name()}`));
  }
  t.notMatch(page, /^'/m, 'no line is a request by accident');
});

/** What bash offers for the last of these words. */
function offered(...words: string[]): string[] {
  const script = `${bashCompletion(program)}
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _sluice; printf '%s\\n' "\${COMPREPLY[@]}"`;
  return execFileSync('bash', ['-c', script, 'bash', 'sluice', ...words])
    .toString()
    .trim()
    .split('\n');
}

t.test('bash offers them all', async (t) => {
  t.same(
    offered(''),
    commands.map(({ name }) => name),
  );
  t.same(offered('fl'), ['flows']);
  for (const { name, long } of commands) t.same(offered(name, '--'), long, name);
  t.same(offered('run', '--only', ''), ['gateway', 'client'], 'what an option may be');
  const folder = t.testdir({ 'policy.yaml': '' });
  t.same(offered('check', '--config', `${folder}/pol`), [`${folder}/policy.yaml`], 'files');
  t.same(offered('learn', '--flows', `${folder}/pol`), [`${folder}/policy.yaml`], 'of several files');
});

t.test('zsh is told of them all', async (t) => {
  const text = zshCompletion(program);
  for (const { name, long } of commands) {
    t.ok(text.includes(`'${name}:`), name);
    const line = text.split('\n').find((one) => one.startsWith(`    ${name}) `))!;
    for (const option of long) t.ok(line.includes(`'${option}[`), `${name} ${option}`);
  }
});
