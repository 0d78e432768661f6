// Two more ways to a token, as servers have them that do without a page: the JWT bearer grant (RFC 7523 section 2.1), and at an
// identity provider the exchange of an ID token for an ID-JAG (RFC 8693). The checks are those that the RFCs want, by `jose`.

import { createLocalJWKSet, createRemoteJWKSet, importJWK, jwtVerify, SignJWT } from "jose";
import { errors } from "oidc-provider";

export const JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer";
export const TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";
const ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token";
const ID_JAG = "urn:ietf:params:oauth:token-type:id-jag";
const TYPE = "oauth-id-jag+jwt";

/** The issuers whose JWTs this server takes, each with its keys; and the `jti` of those that are good for one use. */
const trusted = new Map();
const used = new Set();
/** What an ID-JAG of this server says otherwise than it should. */
let lies = {};

/** `{issuer, jwks}` or `{issuer}`, whose keys are then at its `/jwks`. */
export function trust({ issuer, jwks }) {
  trusted.set(issuer, jwks ? createLocalJWKSet(jwks) : createRemoteJWKSet(new URL(`${issuer}/jwks`)));
}

export function lie(claims) {
  lies = claims;
}

function refuse(description) {
  throw new errors.InvalidGrant(description);
}

async function verified(assertion, audience) {
  const issuer = claimsOf(assertion).iss;
  if (!trusted.has(issuer)) refuse(`nobody here trusts ${issuer}`);
  try {
    return await jwtVerify(assertion, trusted.get(issuer), { issuer, audience, requiredClaims: ["exp", "sub"] });
  } catch (error) {
    return refuse(error.message);
  }
}

function claimsOf(jwt) {
  try {
    return JSON.parse(Buffer.from(jwt.split(".")[1], "base64url"));
  } catch {
    return refuse("this is no JWT");
  }
}

/** RFC 7523 section 3, and what an ID-JAG says besides. */
async function bearer(provider, ttl, ctx) {
  const { client, params } = ctx.oidc;
  if (!params.assertion) throw new errors.InvalidRequest("assertion is missing");
  const { payload, protectedHeader } = await verified(params.assertion, [provider.issuer, `${provider.issuer}/token`]);
  if (protectedHeader.typ === TYPE) {
    if (payload.client_id !== client.clientId) refuse("client_id is not that of the client");
    if (payload.resource !== params.resource) refuse("resource is another one");
    if (used.has(payload.jti)) refuse("this ID-JAG was used already");
    used.add(payload.jti);
  }
  await respond(provider, ttl, ctx);
}

/** An access token of the client, as one that it gets for itself: there is no login that it could be of. */
async function respond(provider, ttl, ctx) {
  const { client, params } = ctx.oidc;
  const token = new provider.ClientCredentials({ client, scope: params.scope || undefined });
  if (params.resource) {
    const settings = { scope: "mcp:read mcp:write", accessTokenFormat: "opaque", accessTokenTTL: ttl.access };
    token.resourceServer = new provider.ResourceServer(params.resource, settings);
  }
  ctx.oidc.entity("ClientCredentials", token);
  const access_token = await token.save();
  ctx.body = { access_token, token_type: token.tokenType, expires_in: token.expiration, scope: token.scope };
}

/** The identity provider's part: an ID token of its own, for this client, becomes an assertion for another server. */
async function exchange(provider, key, ctx) {
  const { client, params } = ctx.oidc;
  if (params.requested_token_type !== ID_JAG) throw new errors.InvalidRequest("requested_token_type is not an ID-JAG");
  if (params.subject_token_type !== ID_TOKEN) throw new errors.InvalidRequest("subject_token_type is not an ID token");
  if (!params.audience) throw new errors.InvalidRequest("audience is missing");
  const { kty, crv, x, y } = key;
  const own = createLocalJWKSet({ keys: [{ kty, crv, x, y, alg: "ES256", kid: key.kid }] });
  const checks = { issuer: provider.issuer, audience: client.clientId };
  const { payload } = await jwtVerify(params.subject_token, own, checks).catch((error) => refuse(error.message));
  const claims = { sub: payload.sub, client_id: "enterprise", resource: params.resource, scope: params.scope, ...lies };
  const access_token = await new SignJWT(claims)
    .setProtectedHeader({ alg: "ES256", typ: TYPE, kid: key.kid })
    .setIssuer(claims.iss ?? provider.issuer)
    .setAudience(claims.aud ?? params.audience)
    .setJti(crypto.randomUUID())
    .setIssuedAt()
    .setExpirationTime("5m")
    .sign(await importJWK(key, "ES256"));
  ctx.body = { access_token, issued_token_type: ID_JAG, token_type: "N_A", expires_in: 300 };
}

/** Teaches a provider both. `key`: the private JWK that it signs with. */
export function teach(provider, ttl, key) {
  provider.registerGrantType(JWT_BEARER, (ctx) => bearer(provider, ttl, ctx), ["assertion", "scope", "resource"], []);
  const wanted = ["requested_token_type", "audience", "resource", "scope", "subject_token", "subject_token_type"];
  provider.registerGrantType(TOKEN_EXCHANGE, (ctx) => exchange(provider, key, ctx), wanted, []);
}
