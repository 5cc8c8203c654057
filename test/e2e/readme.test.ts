import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseConfig } from 'sluice-gateway/config/config.js';
import t from 'tap';

/** The README is true: what it shows is what the program prints. */
const root = fileURLToPath(new URL('../../..', import.meta.url));
const readme = readFileSync(join(root, 'README.md'), 'utf8');
const QUICKSTART = fileURLToPath(new URL('../quickstart/main.js', import.meta.url));

const blocks = (language: string) =>
  [...readme.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\`$`, 'gm'))].map(
    ([, text]) => text!,
  );

/** Times, ports and counts differ from run to run. */
const normal = (text: string) =>
  text.replace(/"communityId":"[^"]*"/g, 'communityId').replace(/[0-9]+/g, '#');

const skip = process.getuid?.() === 0 ? false : 'needs root for network namespaces';

t.test('the quickstart prints what the README shows, and succeeds', { skip }, async (t) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--enable-source-maps', QUICKSTART]);
  const output = stdout.toString();
  t.equal(status, 0, `${output}\n${stderr}`);
  const printed = output.split('\n').map(normal);
  const shown = blocks('text');
  t.ok(shown.length >= 2, 'the README shows output');
  for (const block of shown) {
    let at = 0;
    let mayLeaveOut = true;
    for (const line of block.trimEnd().split('\n').map(normal)) {
      if (line === '' || line === '…') mayLeaveOut = true;
      else {
        const found = mayLeaveOut ? printed.indexOf(line, at) : at;
        t.equal(printed[found], line, 'the quickstart prints, in this order, what the README shows');
        at = found + 1;
        mayLeaveOut = false;
      }
    }
  }
});

t.test('the policy in the README is that of the example', async (t) => {
  const example = readFileSync(join(root, 'deploy/examples/security-video/policy/policy.yaml'), 'utf8').split(
    '\n',
  );
  for (const line of blocks('yaml')[0]!.trimEnd().split('\n')) t.ok(example.includes(line), line);
});

t.test('the configuration in the README is valid', async (t) => {
  t.equal(parseConfig(blocks('yaml')[1]!, '/etc/sluice/sluice.yaml').gateway.name, 'gw-a');
});

t.test('what the README names is there', async (t) => {
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: object };
  for (const [, name] of readme.matchAll(/npm run ([a-z]+)/g)) t.ok(name! in scripts, `npm run ${name}`);
  for (const [, path] of readme.matchAll(/\]\(([^):]+)\)/g))
    t.ok(existsSync(join(root, path!)), `${path} exists`);
  for (const [, path] of readme.matchAll(/node (\S+\/dist\/\S+\.js)/g)) {
    t.ok(existsSync(join(root, dirname(path!).replace('/dist', '/src'))), `${path} is built`);
  }
});
