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
  const own = ["--client-credentials", "--client-id", context.client_id];
  if (scenario.endsWith("client-credentials-basic")) return [...own, "--client-secret-file", file(context.client_secret)];
  if (scenario.endsWith("client-credentials-jwt")) return [...own, "--private-key-file", file(context.private_key_pem)];
  if (scenario.endsWith("wif-jwt-bearer")) return ["--client-id", context.client_id, "--assertion-file", file(context.valid_jwt)];
  if (scenario.endsWith("enterprise-managed-authorization")) {
    return [
      ...["--client-id", context.client_id, "--client-secret-file", file(context.client_secret)],
      ...["--identity-provider", context.idp_issuer, "--identity-client-id", context.idp_client_id],
      ...["--identity-token-endpoint", context.idp_token_endpoint, "--identity-token-file", file(context.idp_id_token)],
    ];
  }
  return [];
}

function file(secret) {
  const path = join(mkdtempSync(join(tmpdir(), "conformance-")), "secret");
  writeFileSync(path, secret, { mode: 0o600 });
  return path;
}
