import { EC2 } from './ec2.js';
import { invalid, ServiceError } from './errors.js';
import { LAMBDA } from './lambda.js';
import {
  decodeJson,
  decodeQuery,
  decodeRest,
  encodeJson,
  encodeXml,
  httpOf,
  type Input,
  type XmlStyle,
} from './schema.js';
import type { Handler } from './server.js';
import { SQS } from './sqs.js';
import type { FaultKind } from './state.js';
import { STS } from './sts.js';
import { TAGGING } from './tagging.js';

/** As the signature's scope names it. */
export type Service = 'lambda' | 'ec2' | 'tagging' | 'sqs' | 'sts';

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | Uint8Array;
}

/** What of a request tells its operation and input. */
export interface Asked {
  readonly url: URL;
  /** The header X-Amz-Target. */
  readonly target: string;
  readonly body: string;
}

/** How a service speaks. */
interface Protocol {
  readonly route: (asked: Asked) => { handler: Handler; input: Input };
  readonly ok: (handler: Handler, output: object, requestId: string) => Answer;
  readonly error: (error: ServiceError, requestId: string) => Answer;
  /** Its own words for what can go wrong with any call. */
  readonly errors: Readonly<
    Record<'throttle' | 'deny' | 'fail' | 'stranger', readonly [string, number, string]>
  >;
}

const escapeXml = (text: string) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);

const jsonHeaders = (type: string, requestId: string) => ({
  'content-type': type,
  'x-amzn-requestid': requestId,
});

const xmlHeaders = (requestId: string) => jsonHeaders('text/xml;charset=UTF-8', requestId);

const REST: Protocol = {
  route: ({ url }) => {
    for (const handler of LAMBDA) {
      const input = decodeRest(handler.schema, url);
      if (input !== undefined) return { handler, input };
    }
    throw new ServiceError('UnknownOperationException', 404, `Cannot answer ${url.pathname}`);
  },
  ok: ({ schema }, output, requestId) => ({
    status: httpOf(schema)[2],
    headers: jsonHeaders('application/json', requestId),
    body: encodeJson(schema, output),
  }),
  error: ({ code, status, message }, requestId) => ({
    status,
    headers: { ...jsonHeaders('application/json', requestId), 'x-amzn-errortype': code },
    body: JSON.stringify({
      Type: status < 500 ? 'User' : 'Service',
      message,
      Message: message,
      ...(status === 429 ? { Reason: 'CallerRateLimitExceeded' } : {}),
    }),
  }),
  errors: {
    throttle: ['TooManyRequestsException', 429, 'Rate exceeded'],
    deny: ['AccessDeniedException', 403, 'User: USER is not authorized to perform: ACTION on resource: *'],
    fail: ['ServiceException', 500, 'An error occurred and the request cannot be processed.'],
    stranger: ['UnrecognizedClientException', 403, 'The security token included in the request is invalid.'],
  },
};

function query(handlers: readonly Handler[], style: XmlStyle): Pick<Protocol, 'route' | 'ok'> {
  return {
    route: ({ body }) => {
      const { Action, Version, ...parameters } = Object.fromEntries(new URLSearchParams(body));
      if (Action === undefined)
        throw invalid('MissingAction', 'The request must contain the parameter Action');
      const handler = handlers.find(({ schema }) => schema[2] === Action);
      if (handler === undefined || Version !== style.version)
        throw invalid('InvalidAction', `The action ${Action} is not valid for version ${Version}`);
      return { handler, input: decodeQuery(handler.schema, Object.entries(parameters)) };
    },
    ok: ({ schema }, output, requestId) => ({
      status: 200,
      headers: xmlHeaders(requestId),
      body: encodeXml(schema, output, requestId, style),
    }),
  };
}

const QUERY_EC2: Protocol = {
  ...query(EC2, { version: '2016-11-15', namespace: 'http://ec2.amazonaws.com/doc/2016-11-15/' }),
  error: ({ code, status, message }, requestId) => ({
    status,
    headers: xmlHeaders(requestId),
    body:
      `<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error><Code>${code}</Code>` +
      `<Message>${escapeXml(message)}</Message></Error></Errors>` +
      `<RequestID>${requestId}</RequestID></Response>`,
  }),
  errors: {
    throttle: ['RequestLimitExceeded', 503, 'Request limit exceeded.'],
    deny: ['UnauthorizedOperation', 403, 'You are not authorized to perform this operation.'],
    fail: ['InternalError', 500, 'An internal error has occurred'],
    stranger: ['AuthFailure', 401, 'AWS was not able to validate the provided access credentials'],
  },
};

const STS_NAMESPACE = 'https://sts.amazonaws.com/doc/2011-06-15/';

const QUERY_STS: Protocol = {
  ...query(STS, { version: '2011-06-15', namespace: STS_NAMESPACE, wrapped: true }),
  error: ({ code, status, message }, requestId) => ({
    status,
    headers: xmlHeaders(requestId),
    body:
      `<ErrorResponse xmlns="${STS_NAMESPACE}"><Error><Type>Sender</Type><Code>${code}</Code>` +
      `<Message>${escapeXml(message)}</Message></Error><RequestId>${requestId}</RequestId></ErrorResponse>`,
  }),
  errors: {
    throttle: ['Throttling', 400, 'Rate exceeded'],
    deny: ['AccessDenied', 403, 'User: USER is not authorized to perform: ACTION on resource: *'],
    fail: ['InternalFailure', 500, 'The request processing has failed'],
    stranger: ['InvalidClientTokenId', 403, 'The security token included in the request is invalid.'],
  },
};

/** The JSON protocols name the operation in a header, and the error's type in the body. */
function json(handlers: readonly Handler[], version: '1.0' | '1.1', target: string): Protocol {
  const type = `application/x-amz-json-${version}`;
  return {
    route: (asked) => {
      const handler = handlers.find(({ schema }) => asked.target === `${target}.${schema[2]}`);
      if (handler === undefined) throw invalid('UnknownOperationException', `Cannot answer ${asked.target}`);
      return { handler, input: decodeJson(handler.schema, asked.body) };
    },
    ok: ({ schema }, output, requestId) => ({
      status: 200,
      headers: jsonHeaders(type, requestId),
      body: encodeJson(schema, output),
    }),
    error: ({ code, status, message }, requestId) => ({
      status,
      headers: jsonHeaders(type, requestId),
      body: JSON.stringify({ __type: code, message, Message: message }),
    }),
    errors: {
      throttle: ['ThrottledException', 400, 'Rate exceeded'],
      deny: ['AccessDeniedException', 400, 'User: USER is not authorized to perform: ACTION'],
      fail: ['InternalServiceException', 500, 'The request processing failed'],
      stranger: [
        'UnrecognizedClientException',
        400,
        'The security token included in the request is invalid.',
      ],
    },
  };
}

export const PROTOCOLS: Readonly<Record<Service, Protocol>> = {
  lambda: REST,
  ec2: QUERY_EC2,
  tagging: json(TAGGING, '1.1', 'ResourceGroupsTaggingAPI_20170126'),
  sqs: json(SQS, '1.0', 'AmazonSQS'),
  sts: QUERY_STS,
};

/** What a service says of a fault, or to a stranger. */
export function serviceError(
  service: Service,
  kind: 'throttle' | 'deny' | 'fail' | 'stranger',
  accountId = '',
  action = '',
): ServiceError {
  const [code, status, message] = PROTOCOLS[service].errors[kind];
  const text = message.replace('USER', `arn:aws:iam::${accountId}:user/test`).replace('ACTION', action);
  return new ServiceError(code, status, text);
}

/** The error that a fault answers with; undefined for the faults that spoil an answer. */
export function errorOf(
  fault: FaultKind | undefined,
  service: Service,
  accountId: string,
  action: string,
): ServiceError | undefined {
  return fault === 'throttle' || fault === 'deny' || fault === 'fail'
    ? serviceError(service, fault, accountId, action)
    : undefined;
}
