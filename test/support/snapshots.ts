import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  BODIES_FOLDER,
  bodyDigest,
  canonicalJson,
  type InventoryBody,
  MANIFEST_FILE,
  type Manifest,
  type PolicyBody,
} from 'sluice-gateway/snapshot/format.js';

/** A snapshot folder in the hands of somebody who writes into it what they like. */
export class SnapshotForger {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  bodyPath(digest: string): string {
    return join(this.#folder, BODIES_FOLDER, digest);
  }

  manifest(): Manifest {
    return JSON.parse(readFileSync(join(this.#folder, MANIFEST_FILE), 'utf8')) as Manifest;
  }

  policy(): PolicyBody {
    return JSON.parse(readFileSync(this.bodyPath(this.manifest().policy.digest), 'utf8')) as PolicyBody;
  }

  inventory(): InventoryBody {
    const read = (digest: string) => JSON.parse(readFileSync(this.bodyPath(digest), 'utf8')) as InventoryBody;
    const { digest, functions } = this.manifest().inventory;
    return { ...read(digest), functions: functions.flatMap((part) => read(part).functions) };
  }

  /** Writes a body; gives its digest. */
  body(value: unknown): string {
    const text = canonicalJson(value);
    const digest = bodyDigest(text);
    writeFileSync(this.bodyPath(digest), text);
    return digest;
  }

  /** Puts a manifest, or any text, in the place of the one in force. */
  publish(manifest: Manifest | string): void {
    const path = join(this.#folder, MANIFEST_FILE);
    rmSync(`${path}.forged`, { force: true });
    writeFileSync(`${path}.forged`, typeof manifest === 'string' ? manifest : canonicalJson(manifest));
    renameSync(`${path}.forged`, path);
  }
}
