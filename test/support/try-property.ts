import fc from 'fast-check';
import { printAddress } from 'sluice-gateway/net/address.js';
import { printPrefix } from 'sluice-gateway/net/prefix.js';
import type { Connection } from 'sluice-gateway/policy/evaluate.js';
import type { PolicyRule } from 'sluice-gateway/policy/model.js';
import type { Case } from './arbitrary.js';
import { seed } from './seed.js';

/** For so long a failing case is made smaller. */
const SHRINK_MS_MAX = 60_000;

/**
 * Holds a statement against random cases. Where one fails, throws with the smallest that was found to fail, as text,
 * and with what the statement said of it.
 */
export async function tryProperty<T>(
  arbitrary: fc.Arbitrary<T>,
  print: (value: T) => string,
  runs: number,
  statement: (value: T) => Promise<void> | void,
): Promise<void> {
  let shrunkMs = Number.POSITIVE_INFINITY;
  const property = fc.asyncProperty(arbitrary, async (value) => {
    if (performance.now() > shrunkMs) return;
    try {
      await statement(value);
    } catch (error) {
      shrunkMs = Math.min(shrunkMs, performance.now() + SHRINK_MS_MAX);
      throw error;
    }
  });
  const { failed, counterexample, errorInstance, numRuns, numShrinks } = await fc.check(property, {
    seed,
    numRuns: runs,
  });
  if (!failed) return;
  const said = errorInstance instanceof Error ? errorInstance.message : String(errorInstance);
  const found = `TEST_SEED=${seed}, case ${numRuns} made smaller ${numShrinks} times`;
  throw new Error(`${said}\n${print(counterexample![0])}\n${found}`, { cause: errorInstance });
}

const PROTOCOL_NAME = new Map([
  [1, 'ICMP'],
  [6, 'TCP'],
  [17, 'UDP'],
  [58, 'ICMPv6'],
]);

export const printConnection = ({ src, dst, protocol, dstPort }: Connection) =>
  `${PROTOCOL_NAME.get(protocol) ?? `protocol ${protocol}`} ${printAddress(src)} to ${printAddress(dst)} port ${dstPort}`;

function printRule({ name, action, protocol, portRanges, src, dst, enforcement }: PolicyRule): string {
  const ports = portRanges.map(({ lo, hi }) => (lo === hi ? `${lo}` : `${lo}-${hi}`)).join(',');
  const mode = enforcement === 'ENFORCE' ? '' : ` ${enforcement}`;
  return `  ${name}: ${action} ${protocol} ${ports} from ${src.join(', ')} to ${dst.join(', ')}${mode}`;
}

/** A case for people: rules, the groups that they name, connections. */
export function printCase({ policy, groups, connections }: Case): string {
  const used = new Set(policy.rules.flatMap(({ src, dst }) => [...src, ...dst]));
  return [
    ...policy.rules.map(printRule),
    `  default: ${policy.defaultAction.action}`,
    ...[...used]
      .sort()
      .map((name) => `  ${name} = ${groups.get(name)!.map(printPrefix).join(', ') || 'nothing'}`),
    ...connections.map((connection) => `  ${printConnection(connection)}`),
  ].join('\n');
}

export const printWalk = (steps: readonly Case[]) =>
  steps.map((step, index) => `step ${index}\n${printCase(step)}`).join('\n');
