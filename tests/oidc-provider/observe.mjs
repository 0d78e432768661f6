// What a test must see of the authorization server, and the faults that it may cause there.

import { createHash } from "node:crypto";

export const fingerprint = (text) => createHash("sha256").update(text).digest("hex").slice(0, 8);

function fresh() {
  return {
    requests: {}, // path -> how many arrived, answered or not
    token: {}, // grant type -> { requests, ok, errors: { code: n } }
    in_flight: 0, // token requests that wait for their answer
    reuse: 0, // used refresh tokens that came again
    refresh_tokens_used: 0,
    issued: [], // { fingerprint, grant_type, grant, expires_at_ms, at_ms }, never a token
    revocations: [], // "refresh_token", "access_token", "unknown", in order of arrival
    intercepted: 0, // requests that a fault answered
  };
}

// The counters and the faults of one server.
export class Observer {
  counters = fresh();
  faults = { token_ms: 0, revocation_ms: 0, answers: [] };

  reset() {
    this.counters = fresh();
    this.faults = { token_ms: 0, revocation_ms: 0, answers: [] };
  }

  // Puts a canned answer before the real one: `path` ("*" for all), how many `times` (absent: until reset), and the answer.
  // `drop: "before"` destroys the connection unread, `drop: "after"` does the work and destroys it: a lost answer.
  answer(canned) {
    this.faults.answers.push({ path: "/token", times: Infinity, status: 200, type: "application/json", body: "", ...canned });
  }

  take(path) {
    const found = this.faults.answers.find((canned) => canned.times > 0 && (canned.path === "*" || canned.path === path));
    if (found) found.times -= 1;
    return found;
  }

  middleware() {
    return async (ctx, next) => {
      this.counters.requests[ctx.path] = (this.counters.requests[ctx.path] ?? 0) + 1;
      const canned = this.take(ctx.path);
      const isToken = ctx.path === "/token" && ctx.method === "POST";
      if (isToken) this.counters.in_flight += 1;
      try {
        const late = isToken ? this.faults.token_ms : ctx.path === "/token/revocation" ? this.faults.revocation_ms : 0;
        if (late > 0) await new Promise((done) => setTimeout(done, late));
        if (canned && canned.drop !== "after") return this.intercept(ctx, canned);
        await next();
        if (isToken) await this.sawToken(ctx);
        if (ctx.path === "/token/revocation") this.sawRevocation(ctx);
        if (canned) return this.intercept(ctx, canned);
      } finally {
        if (isToken) this.counters.in_flight -= 1;
      }
    };
  }

  intercept(ctx, canned) {
    this.counters.intercepted += 1;
    if (canned.drop) {
      ctx.respond = false;
      ctx.req.socket.destroy();
      return;
    }
    ctx.status = canned.status;
    for (const [name, value] of Object.entries(canned.headers ?? {})) ctx.set(name, value);
    ctx.type = canned.type;
    ctx.body = typeof canned.body === "string" ? canned.body : JSON.stringify(canned.body);
  }

  async sawToken(ctx) {
    const type = ctx.oidc?.params?.grant_type ?? "none";
    const seen = (this.counters.token[type] ??= { requests: 0, ok: 0, errors: {} });
    seen.requests += 1;
    if (ctx.status !== 200) {
      const code = ctx.body?.error ?? String(ctx.status);
      seen.errors[code] = (seen.errors[code] ?? 0) + 1;
      return;
    }
    seen.ok += 1;
    if (type === "refresh_token") this.counters.refresh_tokens_used += 1;
    const { AccessToken, ClientCredentials } = ctx.oidc.provider;
    const issued = (await AccessToken.find(ctx.body.access_token)) ?? (await ClientCredentials.find(ctx.body.access_token));
    // An ID-JAG is no access token.
    if (!issued) return;
    this.counters.issued.push({
      fingerprint: fingerprint(ctx.body.access_token),
      grant_type: type,
      grant: issued.grantId ? fingerprint(issued.grantId) : null,
      expires_at_ms: issued.exp * 1000,
      at_ms: Date.now(),
    });
  }

  sawRevocation(ctx) {
    const token = ctx.oidc?.params?.token ?? "";
    const kind = token.includes("zQrT9qz") ? "refresh_token" : token.includes("zQaT9qz") ? "access_token" : "unknown";
    this.counters.revocations.push(kind);
  }

  // The provider tells of a reused refresh token only in the error's detail, never in the answer.
  sawGrantError(error) {
    if (error.error_detail === "refresh token already used" || error.message === "refresh token already used") this.counters.reuse += 1;
  }
}
