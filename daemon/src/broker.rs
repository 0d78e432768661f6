//! The one task that owns every grant: a mailbox, a timer, and the effects that the grants ask for. It never blocks,
//! and there is no lock elsewhere.

use mcp_auth_proto as wire;
use mcp_auth_proto::{ErrorBody, GrantName};
use tokio::sync::mpsc;

/// How the routes reach the broker. Cheap to clone. Every answer is an [`ErrorBody`] or what the wire says.
#[derive(Clone, Debug)]
pub struct Broker {
    mailbox: mpsc::UnboundedSender<()>,
}

impl Broker {
    /// `POST /v1/token`. Dropping the future withdraws the question; a refresh that it started goes on.
    pub async fn token(&self, request: wire::TokenRequest) -> Result<wire::TokenAnswer, ErrorBody> {
        todo!()
    }
    /// `GET /v1/grants`.
    pub async fn grants(&self) -> Result<Vec<wire::GrantSummary>, ErrorBody> {
        todo!()
    }
    /// `GET /v1/grants/NAME`.
    pub async fn grant(&self, name: GrantName) -> Result<wire::GrantSummary, ErrorBody> {
        todo!()
    }
    /// `PUT /v1/grants/NAME`.
    pub async fn add_token(&self, name: GrantName, token: wire::StaticToken) -> Result<wire::GrantSummary, ErrorBody> {
        todo!()
    }
    /// `DELETE /v1/grants/NAME`.
    pub async fn logout(&self, name: GrantName) -> Result<wire::LogoutAnswer, ErrorBody> {
        todo!()
    }
    /// `POST /v1/grants/NAME/refresh`.
    pub async fn refresh(&self, name: GrantName, request: wire::RefreshRequest) -> Result<wire::GrantSummary, ErrorBody> {
        todo!()
    }
    /// `POST /v1/logins`. Dropping the receiver is going away.
    pub async fn login(&self, request: wire::LoginRequest) -> Result<mpsc::UnboundedReceiver<wire::LoginEvent>, ErrorBody> {
        todo!()
    }
    /// `POST /v1/logins/ID/redirect`.
    pub async fn pasted_redirect(&self, id: String, redirect: wire::PastedRedirect) -> Result<(), ErrorBody> {
        todo!()
    }
    /// `DELETE /v1/logins/ID`.
    pub async fn cancel_login(&self, id: String) -> Result<(), ErrorBody> {
        todo!()
    }
    /// `GET /v1/providers`.
    pub async fn providers(&self) -> Result<Vec<wire::ProviderSummary>, ErrorBody> {
        todo!()
    }
    /// `PUT /v1/providers/NAME`.
    pub async fn define_provider(&self, name: String, definition: wire::ProviderDefinition) -> Result<wire::ProviderSummary, ErrorBody> {
        todo!()
    }
    /// `PUT /v1/providers/NAME/secret`.
    pub async fn set_client_secret(&self, name: String, request: wire::ClientSecretRequest) -> Result<wire::ProviderSummary, ErrorBody> {
        todo!()
    }
    /// `POST /v1/vault/setup`.
    pub async fn vault_setup(&self, request: wire::VaultSetup) -> Result<wire::VaultStatus, ErrorBody> {
        todo!()
    }
    /// `POST /v1/vault/unlock`.
    pub async fn vault_unlock(&self, request: wire::VaultUnlock) -> Result<wire::VaultStatus, ErrorBody> {
        todo!()
    }
    /// `POST /v1/vault/lock`.
    pub async fn vault_lock(&self) -> Result<wire::VaultStatus, ErrorBody> {
        todo!()
    }
    /// `POST /v1/vault/rekey`.
    pub async fn vault_rekey(&self, request: wire::VaultRekey) -> Result<wire::VaultStatus, ErrorBody> {
        todo!()
    }
    /// `POST /v1/vault/backup`.
    pub async fn vault_backup(&self, request: wire::VaultBackup) -> Result<wire::VaultStatus, ErrorBody> {
        todo!()
    }
    /// `POST /v1/reload` and SIGHUP.
    pub async fn reload(&self) -> Result<wire::ConfigStatus, ErrorBody> {
        todo!()
    }
    /// `GET /v1/status`.
    pub async fn status(&self) -> Result<wire::Status, ErrorBody> {
        todo!()
    }
    /// `GET /v1/events`. Dropping the receiver is going away; a reader that is too slow is dropped.
    pub async fn events(&self) -> Result<mpsc::Receiver<wire::Event>, ErrorBody> {
        todo!()
    }
    /// SIGTERM: lets refreshes in flight finish and be saved, at most 10 s. Returns when nothing is left to do.
    pub async fn shutdown(&self) {
        todo!()
    }
}
