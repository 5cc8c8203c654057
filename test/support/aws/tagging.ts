import { GetResources$ } from '@aws-sdk/client-resource-groups-tagging-api';
import { invalid } from './errors.js';
import { functionArn } from './lambda.js';
import { FIRST, pageOf, readMarker } from './pages.js';
import type { OperationSchema } from './schema.js';
import type { Call, Handler } from './server.js';

const PER_PAGE_MAX = 100;
const OPERATION = 'tag:GetResources';

/** Functions that have tags, or would: AWS also gives those that once had some. */
function getResources(call: Call): object {
  const { ResourceTypeFilters = [], ResourcesPerPage = PER_PAGE_MAX } = call.input as {
    ResourceTypeFilters?: readonly string[];
    ResourcesPerPage?: number;
  };
  if (ResourcesPerPage < 1 || ResourcesPerPage > PER_PAGE_MAX)
    throw invalid('InvalidParameterException', 'ResourcesPerPage must be between 1 and 100');
  if (ResourceTypeFilters.some((type) => type !== 'lambda:function'))
    throw invalid('InvalidParameterException', 'Only lambda:function is known here');
  const tagged = (call.known.functions ?? []).filter(({ tags = {} }) => Object.keys(tags).length > 0);
  const page = pageOf(OPERATION, tagged, ({ name }) => name, call.position, ResourcesPerPage, call.fault);
  return {
    PaginationToken: page.marker ?? '',
    ResourceTagMappingList: page.items.map(({ name, tags = {} }) => ({
      ResourceARN: functionArn(call, name),
      Tags: Object.entries(tags).map(([Key, Value]) => ({ Key, Value })),
    })),
  };
}

export const TAGGING: readonly Handler[] = [
  {
    operation: OPERATION,
    schema: GetResources$ as unknown as OperationSchema,
    positionOf: (input) => {
      const { PaginationToken = '' } = input as { PaginationToken?: string };
      if (PaginationToken === '') return FIRST;
      const at = readMarker(OPERATION, PaginationToken);
      if (at === undefined) throw invalid('InvalidParameterException', 'The PaginationToken is not valid');
      return at;
    },
    answer: getResources,
  },
];
