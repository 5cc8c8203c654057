import { policyJsonSchema } from './schema.js';

/* Prints what deploy/policy.schema.json holds: node controller-client/dist/sources/print-schema.js */
process.stdout.write(`${JSON.stringify(policyJsonSchema(), null, 2)}\n`);
