//! Desktop notifications: tells [`Notices`] what happens to the grants, shows what it finds worth showing, and does what a
//! person presses.

use std::collections::BTreeSet;
use std::time::Duration;

use mcp_auth_proto as wire;
use mcp_auth_proto::{ErrorCode, GrantName};
use tokio::sync::mpsc;

use super::core::{Core, answer};
use super::{Message, Reply};
use crate::clock::Now;
use crate::grant::News;
use crate::grant::mcp::LoginKind;
use crate::notices::{Act, Condition, Notices, Occasion, Wish};
use crate::notify::ctl::Ctl;
use crate::notify::{Desktop, Key, NotifyError, Report, Screen};

/// How long the desktop may take to clear what is shown before we end.
const CLEARING: Duration = Duration::from_secs(1);

/// What is told, where, and by whom a login is run.
pub(super) struct Board {
    notices: Notices,
    desktop: Desktop,
    screen: Screen,
    /// The trouble that was logged last: the same one is not logged at every notification.
    trouble: Option<NotifyError>,
    /// Logins that a button has started.
    logging_in: BTreeSet<GrantName>,
}

impl Board {
    pub(super) fn new(enabled: bool, desktop: Desktop, mailbox: &mpsc::UnboundedSender<Message>) -> Self {
        let mailbox = mailbox.clone();
        let tell = move |report| {
            // A core that has gone shows nothing.
            let _ = mailbox.send(Box::new(move |core: &mut Core| core.notice_reported(report)));
        };
        Self {
            notices: Notices::new(enabled && desktop != Desktop::None),
            desktop,
            screen: Screen::new(desktop, std::sync::Arc::new(tell)),
            trouble: None,
            logging_in: BTreeSet::new(),
        }
    }

    pub(super) fn wake_at(&self) -> Option<crate::clock::Boot> {
        self.notices.wake_at()
    }

    fn carry_out(&mut self, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Show(key, notification) => self.screen.show(key, notification),
                Act::Close(key) => self.screen.close(key),
            }
        }
        if self.notices.is_empty() {
            self.screen.rest();
        }
    }
}

impl Core {
    /// Looks at a grant to which this has happened.
    pub(super) fn notice_news(&mut self, name: &GrantName, news: &News) {
        let now = self.now();
        let occasion = match news {
            News::NotDurable(_) => return self.board.notices.not_saved(name, now.boot),
            News::Durable => {
                let acts = self.board.notices.saved(name);
                return self.board.carry_out(acts);
            }
            News::RefreshTokenEnding(sentence) => Occasion::Ending(sentence.clone()),
            News::LoggedIn | News::Refreshed | News::RefreshFailed(_) | News::LoginRequired(_) => Occasion::News,
        };
        self.notice(name, &occasion);
    }

    /// Somebody asked for a token of this grant and got this instead.
    pub(super) fn notice_refusal(&mut self, name: &GrantName, error: ErrorCode) {
        if matches!(error, ErrorCode::LoginRequired | ErrorCode::ProviderUnreachable) {
            self.notice(name, &Occasion::AskedInVain);
        }
    }

    /// Looks at a grant again, or at its absence.
    pub(super) fn notice(&mut self, name: &GrantName, occasion: &Occasion) {
        let now = self.now();
        let condition = self.condition(name, now);
        let acts = self.board.notices.look(name, condition.as_ref(), occasion, now.boot);
        self.board.carry_out(acts);
    }

    fn condition(&self, name: &GrantName, now: Now) -> Option<Condition> {
        let grant = self.grants.get(name)?;
        let summary = grant.summary(now);
        Some(Condition {
            health: grant.health(now),
            expired: !grant.is_servable(now),
            ending: summary.refresh_token_ending,
            remedy: summary.remedy,
            by_click: self.logs_in_by_browser(name),
        })
    }

    /// Whether a login of this grant needs a browser and nothing that is typed.
    fn logs_in_by_browser(&self, name: &GrantName) -> bool {
        let Some(definition) = self.grants.get(name).map(|grant| &grant.record().definition) else { return false };
        let Some(provider) = self.config.provider(&definition.provider) else { return false };
        let by_code = matches!(LoginKind::of(&provider.quirks), LoginKind::Code | LoginKind::CodeWithoutPkce);
        let lacks_secret = provider.needs_client_secret() && self.secret_of(provider).is_none();
        by_code && !lacks_secret && !definition.is_static() && !definition.is_unattended()
    }

    /// The config was read.
    pub(super) fn notices_configured(&mut self) {
        let enabled = self.config.notifications && self.board.desktop != Desktop::None;
        let acts = self.board.notices.enable(enabled);
        self.board.carry_out(acts);
    }

    /// The machine was asleep.
    pub(super) fn notices_slept(&mut self) {
        self.board.notices.slept();
    }

    /// Something may be due.
    pub(super) fn notices_woke(&mut self, now: Now) {
        let acts = self.board.notices.woke(now.boot);
        self.board.carry_out(acts);
    }

    /// A program waits for a person's word.
    pub(super) fn notice_consent(&mut self, consent: &wire::Consent) {
        let now = self.now();
        let acts = self.board.notices.consent(consent, now.boot);
        self.board.carry_out(acts);
    }

    /// Takes away the questions that are decided, or whose time is over.
    pub(super) fn notice_consents_over(&mut self) {
        let now = self.now().boot;
        let waiting: BTreeSet<_> = self.policy.asks.waiting(now).map(|ask| ask.id.as_str()).collect();
        let over: Vec<_> = self.board.notices.consents().filter(|id| !waiting.contains(id)).map(str::to_owned).collect();
        let acts = over.iter().flat_map(|id| self.board.notices.consent_over(id)).collect();
        self.board.carry_out(acts);
    }

    /// Whether a person sees this question, for all that we know.
    pub(super) fn shows_consent(&self, id: &str) -> bool {
        self.board.notices.consents().any(|shown| shown == id)
    }

    /// We end: what is shown goes first, if that is quick.
    pub(super) fn clear_notices(&mut self, then: impl FnOnce(&mut Self) + Send + 'static) {
        let acts = self.board.notices.close_all();
        self.board.carry_out(acts);
        match self.board.screen.end() {
            Some(ended) => drop(self.task(tokio::time::timeout(CLEARING, ended), |core, _| then(core))),
            None => then(self),
        }
    }

    fn notice_reported(&mut self, report: Report) {
        match report {
            Report::Pressed(key, button) => {
                if let Some(wish) = self.board.notices.pressed(key, &button) {
                    self.grant_wish(key, wish);
                }
            }
            Report::Closed(key) => {
                self.board.notices.closed(key);
                self.board.carry_out(Vec::new());
            }
            Report::Failed(key, error) => {
                if self.board.trouble.as_ref() != Some(&error) {
                    tracing::info!("a desktop notification could not be shown: {error}");
                    self.board.trouble = Some(error);
                }
                let now = self.now();
                let unseen = self.board.notices.failed(key, now.boot);
                // What it was to replace may still be there.
                self.board.screen.close(key);
                self.board.carry_out(Vec::new());
                if let Some(id) = unseen {
                    self.consent_unseen(&id);
                }
            }
        }
    }

    fn grant_wish(&mut self, key: Key, wish: Wish) {
        let acts = self.board.notices.answered(key);
        self.board.carry_out(acts);
        match wish {
            Wish::LogIn(name) => self.log_in_by_click(name),
            Wish::Refresh(name) => {
                tracing::info!(grant = %name, "a refresh was asked for on a notification");
                self.refresh_by_click(name);
            }
            Wish::Decide { id, allow } => {
                tracing::info!(allow, "a question was answered on a notification");
                if let Err(error) = self.decide_consent(&id, allow, None) {
                    tracing::info!("that answer came too late: {error}");
                }
            }
        }
    }

    pub(super) fn refresh_by_click(&mut self, name: GrantName) {
        let (reply, answered) = tokio::sync::oneshot::channel();
        let asker = self.own_asker();
        self.refresh(asker, name.clone(), false, reply);
        self.task(answered, move |core, answer| {
            if !matches!(answer, Some(Ok(Ok(_)))) {
                core.tell_again(&name);
            }
        });
    }

    /// What a person has begun on a notification came to nothing: they hear of it.
    fn tell_again(&mut self, name: &GrantName) {
        self.board.notices.untell(name);
        self.notice(name, &Occasion::AskedInVain);
    }

    /// The browser is `mcp-authctl`'s to open.
    fn log_in_by_click(&mut self, name: GrantName) {
        if !self.board.logging_in.insert(name.clone()) {
            return;
        }
        tracing::info!(grant = %name, "a login was asked for on a notification");
        let (ctl, of) = (Ctl::of_this_process(), name.clone());
        let errand = async move { ctl.run(&["login", of.as_str()]).await };
        self.task(errand, move |core, outcome| {
            core.board.logging_in.remove(&name);
            match outcome {
                Some(Ok(true)) => return,
                Some(Ok(false)) | None => tracing::info!(grant = %name, "that login was not finished"),
                Some(Err(error)) => tracing::warn!(grant = %name, "mcp-authctl could not be started: {error}"),
            }
            core.tell_again(&name);
        });
    }

    /// `GET /v1/notifications`.
    pub(super) fn notifications(&mut self, reply: Reply<wire::Notifications>) {
        let (enabled, desktop) = (self.config.notifications, self.board.desktop);
        self.task(desktop.probe(), move |_, found| {
            let (server, error) = match found.unwrap_or(Err(NotifyError::Silent)) {
                Ok(server) => (server, None),
                Err(error) => (None, Some(error.to_string())),
            };
            answer(reply, Ok(wire::Notifications { enabled, server, error }));
        });
    }
}
