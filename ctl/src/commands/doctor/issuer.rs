//! Our own issuer: whether the port is its own, by the keys that it tells there and on the socket.

use super::{Check, Found, Level};
use crate::web;

const TAKEN: &str = "`ss -ltnp` tells who has the port; end that program, or set another `listen` in [issuer] of config.toml";

impl Found<'_> {
    /// `None`: it is switched off, or the daemon tells nothing.
    pub(super) fn issuer(&self) -> Option<Check> {
        let status = self.daemon.as_ref().ok()?.status.issuer.as_ref()?;
        let check = |level, detail: String| Check::new("issuer", level, detail);
        if let Some(error) = &status.error {
            return Some(check(Level::Failed, error.clone()).hint(TAKEN));
        }
        let issuer = &status.issuer;
        // A locked vault has a check of its own.
        let keys = self.client.issuer_keys().ok()?;
        Some(match web::get(&format!("{issuer}/oauth/keys"), None) {
            Ok(answer) if serde_json::from_str(&answer.body).is_ok_and(|told: serde_json::Value| told == keys) => {
                check(Level::Ok, format!("{issuer} answers with the keys of the socket"))
            }
            Ok(_) => check(Level::Failed, format!("somebody else answers at {issuer}")).hint(TAKEN),
            Err(error) => check(Level::Failed, format!("{issuer} cannot be reached: {error}")).hint("look for a firewall on loopback"),
        })
    }
}
