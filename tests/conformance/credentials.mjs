// What a scenario gives a client beforehand, given to the bridge as a person would: options, and secrets by a file.

import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The suite's own document; nobody fetches it. */
const DOCUMENT = "https://conformance-test.local/client-metadata.json";

/** The options of `mcp-authctl bridge` for a scenario. */
export function arguments_for(scenario, context, url) {
  if (scenario.endsWith("basic-cimd")) return ["--client-metadata-url", DOCUMENT];
  if (scenario.endsWith("pre-registration")) return ["--client-id", context.client_id, "--client-secret-file", file(context.client_secret)];
  return [];
}

function file(secret) {
  const path = join(mkdtempSync(join(tmpdir(), "conformance-")), "secret");
  writeFileSync(path, secret, { mode: 0o600 });
  return path;
}
