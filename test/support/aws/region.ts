import type { RegionState } from './state.js';

/** One region's content; the number keeps regions apart. */
export function regionState(number: number, functions: number): RegionState {
  return {
    functions: Array.from({ length: functions }, (_, index) => ({
      name: `fn-${number}-${index}`,
      ...(index === 7 ? {} : { subnetIds: [`subnet-0${number}b`, `subnet-0${number}${index % 10}`] }),
      ...(index === 8 ? { subnetIds: [], vpcId: '' } : {}),
      ...(index === 9 ? { subnetIds: ['subnet-0dead'], vpcId: `vpc-0${number}` } : {}),
      securityGroupIds: ['sg-02', 'sg-01'],
      tags: { team: index % 2 === 0 ? 'pay' : 'web', '<odd> & "key"': `ä${index}` },
      dualStack: index === 3,
    })),
    subnets: [
      ...Array.from({ length: 12 }, (_, index) => ({
        id: `subnet-0${number}${index}`,
        vpcId: `vpc-0${number}`,
        cidr: `10.${number}.${index}.0/24`,
      })),
      {
        id: `subnet-0${number}b`,
        vpcId: `vpc-0${number}`,
        cidr: `10.${number}.100.0/24`,
        ipv6Cidrs: [
          { cidr: `2001:db8:${number}:3::/64`, state: 'disassociated' },
          `2001:db8:${number}:2::/64`,
          `2001:DB8:${number}:1:0::/64`,
        ],
        tags: { z: '1', a: '2' },
      },
      { id: `subnet-0${number}c`, vpcId: `vpc-0${number}`, ipv6Cidrs: [`2001:db8:${number}:4::/64`] },
    ],
    vpcs: [
      {
        id: `vpc-0${number}`,
        cidrs: [`10.${number}.0.0/16`, `100.64.${number}.0/24`, { cidr: '172.16.0.0/16', state: 'failing' }],
        ipv6Cidrs: [`2001:db8:${number}::/56`, { cidr: '2001:db8:ffff::/56', state: 'disassociating' }],
      },
    ],
  };
}
