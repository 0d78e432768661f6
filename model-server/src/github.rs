//! The two requests to GitHub that the tool needs. Whose token it is, is not this file's business.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const PATIENCE: Duration = Duration::from_secs(20);

/// GitHub's API at some address.
#[derive(Clone, Debug)]
pub(crate) struct GitHub {
    http: Client,
    base: String,
}

/// A GitHub user.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct User {
    login: String,
    name: Option<String>,
    html_url: Option<String>,
    public_repos: Option<u64>,
    followers: Option<u64>,
}

/// A repository that the user can see.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct Repository {
    full_name: String,
    description: Option<String>,
    html_url: Option<String>,
    private: bool,
}

/// What GitHub did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GitHubError {
    /// The token is not taken (any more).
    #[error("GitHub does not take the token")]
    Rejected,
    #[error("GitHub answers {0}")]
    Refused(StatusCode),
    #[error("GitHub cannot be reached")]
    Unreachable,
    #[error("GitHub's answer makes no sense")]
    Malformed,
}

impl GitHub {
    /// GitHub's API at `base`, which has no slash at the end.
    pub(crate) fn at(base: &str) -> Result<Self, reqwest::Error> {
        let agent = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
        // A redirect would take the token with it.
        let http = Client::builder().user_agent(agent).timeout(PATIENCE).redirect(Policy::none()).build()?;
        Ok(Self { http, base: base.to_owned() })
    }

    /// `GET /user`.
    pub(crate) async fn user(&self, token: &str) -> Result<User, GitHubError> {
        self.get("/user", token).await
    }

    /// `GET /user/repos`, the latest `limit` (1 to 100).
    pub(crate) async fn repositories(&self, token: &str, limit: u8) -> Result<Vec<Repository>, GitHubError> {
        self.get(&format!("/user/repos?sort=updated&per_page={limit}"), token).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, token: &str) -> Result<T, GitHubError> {
        let request = self.http.get(format!("{}{path}", self.base)).bearer_auth(token).header("accept", "application/vnd.github+json");
        let answer = request.send().await.map_err(|_| GitHubError::Unreachable)?;
        match answer.status() {
            StatusCode::UNAUTHORIZED => return Err(GitHubError::Rejected),
            status if !status.is_success() => return Err(GitHubError::Refused(status)),
            _ => {}
        }
        let body = answer.bytes().await.map_err(|_| GitHubError::Unreachable)?;
        serde_json::from_slice(&body).map_err(|_| GitHubError::Malformed)
    }
}
