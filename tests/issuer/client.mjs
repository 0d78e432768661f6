// A certified OAuth client, oauth4webapi, at our own issuer: discovery, code flow, ID token, access token, refresh, userinfo,
// revocation. It prints the authorization URL, reads the redirect URL from stdin, and ends with one line of what it found right.
//
//   node client.mjs '{"issuer":..., "client_id":..., "redirect_uri":..., "resource":..., "scope":..., "secret"?, "auth"?}'

import { createInterface } from "node:readline/promises";
import * as oauth from "oauth4webapi";

const settings = JSON.parse(process.argv.at(-1));
const insecure = { [oauth.allowInsecureRequests]: true };
const issuer = new URL(settings.issuer);
const right = [];

const as = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { algorithm: settings.algorithm ?? "oauth2", ...insecure }));
right.push("discovery");
const client = { client_id: settings.client_id };
const proof = { none: oauth.None, client_secret_basic: oauth.ClientSecretBasic, client_secret_post: oauth.ClientSecretPost }[settings.auth ?? "none"](settings.secret);

const verifier = oauth.generateRandomCodeVerifier();
const [state, nonce] = [oauth.generateRandomState(), oauth.generateRandomNonce()];
const url = new URL(as.authorization_endpoint);
url.search = new URLSearchParams({
  client_id: settings.client_id, redirect_uri: settings.redirect_uri, response_type: "code", scope: settings.scope,
  resource: settings.resource, state, nonce, code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: "S256",
});
console.log(url.href);
const input = createInterface({ input: process.stdin });
const redirect = new URL((await input[Symbol.asyncIterator]().next()).value);
input.close();

const checked = oauth.validateAuthResponse(as, client, redirect, state);
right.push("redirect with state and iss");
const resource = { additionalParameters: { resource: settings.resource }, ...insecure };
const answer = await oauth.authorizationCodeGrantRequest(as, client, proof, checked, settings.redirect_uri, verifier, resource);
const tokens = await oauth.processAuthorizationCodeResponse(as, client, answer, { expectedNonce: nonce, requireIdToken: true });
await oauth.validateApplicationLevelSignature(as, answer, insecure);
const { sub } = oauth.getValidatedIdTokenClaims(tokens);
right.push("code, ID token and its signature");

const request = (token) => new Request(settings.resource, { headers: { authorization: `Bearer ${token}` } });
const access = await oauth.validateJwtAccessToken(as, request(tokens.access_token), settings.resource, insecure);
if (access.sub !== sub || !access.sid) throw new Error("sub or sid of the access token");
right.push("RFC 9068 access token");

const again = await oauth.refreshTokenGrantRequest(as, client, proof, tokens.refresh_token, resource);
const next = await oauth.processRefreshTokenResponse(as, client, again);
await oauth.validateApplicationLevelSignature(as, again, insecure);
if (next.refresh_token === tokens.refresh_token) throw new Error("the refresh token was not rotated");
await oauth.validateJwtAccessToken(as, request(next.access_token), settings.resource, insecure);
right.push("refresh with rotation");

const person = await oauth.processUserInfoResponse(as, client, sub, await oauth.userInfoRequest(as, client, next.access_token, insecure));
if (person.sub !== sub) throw new Error("userinfo");
right.push("userinfo");

await oauth.processRevocationResponse(await oauth.revocationRequest(as, client, proof, next.refresh_token, insecure));
const dead = await oauth.refreshTokenGrantRequest(as, client, proof, next.refresh_token, insecure);
const error = await oauth.processRefreshTokenResponse(as, client, dead).then(() => undefined, (error) => error);
if (error?.error !== "invalid_grant") throw new Error(`after the revocation: ${error?.error}`);
right.push("revocation");
console.log(JSON.stringify(right));
