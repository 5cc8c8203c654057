import t from 'tap';
import { createMetrics } from '../metrics/metrics.js';
import type { Finding } from './finding.js';
import { findLegacy } from './foreign.js';
import {
  hasProblem,
  type KernelVersion,
  PROBLEMS,
  parseKernelVersion,
  versionFindings,
} from './kernel-version.js';
import { findSysctls } from './sysctls.js';

const DEBIAN =
  'Linux version 6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0, GNU ld 2.40) #1 SMP PREEMPT_DYNAMIC Debian 6.1.164-1 (2026-03-02)';
const AMAZON =
  'Linux version 6.1.141-155.222.amzn2023.x86_64 (mockbuild@ip-10-0-1-2) (gcc (GCC) 11.5.0) #1 SMP PREEMPT_DYNAMIC Tue Jun 17 2026';

t.test('kernels say which stable release they are in different places', async (t) => {
  const cases: [release: string, texts: string[], expected: [number, number, number | undefined]][] = [
    ['6.18.44-fc-v669', [], [6, 18, 44]],
    ['6.1.0-56-cloud-amd64', [DEBIAN, ''], [6, 1, 164]],
    ['6.1.141-155.222.amzn2023.x86_64', [AMAZON], [6, 1, 141]],
    ['6.8.0-45-generic', ['', 'Ubuntu 6.8.0-45.45-generic 6.8.12\n'], [6, 8, 12]],
    ['6.12.0-1.el10.x86_64', [], [6, 12, undefined]],
    ['7.0-rc3', [], [7, 0, 0]],
    ['6.17.0', [DEBIAN], [6, 17, 0]],
  ];
  for (const [release, texts, [major, minor, patch]] of cases) {
    t.strictSame(parseKernelVersion(release, ...texts), { release, major, minor, patch }, release);
  }
  t.equal(parseKernelVersion('mainline'), undefined);
});

t.test('a problem is there until the release that has the fix, in each series that has it', async (t) => {
  const fixes = { ...PROBLEMS[0]!, fixedIn: ['6.12.48', '6.17'] };
  const at = (major: number, minor: number, patch: number | undefined): KernelVersion => ({
    ...{ release: '', major, minor, patch },
  });
  const cases: [KernelVersion, boolean][] = [
    [at(5, 15, 190), true],
    [at(6, 1, 200), true],
    [at(6, 12, 47), true],
    [at(6, 12, 48), false],
    [at(6, 12, undefined), true],
    [at(6, 16, 99), true],
    [at(6, 17, 0), false],
    [at(6, 17, undefined), false],
    [at(7, 0, 0), false],
    [at(10, 2, 0), false],
  ];
  for (const [version, expected] of cases) {
    t.equal(hasProblem(version, fixes), expected, JSON.stringify(version));
  }
});

t.test('of a release every known problem is told, whether it has it or not', async (t) => {
  const present = (release: string, ...texts: string[]) =>
    versionFindings(parseKernelVersion(release, ...texts), release)
      .filter(({ value }) => value === 'yes')
      .map(({ name }) => name.replace('problem.', ''));
  t.same(present('6.1.0-56-cloud-amd64', DEBIAN), [
    'lookup_miss',
    'lookup_miss_interval',
    'late_chain_release',
    'timeout_not_extended',
    'interval_open_end',
    'concatenation_reload',
  ]);
  t.same(present('6.18.24'), ['lookup_miss_interval', 'interval_open_end']);
  t.same(present('7.0.0'), []);
  const [kernel, ...problems] = versionFindings(parseKernelVersion('5.10.0'), '5.10.0');
  t.match(kernel, { name: 'kernel', level: 'warning', value: '5.10.0', expected: '6.1 or later' });
  t.equal(problems.length, PROBLEMS.length);
  t.match(versionFindings(undefined, 'mainline'), [{ name: 'kernel', level: 'warning', value: 'mainline' }]);
});

const file = (text: string) => `${text}\n`;

t.test('settings are judged by what they hold; what is not there is told', async (t) => {
  const proc = t.testdir({
    meminfo: file('MemTotal:        1048576 kB'),
    sys: {
      net: {
        ipv4: {
          ip_forward: file('0'),
          ip_local_port_range: file('32768\t60999'),
          conf: { 'eth0.7': { rp_filter: file('1'), src_valid_mark: file('1') } },
        },
        netfilter: {
          nf_conntrack_max: file('4000000'),
          nf_conntrack_count: file('3000001'),
          nf_conntrack_buckets: file('65536'),
          nf_conntrack_tcp_be_liberal: file('1'),
          nf_conntrack_events: file('0'),
        },
      },
    },
  });
  const found = new Map(findSysctls(['eth0.7'], proc).map((finding) => [finding.name, finding]));
  const expected: [name: string, level: string, value: string][] = [
    ['net.ipv4.ip_forward', 'info', '0'],
    ['net.ipv4.ip_local_port_range', 'ok', '32768 60999'],
    ['net.netfilter.nf_conntrack_max', 'warning', '4000000'],
    ['net.netfilter.nf_conntrack_count', 'warning', '3000001'],
    ['net.netfilter.nf_conntrack_buckets', 'warning', '65536'],
    ['net.netfilter.nf_conntrack_tcp_be_liberal', 'warning', '1'],
    ['net.netfilter.nf_conntrack_events', 'warning', '0'],
    ['net.netfilter.nf_conntrack_acct', 'ok', '-'],
    ['net/ipv4/conf/eth0.7/rp_filter', 'info', '1'],
    ['net/ipv4/conf/eth0.7/src_valid_mark', 'ok', '1'],
  ];
  for (const [name, level, value] of expected) t.match(found.get(`sysctl.${name}`), { level, value }, name);
  t.match(found.get('sysctl.net.netfilter.nf_conntrack_max')?.expected, '65536 to 1342177');
});

t.test('tables of iptables-legacy are named: no more of them can be seen', async (t) => {
  const name = 'foreign.legacy';
  t.match(await findLegacy(t.testdir()), { name, level: 'ok', value: 'none' });
  const proc = t.testdir({ net: { ip_tables_names: 'nat\nfilter\n', ip6_tables_names: file('mangle') } });
  const value = 'iptables nat, iptables filter, ip6tables mangle';
  t.match(await findLegacy(proc), { name, level: 'warning', value });
  const empty = t.testdir({ net: { ip_tables_names: '', ip6_tables_names: '' } });
  t.match(await findLegacy(empty), { level: 'ok' }, 'modules without tables');
});

t.test('findings become numbers', async (t) => {
  const metrics = createMetrics();
  const found: Finding[] = [
    { name: 'kernel', level: 'ok', value: '6.1.0', detail: '' },
    { name: 'problem.lookup_miss', level: 'info', value: 'yes', detail: '' },
    { name: 'feature.fib', level: 'ok', value: 'yes', detail: '' },
    { name: 'feature.limit', level: 'error', value: 'no', detail: '' },
    { name: 'foreign.nat', level: 'warning', value: 'ip a', detail: '' },
    { name: 'foreign.nat', level: 'warning', value: 'ip b', detail: '' },
    { name: 'foreign.ct_mark', level: 'ok', value: 'none', detail: '' },
  ];
  const settings: Finding[] = [
    { name: 'sysctl.net.ipv4.ip_forward', level: 'ok', value: '1', detail: '' },
    { name: 'sysctl.net.ipv4.ip_local_port_range', level: 'ok', value: '1 2', detail: '' },
  ];
  metrics.kernel(
    () => found,
    () => settings,
  );
  const lines = (await metrics.scrape()).split('\n');
  t.same(
    lines.filter((line) => /^sluice_(?:kernel|sysctl|foreign)/.test(line)),
    [
      'sluice_kernel_info{release="6.1.0"} 1',
      'sluice_kernel_feature{feature="fib"} 1',
      'sluice_kernel_feature{feature="limit"} 0',
      'sluice_kernel_known_problem{problem="lookup_miss"} 1',
      'sluice_sysctl{name="net.ipv4.ip_forward"} 1',
      'sluice_foreign_tables{kind="nat"} 2',
      'sluice_foreign_tables{kind="ct_mark"} 0',
    ],
  );
});
