import { readFileSync } from 'node:fs';
import { type Judging, loadHere, type PolicyFile } from './rulesets.js';

/** `worker.js FILE once|always`, in the gateway's namespace. */
const [file, judging] = process.argv.slice(2) as [string, Judging];
await loadHere(JSON.parse(readFileSync(file, 'utf8')) as PolicyFile, judging);
