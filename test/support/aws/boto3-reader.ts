/** Signs the calls of `READER`. */
export const ACCESS_KEY = 'AKIAFIRST';

/** A role that they may assume, with an external id. */
export const ROLE_ARN = 'arn:aws:iam::111122223333:role/reader';

/**
 * A Python program that reads an endpoint (arguments: its URL and the region) with boto3, a client that
 * shares no code with the SDK, and prints all that it read as JSON.
 */
export const READER = `
import json, sys
import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
url, region = sys.argv[1:3]
config = Config(retries={'max_attempts': 0}, region_name=region)
keys = dict(aws_access_key_id='${ACCESS_KEY}', aws_secret_access_key='secret')
lambda_ = boto3.client('lambda', endpoint_url=url, config=config, **keys)
ec2 = boto3.client('ec2', endpoint_url=url, config=config, **keys)
tagging = boto3.client('resourcegroupstaggingapi', endpoint_url=url, config=config, **keys)
sts = boto3.client('sts', endpoint_url=url, config=config, **keys)
errors = {}
def failure(name, call, **input):
    try:
        call(**input)
        errors[name] = None
    except ClientError as error:
        r = error.response
        errors[name] = [r['Error']['Code'], r['ResponseMetadata']['HTTPStatusCode'], r['Error']['Message']]
for name in ['lambdaThrottled', 'lambdaDenied', 'lambdaFailed']:
    failure(name, lambda_.list_functions)
for name in ['ec2Throttled', 'ec2Denied', 'ec2Failed']:
    failure(name, ec2.describe_subnets)
failure('subnetUnknown', ec2.describe_subnets, SubnetIds=['subnet-0<&>'])
failure('vpcUnknown', ec2.describe_vpcs, VpcIds=['vpc-0ff'])
failure('filterUnknown', ec2.describe_subnets, Filters=[{'Name': 'no-such', 'Values': ['x']}])
failure('tokenBroken', ec2.describe_subnets, NextToken='bm9uc2Vuc2U=', MaxResults=5)
failure('markerBroken', lambda_.list_functions, Marker='bm9uc2Vuc2U=')
failure('taggingThrottled', tagging.get_resources)
failure('paginationBroken', tagging.get_resources, PaginationToken='x')
failure('roleRefused', sts.assume_role, RoleArn='${ROLE_ARN}', RoleSessionName='reader', ExternalId='no')
failure('functionUnknown', lambda_.get_function_configuration, FunctionName='no-such')
def bare(answer):
    del answer['ResponseMetadata']
    return answer
pages = list(lambda_.get_paginator('list_functions').paginate(PaginationConfig={'PageSize': 100}))
functions = [f for page in pages for f in page['Functions']]
tags = {f['FunctionName']: bare(lambda_.list_tags(Resource=f['FunctionArn']))['Tags'] for f in functions}
subnet_pages = list(ec2.get_paginator('describe_subnets').paginate(PaginationConfig={'PageSize': 10}))
json.dump({
    'functionPages': [page['Functions'] for page in pages],
    'tags': tags,
    'configuration': bare(lambda_.get_function_configuration(FunctionName=functions[0]['FunctionArn'])),
    'subnetPages': [page['Subnets'] for page in subnet_pages],
    'chosen': ec2.describe_subnets(SubnetIds=['subnet-0a', 'subnet-03'])['Subnets'],
    'filtered': ec2.describe_subnets(Filters=[
        {'Name': 'tag:Name', 'Values': ['net 1*', 'net ?']},
        {'Name': 'tag:tier', 'Values': ['front']}])['Subnets'],
    'vpcs': ec2.describe_vpcs()['Vpcs'],
    'interfaces': ec2.describe_network_interfaces(
        Filters=[{'Name': 'interface-type', 'Values': ['lambda']}])['NetworkInterfaces'],
    'taggedPages': [page['ResourceTagMappingList'] for page in
        tagging.get_paginator('get_resources').paginate(ResourceTypeFilters=['lambda:function'])],
    'versions': lambda_.list_versions_by_function(FunctionName='fn-7')['Versions'],
    'instances': ec2.describe_instances()['Reservations'],
    'prefixLists': ec2.describe_managed_prefix_lists()['PrefixLists'],
    'entries': ec2.get_managed_prefix_list_entries(PrefixListId='pl-01')['Entries'],
    'role': sts.assume_role(RoleArn='${ROLE_ARN}', RoleSessionName='reader', ExternalId='yes')['AssumedRoleUser'],
    'errors': errors,
}, sys.stdout)
`;
