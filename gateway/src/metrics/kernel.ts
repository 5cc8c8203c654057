import type { Finding } from '../preflight/finding.js';
import { type Families, pulled } from './family.js';

/** What of a finding's name stands behind its topic. */
const rest = ({ name }: Finding) => name.slice(name.indexOf('.') + 1);
const of = (topic: string, findings: readonly Finding[]) =>
  findings.filter(({ name }) => name.startsWith(`${topic}.`));

/** What preflight finds, as numbers. Labels are names of the program, of settings and of configured interfaces. */
export function kernelMetrics(families: Families) {
  const family = <Label extends string>(
    name: string,
    help: string,
    label: Label,
    row: (finding: Finding) => { readonly label: string; readonly value: number },
  ) =>
    pulled(families, {
      ...{ name, help, labels: [label], kind: 'gauge', merge: 'sum' },
      of: (finding: Finding) => {
        const { label: text, value } = row(finding);
        return { labels: { [label]: text } as Record<Label, string>, value };
      },
    });
  const isYes = (finding: Finding) => ({ label: rest(finding), value: finding.value === 'yes' ? 1 : 0 });
  const info = family('sluice_kernel_info', 'The kernel that enforces, always 1', 'release', ({ value }) => ({
    ...{ label: value, value: 1 },
  }));
  const features = family(
    'sluice_kernel_feature',
    'Whether the kernel has what the program needs or might use',
    'feature',
    isYes,
  );
  const problems = family(
    'sluice_kernel_known_problem',
    'Whether the kernel has a problem that is known of its release',
    'problem',
    isYes,
  );
  const numbers = family('sluice_sysctl', 'Settings of the kernel, numbers only', 'name', (finding) => ({
    ...{ label: rest(finding), value: Number(finding.value) },
  }));
  const foreign = family(
    'sluice_foreign_tables',
    'Tables of others that bear on ours, by what they do',
    'kind',
    (finding) => ({ label: rest(finding), value: finding.value === 'none' ? 0 : 1 }),
  );
  return {
    /** Asked at each scrape: `found` for all but the settings. */
    kernel(found: () => readonly Finding[], settings: () => readonly Finding[]): void {
      info(() => found().filter(({ name }) => name === 'kernel'));
      features(() => of('feature', found()));
      problems(() => of('problem', found()));
      foreign(() => of('foreign', found()));
      numbers(() => settings().filter(({ value }) => /^-?[0-9]+$/.test(value)));
    },
  };
}
