//! `login`: follows a login in the daemon, opens the browser, hands over what the person pastes.
//!
//! Ctrl-C needs no code: the process dies of it, as shells expect, and the daemon cancels a login when its interactive
//! subscriber goes and nobody else waits for it. Asking for the cancellation would take it from the others too.

mod wait;

use std::sync::Arc;

use mcp_auth_proto::{Client, ClientError, GrantName, GrantSummary, LoginEvent, LoginFlow, LoginRequest};

use self::wait::Wait;
use super::{account, scopes, validity};
use crate::failure::Failure;
use crate::output::{self, field};
use crate::{browser, commands};

/// Log in to a provider with the browser
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl login github
  mcp-authctl login github --account work        a second account, as github:work
  mcp-authctl login github --scope repo --scope read:org
  mcp-authctl login github --device              type a code at a page, on this machine or your phone
  mcp-authctl login internal-api --client-credentials     as the client itself, without a person
  mcp-authctl login github --no-browser          over SSH: open the URL elsewhere, paste the last page's address here
  ssh -L 8765:127.0.0.1:8765 host mcp-authctl login github --no-browser --callback-port 8765")]
pub(crate) struct Args {
    /// The provider, or the grant to renew (github, github:work)
    name: GrantName,
    /// Keep this login apart from others of the provider: it becomes NAME:LABEL
    #[arg(long, value_name = "LABEL")]
    account: Option<String>,
    /// A scope to ask for instead of the provider's usual ones; may be repeated, or hold several separated by spaces
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ' ')]
    scopes: Vec<String>,
    /// Do not open a browser; print the URL, and read the address of the last page from stdin
    #[arg(long)]
    no_browser: bool,
    /// Log in by typing a code at a page on any device (RFC 8628)
    #[arg(long, conflicts_with_all = ["no_browser", "callback_port"])]
    device: bool,
    /// Get a token with the client's own credentials, without a person (RFC 6749 section 4.4)
    #[arg(long, conflicts_with_all = ["no_browser", "device", "callback_port"])]
    client_credentials: bool,
    /// The port for the redirect, to forward it over SSH
    #[arg(long, value_name = "N")]
    callback_port: Option<u16>,
}

pub(crate) fn run(args: Args, client: Client, json: bool) -> Result<(), Failure> {
    let client = Arc::new(client);
    let request = LoginRequest {
        provider: args.name.to_string(),
        account: args.account.clone(),
        scopes: (!args.scopes.is_empty()).then(|| args.scopes.clone()),
        callback_port: args.callback_port,
        flow: flow(&args),
        headless: !browser::available(),
        browser: !args.no_browser && browser::available(),
        interactive: true,
    };
    let mut wait = Wait::new(Arc::clone(&client), args.no_browser);
    for event in client.login(&request)? {
        match event.map_err(gone)? {
            LoginEvent::Started { id, joined, .. } => {
                if joined {
                    output::note("joined the login that is already running");
                }
                wait.began(id);
            }
            LoginEvent::OpenUrl { url, host, open, .. } => show_url(&url, &host, open && request.browser, &mut wait)?,
            LoginEvent::EnterCode { user_code, verification_uri, verification_uri_complete, host, expires_in, open } => {
                wait.over();
                let page =
                    Page { user_code: &user_code, uri: &verification_uri, complete: verification_uri_complete.as_deref(), host: &host };
                page.show(expires_in, open && request.browser)?;
                wait.begin_elsewhere();
            }
            LoginEvent::Exchanging => wait.over(),
            LoginEvent::Done { grant } => {
                wait.over();
                return done(&grant, &args.scopes, json);
            }
            LoginEvent::Failed { error } => {
                wait.over();
                return Err(Failure::LoginFailed(Box::new(error)));
            }
        }
    }
    Err(Failure::Gone("the login was done"))
}

/// What the options ask for; a redirect port or a pasted address mean the code flow.
fn flow(args: &Args) -> Option<LoginFlow> {
    let asked = [
        (args.client_credentials, LoginFlow::ClientCredentials),
        (args.device, LoginFlow::Device),
        (args.no_browser || args.callback_port.is_some(), LoginFlow::Code),
    ];
    asked.into_iter().find_map(|(asked, flow)| asked.then_some(flow))
}

/// Where a device flow sends the person, and what they type there.
struct Page<'a> {
    user_code: &'a str,
    uri: &'a str,
    complete: Option<&'a str>,
    host: &'a str,
}

impl Page<'_> {
    fn show(&self, expires_in: u64, open: bool) -> Result<(), Failure> {
        let complete = self.complete.unwrap_or(self.uri);
        if !browser::is_web_address(self.uri) || !browser::is_web_address(complete) {
            return Err(Failure::OddAddress);
        }
        let host = field(self.host);
        output::note(&format!("open this page on any device: (it belongs to {host})\n{}", self.uri));
        output::note(&format!("and type this code: {}   (good for {})", field(self.user_code), output::span(expires_in)));
        // RFC 8628 section 5.4: the person is to know that they started this themselves.
        output::note("type it only if you started this login yourself");
        if output::can_count()
            && let Some(picture) = qr(complete)
        {
            output::note(&picture);
        }
        if open {
            open_browser(complete);
        }
        Ok(())
    }
}

/// The address as a picture of half blocks, dark on light whatever the terminal's colours are; `None` when it is too long.
fn qr(address: &str) -> Option<String> {
    let code = qrcode::QrCode::with_error_correction_level(address, qrcode::EcLevel::L).ok()?;
    (code.width() <= LARGEST_QR).then(|| {
        // Inverted: on a dark terminal the light modules are what is drawn.
        let colours = (qrcode::render::unicode::Dense1x2::Light, qrcode::render::unicode::Dense1x2::Dark);
        code.render().dark_color(colours.0).light_color(colours.1).build()
    })
}

/// The most modules in a row that fit beside each other in a terminal of 80 columns, with the quiet zone.
const LARGEST_QR: usize = 70;

fn open_browser(url: &str) {
    match browser::open(url) {
        Ok(child) => wait::watch(child),
        Err(error) => output::warning(&format!("no browser could be started ({error}), open the URL yourself")),
    }
}

fn show_url(url: &str, host: &str, open: bool, wait: &mut Wait) -> Result<(), Failure> {
    wait.over();
    if !browser::is_web_address(url) {
        return Err(Failure::OddAddress);
    }
    output::note(&format!("open this URL: (it leads to {})\n{url}", field(host)));
    if open {
        open_browser(url);
    }
    wait.begin();
    Ok(())
}

fn done(grant: &GrantSummary, asked: &[String], json: bool) -> Result<(), Failure> {
    if let Some(difference) = difference(asked, &grant.scopes) {
        output::warning(&difference);
    }
    if json {
        return output::json(grant);
    }
    output::note(&format!("logged in to {}{} (scopes: {}){}", grant.name, account(grant), scopes(&grant.scopes), validity(grant)));
    if !grant.refreshable && grant.expires_in.is_some() {
        output::note("the provider gave no refresh token: log in again when it has expired");
    }
    Ok(())
}

/// What was asked for and not granted, and the other way round. Nothing when nothing was asked for by name.
fn difference(asked: &[String], granted: &[String]) -> Option<String> {
    let without = |these: &[String], those: &[String]| these.iter().filter(|scope| !those.contains(scope)).cloned().collect::<Vec<_>>();
    let (mut missing, extra) = (without(asked, granted), without(granted, asked));
    // It asks for a refresh token; many servers that give one do not list it.
    missing.retain(|scope| scope != "offline_access");
    let mut parts = Vec::new();
    if asked.is_empty() || granted.is_empty() {
        return None;
    }
    if !missing.is_empty() {
        parts.push(format!("not granted: {}", commands::scopes(&missing)));
    }
    if !extra.is_empty() {
        parts.push(format!("granted without being asked for: {}", commands::scopes(&extra)));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// A stream that breaks off is a daemon that has ended.
fn gone(error: ClientError) -> Failure {
    match error {
        ClientError::Protocol(mcp_auth_proto::Malformed::Truncated) | ClientError::Io(_) => Failure::Gone("the login was done"),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_of_scopes_names_both_sides() {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(difference(&list("a b"), &list("b a")), None);
        assert_eq!(difference(&[], &list("a")), None);
        assert_eq!(difference(&list("a offline_access"), &list("a")), None);
        assert_eq!(difference(&list("a b"), &list("b")).unwrap(), "not granted: a");
        assert_eq!(difference(&list("a b"), &list("b c")).unwrap(), "not granted: a; granted without being asked for: c");
    }
}
