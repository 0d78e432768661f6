//! PURE: the person's side of a request: what `mcp-authctl approve CODE` shows and decides, on the person's own socket.

use mcp_auth_proto::{Approval, ApprovalState, ErrorBody, ErrorCode};

use super::authorize::{Pending, Verdict};
use super::core::Core;
use super::page;
use crate::clock::Now;

impl Core {
    /// What is asked for under a code; decides it where a decision is given.
    pub(crate) fn approval(&mut self, code: &str, allow: Option<bool>, now: Now) -> Result<Approval, ErrorBody> {
        let typed = letters(code);
        let found = self.pending.iter_mut().find(|pending| letters(&pending.code) == typed);
        let pending = found.filter(|pending| now.boot < pending.until || !matches!(pending.verdict, Verdict::Open)).ok_or_else(unknown)?;
        match (&pending.verdict, allow) {
            (_, None) => {}
            (Verdict::Open, Some(true)) => pending.verdict = Verdict::Allowed,
            (Verdict::Open, Some(false)) => pending.verdict = Verdict::Refused,
            (_, Some(_)) => {
                return Err(ErrorBody::new(ErrorCode::Conflict, "this request was decided before")
                    .hint("start it again in the program, for a new code"));
            }
        }
        Ok(shown(pending, self.settings.client(&pending.request.client_id).map(|client| client.shown().to_owned()), now))
    }
}

fn shown(pending: &Pending, client: Option<String>, now: Now) -> Approval {
    let request = &pending.request;
    Approval {
        code: pending.code.clone(),
        client_id: request.client_id.clone(),
        client: client.unwrap_or_else(|| request.client_id.clone()),
        redirect_host: page::host(&request.redirect_uri),
        resource: request.audience.clone(),
        scopes: request.scopes.clone(),
        expires_in: pending.until.since(now.boot).as_secs(),
        state: match pending.verdict {
            Verdict::Open => ApprovalState::Waiting,
            Verdict::Refused | Verdict::Sent(_, false) => ApprovalState::Refused,
            Verdict::Allowed | Verdict::Sent(_, true) => ApprovalState::Approved,
        },
    }
}

fn unknown() -> ErrorBody {
    ErrorBody::new(ErrorCode::NotFound, "no request waits under this code")
        .hint("type the code that the page shows now; a request ends after 5 minutes")
}

/// A code as people type it: small letters, and with or without the hyphen.
fn letters(code: &str) -> String {
    code.chars().filter(|c| !matches!(c, '-' | ' ')).map(|c| c.to_ascii_uppercase()).collect()
}
