import { fileURLToPath } from 'node:url';

/** The compiled tests lie one folder below the sources; the script is not compiled. */
export const RAW = fileURLToPath(new URL('../../support/raw.py', import.meta.url));
/** Debian's own Python, whatever else is first in the path. */
export const PYTHON = '/usr/bin/python3';
