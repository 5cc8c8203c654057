import { Option } from 'commander';
import { readConfig } from 'sluice-gateway/config/config.js';
import type { FileOptions } from './files.js';

const DEFAULT_SOCKET = '/run/sluice/admin.sock';

export interface Options extends FileOptions {
  readonly socket?: string;
  readonly json?: boolean;
}

export const config = () => new Option('--config <file>', 'configuration of the gateway');
export const policy = () => new Option('--policy <path>', 'a policy file or folder, without AWS');
export const socket = () =>
  new Option('--socket <path>', 'admin socket of the gateway').default(undefined, DEFAULT_SOCKET);
export const json = () => new Option('--json', 'one JSON document for machines');

export const isFromFiles = ({ config, policy }: FileOptions) => config !== undefined || policy !== undefined;

export function needsFiles(options: FileOptions): void {
  if (!isFromFiles(options))
    throw new Error('Cannot tell which policy is meant: give --config FILE or --policy PATH');
}

export function socketOf({ config, socket }: Options): string {
  return socket ?? (config === undefined ? DEFAULT_SOCKET : readConfig(config).admin.socket);
}
