import { AssumeRole$ } from '@aws-sdk/client-sts';
import { ServiceError } from './errors.js';
import { FIRST } from './pages.js';
import type { OperationSchema } from './schema.js';
import type { Call, Handler } from './server.js';

const SESSION_MS = 3_600_000;
const ROLE = /^arn:[a-z-]+:iam::([0-9]{12}):role\/(.+)$/;

function assumeRole(call: Call): object {
  const { RoleArn, RoleSessionName, ExternalId } = call.input as Record<string, string | undefined>;
  const [, accountId = '', name = ''] = ROLE.exec(RoleArn!) ?? [];
  const role = call.roleOf(accountId, name);
  if (role === undefined || !role.trusts.includes(call.accountId) || role.externalId !== ExternalId) {
    const user = `arn:aws:iam::${call.accountId}:user/test`;
    throw new ServiceError(
      'AccessDenied',
      403,
      `User: ${user} is not authorized to perform: sts:AssumeRole on resource: ${RoleArn}`,
    );
  }
  return {
    Credentials: {
      AccessKeyId: call.openSession(accountId, role),
      SecretAccessKey: 'secret',
      SessionToken: 'token',
      Expiration: new Date(Date.now() + SESSION_MS),
    },
    AssumedRoleUser: {
      AssumedRoleId: `AROAEXAMPLE:${RoleSessionName}`,
      Arn: `arn:aws:sts::${accountId}:assumed-role/${name}/${RoleSessionName}`,
    },
  };
}

export const STS: readonly Handler[] = [
  {
    operation: 'sts:AssumeRole',
    schema: AssumeRole$ as unknown as OperationSchema,
    positionOf: () => FIRST,
    answer: assumeRole,
  },
];
