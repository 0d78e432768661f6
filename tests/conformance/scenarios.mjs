// The client scenarios of the suite, and the wire versions that each is run at.

const OLD = "2025-11-25";
const NEW = "2026-07-28";
const BOTH = [OLD, NEW];

const auth = (names, versions) => names.map((name) => [`auth/${name}`, versions]);

/** Each with its versions; the authorization ones are 47 runs. */
export const SCENARIOS = [
  ...auth(
    [
      "metadata-default", "metadata-var1", "metadata-var2", "metadata-var3", "basic-cimd", "scope-from-www-authenticate",
      "scope-from-scopes-supported", "scope-omitted-when-undefined", "scope-step-up", "scope-retry-limit",
      "token-endpoint-auth-basic", "token-endpoint-auth-post", "token-endpoint-auth-none", "pre-registration",
    ],
    BOTH,
  ),
  ...auth(
    [
      "resource-mismatch", "offline-access-scope", "offline-access-not-supported", "authorization-server-migration",
      "iss-supported", "iss-not-advertised", "iss-supported-missing", "iss-wrong-issuer", "iss-unexpected", "iss-normalized",
      "metadata-issuer-mismatch",
    ],
    [NEW],
  ),
  ...auth(
    ["client-credentials-jwt", "client-credentials-basic", "enterprise-managed-authorization", "dpop", "dpop-nonce", "wif-jwt-bearer"],
    ["extension"],
  ),
  ...auth(["2025-03-26-oauth-metadata-backcompat", "2025-03-26-oauth-endpoint-fallback"], ["2025-03-26"]),
  ["initialize", [OLD]],
  ["tools_call", BOTH],
  ["sse-retry", [OLD]],
  ["elicitation-sep1034-client-defaults", [OLD]],
  ["request-metadata", [NEW]],
  ["http-standard-headers", [NEW]],
  ["http-custom-headers", [NEW]],
  ["http-invalid-tool-headers", [NEW]],
  ["sep-2322-client-request-state", [NEW]],
  ["json-schema-ref-no-deref", [NEW]],
  ["json-schema-2020-12-preservation", BOTH],
];

/** What no bridge decides. */
export const NOT_FOR_A_BRIDGE = new Map(
  ["no-prefetch", "verify-digest", "verify-size", "verify-frontmatter"].map((name) => [
    `sep-2640-client-${name}`,
    "what a client does with a skill's files; a bridge passes messages",
  ]),
);
