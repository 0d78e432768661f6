// What kind of authorization server this is: clients, lifetimes, features. Strict where servers are strict: refresh tokens
// rotate always, and a used one that comes again ends its whole family.

import { generateKeyPairSync, randomBytes } from "node:crypto";
import { JWT_BEARER, TOKEN_EXCHANGE } from "./assertions.mjs";
import { Store } from "./store.mjs";

// Every secret starts and ends with a word that occurs nowhere else, so that a search through logs, environments and
// memory dumps finds a leaked token even when it was cut at either end. The Rust harness searches for the same words.
export const MARKS = {
  AccessToken: "zQaT9qz",
  ClientCredentials: "zQaT9qz",
  RefreshToken: "zQrT9qz",
  AuthorizationCode: "zQaC9qz",
  DeviceCode: "zQdC9qz",
};
export const CLIENT_SECRET = "zQcS9qz-a-client-secret-for-tests-only-zQcS9qz";

const DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code";
const SCOPES = ["openid", "offline_access", "profile", "email"];
const RESOURCE_SCOPES = ["mcp:read", "mcp:write"];

// An opaque token's text is its id, so the mark is put where the provider makes the id.
export function markTokens(provider) {
  for (const [model, mark] of Object.entries(MARKS)) {
    const { generateTokenId } = provider[model].prototype;
    provider[model].prototype.generateTokenId = function marked() {
      return `${mark}${generateTokenId.call(this)}${mark}`;
    };
  }
}

function clients() {
  const loopback = {
    application_type: "native",
    redirect_uris: ["http://127.0.0.1/callback"],
    grant_types: ["authorization_code", "refresh_token", DEVICE_CODE, TOKEN_EXCHANGE],
    response_types: ["code"],
  };
  const byAssertion = { redirect_uris: [], grant_types: [JWT_BEARER], response_types: [] };
  const confidential = { ...loopback, client_secret: CLIENT_SECRET };
  return [
    { ...loopback, client_id: "native", token_endpoint_auth_method: "none" },
    { ...confidential, client_id: "basic", token_endpoint_auth_method: "client_secret_basic" },
    { ...confidential, client_id: "post", token_endpoint_auth_method: "client_secret_post" },
    {
      client_id: "machine",
      client_secret: CLIENT_SECRET,
      token_endpoint_auth_method: "client_secret_basic",
      redirect_uris: [],
      grant_types: ["client_credentials"],
      response_types: [],
    },
    { ...byAssertion, client_id: "workload", token_endpoint_auth_method: "none" },
    { ...byAssertion, client_id: "enterprise", client_secret: CLIENT_SECRET, token_endpoint_auth_method: "client_secret_basic" },
  ];
}

function resourceIndicators(ttl) {
  return {
    enabled: true,
    defaultResource: (_ctx, _client, oneOf) => oneOf,
    useGrantedResource: () => true,
    getResourceServerInfo: () => ({ scope: RESOURCE_SCOPES.join(" "), accessTokenFormat: "opaque", accessTokenTTL: ttl.access }),
  };
}

function features(ttl, nonces) {
  return {
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => nonces.wanted },
    introspection: { enabled: true, allowedPolicy: () => true },
    registration: { enabled: true },
    resourceIndicators: resourceIndicators(ttl),
    revocation: { enabled: true, allowedPolicy: (_ctx, client, token) => token.clientId === client.clientId },
    userinfo: { enabled: true },
  };
}

function findAccount(_ctx, id) {
  return { accountId: id, claims: () => ({ sub: id, name: `Test ${id}`, preferred_username: id, email: `${id}@example.test`, email_verified: true }) };
}

// A private JWK to sign with.
export function signingKey() {
  const key = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "jwk" });
  return { ...key, use: "sig", alg: "ES256", kid: "test" };
}

// `ttl` is read at every issue and `nonces` at every proof, so that a test can change them while the server runs.
export function configuration(ttl, nonces, key) {
  return {
    adapter: Store,
    clients: clients(),
    clientDefaults: { id_token_signed_response_alg: "ES256" },
    claims: { openid: ["sub"], profile: ["name", "preferred_username"], email: ["email", "email_verified"] },
    cookies: { keys: [randomBytes(32).toString("hex")] },
    expiresWithSession: () => false,
    features: features(ttl, nonces),
    findAccount,
    issueRefreshToken: (_ctx, client) => client.grantTypeAllowed("refresh_token"),
    jwks: { keys: [key] },
    pkce: { required: () => true },
    rotateRefreshToken: true,
    scopes: [...SCOPES, ...RESOURCE_SCOPES],
    ttl: {
      AccessToken: () => ttl.access,
      ClientCredentials: () => ttl.access,
      RefreshToken: () => ttl.refresh,
      Grant: () => ttl.refresh,
      Session: () => ttl.refresh,
      Interaction: () => 3600,
      IdToken: () => ttl.id,
    },
  };
}
