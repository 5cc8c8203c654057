// Completion for bash and zsh, from what commander knows of the commands.
const shown = (command) => command.options.filter(({ hidden }) => !hidden);
const isFile = ({ flags }) => /<(?:file|path)[^>]*>/.test(flags);
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** A line for each command: its options, and what may follow one. */
function bashCases(command) {
  const words = shown(command).map(({ long }) => long);
  const values = shown(command)
    .filter(({ argChoices, required, optional }) => argChoices !== undefined || required || optional)
    .map((option) => {
      const choices = isFile(option)
        ? 'compgen -f'
        : `compgen -W ${quoted((option.argChoices ?? []).join(' '))}`;
      return `      ${command.name()}:${option.long}) mapfile -t COMPREPLY < <(${choices} -- "$word"); return ;;`;
    });
  return { words: `    ${command.name()}) options=${quoted(words.join(' '))} ;;`, values };
}

export function bashCompletion(program) {
  const cases = program.commands.map(bashCases);
  const names = program.commands.map((command) => command.name()).join(' ');
  return `# bash completion of sluice
_sluice() {
  local word=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD-1]} command=\${COMP_WORDS[1]} options=
  if [ "$COMP_CWORD" -eq 1 ]; then
    mapfile -t COMPREPLY < <(compgen -W ${quoted(names)} -- "$word")
    return
  fi
  case "$command:$before" in
${cases.flatMap(({ values }) => values).join('\n')}
  esac
  case "$command" in
${cases.map(({ words }) => words).join('\n')}
  esac
  mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
}
complete -o default -F _sluice sluice
`;
}

const bracketed = (text) => text.replace(/[[\]\\:]/g, '\\$&');

function zshOption(option) {
  const { long, description, argChoices, required, optional } = option;
  const says = `${long}[${bracketed(description)}]`;
  if (!required && !optional) return quoted(says);
  const after = isFile(option) ? '_files' : argChoices === undefined ? ' ' : `(${argChoices.join(' ')})`;
  return quoted(`${says}:${bracketed(option.attributeName())}:${after}`);
}

export function zshCompletion(program) {
  const names = program.commands.map((command) =>
    quoted(`${command.name()}:${bracketed(command.description())}`),
  );
  const cases = program.commands.map(
    (command) => `    ${command.name()}) _arguments ${shown(command).map(zshOption).join(' ')} ;;`,
  );
  return `#compdef sluice
_sluice() {
  local -a commands
  commands=(${names.join(' ')})
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=\${words[2]}
  shift words
  (( CURRENT-- ))
  case "$command" in
${cases.join('\n')}
  esac
}
_sluice "$@"
`;
}
