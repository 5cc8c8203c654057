/** A call as CloudTrail and EventBridge tell of it. */
export function eventOf(
  place: { readonly account: string; readonly region: string },
  eventName: string,
  requestParameters: object,
  more: object = {},
): string {
  const eventSource = /Function|Resource|Version/.test(eventName) ? 'lambda' : 'ec2';
  return JSON.stringify({
    ...place,
    'detail-type': 'AWS API Call via CloudTrail',
    detail: { eventSource: `${eventSource}.amazonaws.com`, eventName, requestParameters },
    ...more,
  });
}
