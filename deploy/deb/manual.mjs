// The manual page sluice(1), from what commander knows of the commands.
const roff = (text) =>
  text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replace(/^(['.])/gm, '\\&$1');
const usage = (command) => `${command.name()} ${command.usage()}`;

function optionLines({ flags, description, defaultValueDescription, defaultValue, argChoices }) {
  const fallback = defaultValueDescription ?? defaultValue;
  const notes = [
    ...(argChoices === undefined ? [] : [`one of ${argChoices.join(', ')}`]),
    ...(fallback === undefined || fallback === false ? [] : [`default ${fallback}`]),
  ];
  const text = notes.length === 0 ? description : `${description} (${notes.join('; ')})`;
  return ['.TP', `.B ${roff(flags)}`, roff(text)];
}

function commandLines(command) {
  const named = command.registeredArguments.filter(({ description }) => description !== '');
  const args = named.flatMap((argument) => [
    '.TP',
    `.I ${roff(argument.name())}`,
    roff(argument.description),
  ]);
  const options = command.options.filter(({ hidden }) => !hidden).flatMap(optionLines);
  return [`.SS ${roff(usage(command))}`, roff(command.description()), ...args, ...options];
}

/** The page as roff. */
export function manual(program, version) {
  return `${[
    `.TH SLUICE 1 "" "sluice ${version}" "Sluice"`,
    '.SH NAME',
    `sluice \\- ${roff(program.description().replace(/^An? /, ''))}`,
    '.SH SYNOPSIS',
    '.B sluice',
    '.I command',
    '[options]',
    '.SH COMMANDS',
    ...program.commands.flatMap(commandLines),
    '.SH EXIT STATUS',
    '0 fine, 1 found something, 2 wrong use or failure.',
    '.SH FILES',
    ...['.TP', '.I /etc/sluice/sluice.yaml', 'the configuration; every key is described in configuration.md'],
    ...['.TP', '.I /etc/sluice/policy/', 'the policy'],
    ...['.TP', '.I /run/sluice/admin.sock', 'what commands ask'],
    ...['.TP', '.I /var/lib/sluice', 'the last good snapshot'],
    ...['.TP', '.I /usr/share/doc/sluice/docs', 'a page for each task'],
  ].join('\n')}\n`;
}
