//! What happens to a grant whose state machine panicked: nobody is served from it until the daemon restarts, and what it
//! knew that the disk does not is written there first.

use std::panic::{AssertUnwindSafe, catch_unwind};

use mcp_auth_proto::{ErrorBody, ErrorCode, GrantName};

use super::core::{Core, answer, grant_id};
use crate::clock::Now;
use crate::grant::record::GrantRecord;
use crate::grant::{Grant, Input};
use crate::oauth::token::TokenResponse;
use crate::vault::{Record, VaultError};

/// The tokens that an input brings to a grant that waits for them. A rotated refresh token exists once: it must outlive a
/// fault of whoever takes it in.
pub(super) fn brought(grant: &Grant, input: &Input) -> Option<(TokenResponse, Now)> {
    match input {
        Input::Refreshed(ticket, sent_at, Ok(response)) if grant.is_running(*ticket) => Some((response.clone(), *sent_at)),
        _ => None,
    }
}

impl Core {
    /// Lets go of a grant that panicked, over these new tokens if they are not saved yet.
    pub(super) fn put_aside(&mut self, name: &GrantName, brought: Option<(TokenResponse, Now)>) {
        tracing::error!(grant = %name, "the grant's state machine failed; it is set aside until the daemon restarts");
        if let Some(grant) = self.forget(name) {
            // What it left may be as wrong as what it did.
            if let Ok(Some(record)) = catch_unwind(AssertUnwindSafe(|| unsaved(&grant, brought))) {
                self.rescue(name, &record);
            }
        }
        self.set_aside.insert(name.clone());
        self.unstored(name);
        let lost: Vec<_> = self.askers.iter().filter(|(_, waiting)| waiting.grant == *name).map(|(asker, _)| *asker).collect();
        for asker in lost {
            if let Some(waiting) = self.askers.remove(&asker) {
                answer(waiting.reply, Err(Self::aside(name)));
            }
        }
    }

    pub(super) fn aside(name: &GrantName) -> ErrorBody {
        ErrorBody::new(ErrorCode::InternalError, format!("`{name}` is set aside after a fault of the daemon; its record is unharmed"))
            .hint("restart mcp-authd, and report the fault")
    }

    fn rescue(&mut self, name: &GrantName, record: &GrantRecord) {
        let sealed = Record { id: grant_id(name), generation: record.generation, plaintext: record.to_plaintext() };
        let name = name.clone();
        let done = self.back(move |core, result: Result<(), VaultError>| {
            core.rescues -= 1;
            if let Err(error) = result {
                tracing::error!(grant = %name, %error, "its newest refresh token could not be written to disk and is lost");
            }
        });
        self.rescues += 1;
        self.edges.vault.save(sealed, done);
    }
}

/// The record of a grant as it would have become, if the disk has not got it.
fn unsaved(grant: &Grant, brought: Option<(TokenResponse, Now)>) -> Option<GrantRecord> {
    if brought.is_none() && !grant.is_not_durable() {
        return None;
    }
    let mut record = grant.newest().clone();
    if let Some((response, sent_at)) = brought {
        record.merge(response, sent_at);
    }
    record.generation += 1;
    Some(record)
}
