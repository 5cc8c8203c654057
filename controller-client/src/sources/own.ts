import type { Diagnostic } from './diagnostics.js';
import { describeIssues } from './issues.js';
import { type Draft, itemsOf, type Node, toPlain, valueAt } from './node.js';
import { envelopeSchema } from './schema.js';

/**
 * Takes a document of the form `sluice.policy/1` apart; its groups and rules are checked later, one by one.
 */
export function readOwnForm(root: Node): Draft {
  const parsed = envelopeSchema.safeParse(toPlain(root));
  const problems: Diagnostic[] = parsed.success
    ? []
    : describeIssues(root, parsed.error.issues, Object.keys(envelopeSchema.shape));
  const defaultAction = valueAt(root, 'defaultAction');
  return {
    groups: itemsOf(valueAt(root, 'smartGroups')),
    rules: itemsOf(valueAt(root, 'policies')).map((node) => ({ node })),
    defaultActions: defaultAction === undefined ? [] : [defaultAction],
    references: [],
    points: [],
    problems,
    warnings: [],
  };
}
