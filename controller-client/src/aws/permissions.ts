/**
 * What the client asks of AWS, by the policy in `deploy/iam/` that permits it, and what is missing without it. A
 * test holds these against the policies and against the calls that are made.
 */
export const FEATURES = {
  discovery: {
    operations: ['lambda:ListFunctions', 'ec2:DescribeSubnets', 'ec2:DescribeVpcs'],
    without: 'nothing new is learnt of this account and region',
  },
  tags: {
    operations: ['tag:GetResources', 'lambda:ListTags'],
    without: 'no group can select functions by their tags',
  },
  interfaces: {
    operations: ['ec2:DescribeNetworkInterfaces'],
    without: 'no group can resolve to interfaces',
  },
  instances: { operations: ['ec2:DescribeInstances'], without: 'no group of type vm can be resolved' },
  'prefix-lists': {
    operations: ['ec2:DescribeManagedPrefixLists', 'ec2:GetManagedPrefixListEntries'],
    without: 'no group of a prefix list can be resolved',
  },
  versions: {
    operations: ['lambda:ListVersionsByFunction'],
    without: 'a changed function waits for the next full refresh',
  },
  'events-account': {
    operations: ['lambda:GetFunctionConfiguration'],
    without: 'a changed function waits for the next full refresh',
  },
  'events-queue': {
    operations: ['sqs:ReceiveMessage', 'sqs:DeleteMessage'],
    without: 'what changes is learnt by full refreshes alone',
  },
  'assume-role': { operations: ['sts:AssumeRole'], without: 'nothing new is learnt of this account' },
} as const satisfies Record<string, { readonly operations: readonly string[]; readonly without: string }>;

export type Feature = keyof typeof FEATURES;
export type Operation = (typeof FEATURES)[Feature]['operations'][number];

/** AWS's errors for a permission that is missing: Lambda's and SQS's, STS's and Tagging's, EC2's. */
const DENIED = new Set([
  'AccessDeniedException',
  'AccessDenied',
  'UnauthorizedOperation',
  'UnauthorizedException',
]);

/** A call that failed; the message has the operation and AWS's error name, the cause is AWS's error. */
export class CallError extends Error {
  readonly isDenied: boolean;

  constructor(operation: Operation | 'credentials', cause: unknown) {
    const { name, message } = cause instanceof Error ? cause : new Error(String(cause));
    const isDenied = DENIED.has(name);
    super(`${operation} failed with ${name}: ${message}${isDenied ? hintFor(operation) : ''}`, { cause });
    this.name = 'CallError';
    this.isDenied = isDenied;
  }
}

function hintFor(operation: string): string {
  const found = Object.entries(FEATURES).find(([, { operations }]) =>
    (operations as readonly string[]).includes(operation),
  );
  if (found === undefined) return '';
  const [feature, { without }] = found;
  return `; without it ${without} (deploy/iam/${feature}.json permits it)`;
}

/** Whether AWS refused a call for want of a permission. */
export function isDenied(error: unknown): error is CallError {
  return error instanceof CallError && error.isDenied;
}
