// Where the authorization server keeps what it issued: plain maps. The provider's own memory store evicts after a thousand
// entries, which a long test would see as a refresh token that vanished. Expiry is checked by the provider itself.

const entries = new Map(); // "Model:id" -> payload
const families = new Map(); // grant id -> Set of "Model:id"
const byUid = new Map();
const byUserCode = new Map();

export class Store {
  constructor(model) {
    this.model = model;
  }

  key(id) {
    return `${this.model}:${id}`;
  }

  async upsert(id, payload) {
    entries.set(this.key(id), payload);
    if (this.model === "Session") byUid.set(payload.uid, id);
    if (payload.userCode) byUserCode.set(payload.userCode, id);
    if (payload.grantId && this.model !== "Grant" && this.model !== "Session") {
      if (!families.has(payload.grantId)) families.set(payload.grantId, new Set());
      families.get(payload.grantId).add(this.key(id));
    }
  }

  async find(id) {
    return entries.get(this.key(id));
  }

  async findByUid(uid) {
    return this.find(byUid.get(uid));
  }

  async findByUserCode(code) {
    return this.find(byUserCode.get(code));
  }

  async consume(id) {
    entries.get(this.key(id)).consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    entries.delete(this.key(id));
  }

  async revokeByGrantId(grantId) {
    for (const key of families.get(grantId) ?? []) {
      if (key.startsWith(`${this.model}:`)) entries.delete(key);
    }
  }
}
