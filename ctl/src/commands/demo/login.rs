//! The demo's login: the code flow with PKCE like any other, by the person in their browser, or, where that cannot be, by
//! the demo in place of both.

use std::io::{self, BufRead, IsTerminal};
use std::sync::Arc;

use mcp_auth_proto::{ApprovalDecision, Client, LoginEvent, LoginFlow, LoginRequest};

use super::{DemoError, NAME};
use crate::browser::{self, Absence};
use crate::commands::approve;
use crate::failure::Failure;
use crate::output;
use crate::web::{self, Answer};

/// Who answers the issuer's page.
pub(super) enum Way {
    /// The person, in the browser and at this terminal.
    Browser,
    /// The demo itself, for this reason.
    Itself(&'static str),
}

impl Way {
    pub(super) fn is_browser(&self) -> bool {
        matches!(self, Self::Browser)
    }

    pub(super) fn because(&self) -> Option<&'static str> {
        match self {
            Self::Browser => None,
            Self::Itself(reason) => Some(reason),
        }
    }
}

/// A browser and a terminal to type the page's code on are both needed.
pub(super) fn way() -> Way {
    match browser::absence() {
        Some(Absence::Ssh) => Way::Itself("this is an SSH connection"),
        Some(Absence::Container | Absence::NoDisplay) => Way::Itself("there is no display"),
        None if !io::stdin().is_terminal() || !output::can_count() => Way::Itself("there is no terminal to type the page's code on"),
        None => Way::Browser,
    }
}

/// Logs in. The code that was approved, if the demo did that itself.
pub(super) fn log_in(client: &Arc<Client>, issuer: &str, way: &Way) -> Result<Option<String>, Failure> {
    let mut approved = None;
    for event in client.login(&request(way.is_browser()))? {
        match (event?, way) {
            (LoginEvent::OpenUrl { url, .. }, Way::Browser) => show(client, &url)?,
            (LoginEvent::OpenUrl { url, redirect_uri, .. }, Way::Itself(_)) => {
                approved = Some(answer(client, issuer, &url, &redirect_uri)?);
            }
            (LoginEvent::Done { .. }, _) => return Ok(approved),
            (LoginEvent::Failed { error }, _) => return Err(Failure::LoginFailed(Box::new(error))),
            _ => {}
        }
    }
    Err(Failure::Gone("the login was done"))
}

fn request(browser: bool) -> LoginRequest {
    LoginRequest {
        provider: NAME.to_owned(),
        account: None,
        scopes: None,
        callback_port: None,
        flow: Some(LoginFlow::Code),
        headless: false,
        login_hint: None,
        without_refresh_scopes: false,
        replace: false,
        asks: false,
        exchange: None,
        unprompted: false,
        browser,
        interactive: true,
    }
}

/// Leaves it to the person. The page names a command for their own daemon; here the code alone is typed.
fn show(client: &Arc<Client>, url: &str) -> Result<(), Failure> {
    if !browser::is_web_address(url) {
        return Err(Failure::OddAddress);
    }
    output::note(&format!(
        "open this URL, if your browser does not by itself:\n{url}\nthen type the code that the page shows here, and Enter:"
    ));
    // The URL stands there, for a browser that does not start.
    if let Ok(mut child) = browser::open(url) {
        std::thread::spawn(move || child.wait());
    }
    let client = Arc::clone(client);
    // It reads for as long as this process lives.
    std::thread::spawn(move || take_codes(&client));
    Ok(())
}

fn take_codes(client: &Client) {
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        // The whole command of the page does too.
        let Some(code) = line.split_whitespace().last() else { continue };
        let decided = client.approval(code).inspect(approve::describe).and_then(|_| client.decide(code, &ApprovalDecision { allow: true }));
        match decided {
            Ok(_) => return output::note("approved; the page goes on by itself"),
            Err(error) => output::complaint(&error.to_string(), Some("type the code as the page shows it")),
        }
    }
}

/// Does what a browser and a person would do: fetches the page, approves the code on it over the socket, and goes on where
/// the page goes then. The code.
fn answer(client: &Client, issuer: &str, url: &str, redirect_uri: &str) -> Result<String, Failure> {
    let page = get(url)?;
    let odd = || DemoError::OddPage(page.status);
    if !url.starts_with(issuer) || page.status != 200 {
        return Err(odd().into());
    }
    let code = between(&page.body, "mcp-authctl approve <b>", "<").ok_or_else(odd)?;
    let next = between(&page.body, "url=/oauth/authorize?pending=", "\"").ok_or_else(odd)?;
    client.decide(code, &ApprovalDecision { allow: true })?;
    let approved = get(&format!("{issuer}/oauth/authorize?pending={next}"))?;
    let back = approved.location.filter(|to| to.starts_with(redirect_uri)).ok_or(DemoError::OddPage(approved.status))?;
    // How the login goes on, its own events tell.
    get(&back)?;
    Ok(code.to_owned())
}

fn get(url: &str) -> Result<Answer, DemoError> {
    Ok(web::get(url, None)?)
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = text.split_once(before)?.1;
    Some(rest.split_once(after)?.0)
}
