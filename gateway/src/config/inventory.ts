import { z } from 'zod';

/** Of one configuration. */
const ACCOUNTS_MAX = 1_000;

const accountId = z.string().regex(/^[0-9]{12}$/, 'an AWS account id has 12 digits: put it in quotes');
const region = z.string().regex(/^[a-z0-9-]{1,32}$/, 'expected a region such as us-east-1');

/** As whom to ask: the SDK's usual chain or a profile, and a role to assume with it. */
const identity = {
  profile: z.string().min(1).exactOptional(),
  roleArn: z
    .string()
    .regex(
      /^arn:(?:aws|aws-cn|aws-us-gov):iam::[0-9]{12}:role\/[\x21-\x7e]{1,512}$/,
      'expected a role such as arn:aws:iam::111122223333:role/sluice',
    )
    .exactOptional(),
  externalId: z
    .string()
    .regex(
      /^[\w+=,.@:/-]{2,1224}$/,
      'an external id has 2 to 1224 characters of A-Z a-z 0-9 + = , . @ : / - _',
    )
    .exactOptional(),
};

/** The section `inventory`. */
export const inventorySection = z.strictObject({
  aws: z.strictObject({
    accounts: z
      .array(z.strictObject({ id: accountId, regions: z.array(region).min(1), ...identity }))
      .min(1)
      .max(ACCOUNTS_MAX),
    refreshSeconds: z.int().min(1).max(86_400).default(60),
    /** What is read beside functions, their tags, subnets and VPCs; each needs a permission of its own. */
    also: z
      .array(z.enum(['interfaces', 'instances', 'prefixLists']))
      .default(['interfaces', 'instances', 'prefixLists']),
    /** Published versions may lie in other subnets than $LATEST; listing all of them is many calls. */
    publishedVersions: z.boolean().default(false),
    /** Where a refresh finds more than this share gone, the next one has to say the same; 1: never asked. */
    shrinkShareMax: z.number().min(0).max(1).default(0.5),
    /** Accounts that were configured once: what was known of them goes. */
    forget: z.array(accountId).max(ACCOUNTS_MAX).default([]),
    events: z
      .strictObject({ queueUrl: z.url({ protocol: /^https?$/ }), region, ...identity })
      .exactOptional(),
  }),
});

type Inventory = z.output<typeof inventorySection>;

/** What no single value shows to be wrong. */
export function checkInventory({ aws }: Inventory): { path: (string | number)[]; message: string }[] {
  const path = ['inventory', 'aws', 'accounts'];
  const problems: { path: (string | number)[]; message: string }[] = [];
  const scopes = aws.accounts.flatMap(({ id, regions }) => regions.map((name) => `${id} ${name}`));
  const twice = scopes.find((scope, index) => scopes.indexOf(scope) !== index);
  if (twice !== undefined) problems.push({ path, message: `account and region ${twice} are given twice` });
  for (const [index, { id, roleArn, externalId }] of aws.accounts.entries()) {
    if (externalId !== undefined && roleArn === undefined)
      problems.push({ path: [...path, index], message: 'externalId without roleArn: it belongs to a role' });
    if (roleArn !== undefined && roleArn.split(':')[4] !== id)
      problems.push({ path: [...path, index, 'roleArn'], message: `the role is not of account ${id}` });
  }
  return problems;
}
