//! `login`: follows a login in the daemon, opens the browser, hands over what the person pastes.
//!
//! Ctrl-C needs no code: the process dies of it, as shells expect, and the daemon cancels a login when its interactive
//! subscriber goes and nobody else waits for it. Asking for the cancellation would take it from the others too.

mod page;
mod register;
pub(crate) mod remote;
mod wait;

use std::io::{self, IsTerminal};
use std::sync::Arc;

use mcp_auth_proto::{
    Client, ClientError, CodeExchange, ErrorCode, GrantName, GrantSummary, LoginDecision, LoginEvent, LoginFlow, LoginRequest, NameError,
    Secret,
};

use self::page::Page;
use self::remote::RemoteArgs;
use self::wait::Wait;
use super::bearer::{BearerArgs, Stdin, with_files};
use super::target::Target;
use super::{account, scopes, validity};
use crate::failure::Failure;
use crate::output::{self, field};
use crate::{ask, browser, commands};

/// Log in to a provider, or to a remote MCP server by its URL
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl login github
  mcp-authctl login github --client-id Ov23liabc   the first time; without it you are asked
  mcp-authctl login github:work                  a second account beside github
  mcp-authctl login github --scope repo --scope read:org
  mcp-authctl login github --device              type a code at a page, here or on your phone
  mcp-authctl login internal-api --client-credentials     as the client itself, without a person
  mcp-authctl login https://mcp.example.com/mcp  a remote MCP server: nothing to set up before
  mcp-authctl login https://a.example --client-credentials --client-id ID --private-key-file F
  mcp-authctl login https://a.example --client-id build --assertion-file /run/secrets/mcp
  mcp-authctl login github --no-browser          over SSH: open the URL elsewhere, paste the last
                                                 page's address here
  mcp-authctl login github --callback-port 8765  over SSH too: `ssh -N -L 8765:127.0.0.1:8765 host`
                                                 brings the redirect here
  mcp-authctl login work --code - --verifier - --redirect-uri https://a.example/cb
                                                 two lines on stdin: code, verifier")]
pub(crate) struct Args {
    /// The provider, the grant to renew (github, github:work), or the URL of a remote MCP server
    #[arg(value_name = "NAME")]
    target: Target,
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
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    callback_port: Option<u16>,
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(flatten)]
    bearer: BearerArgs,
    /// Who will log in, as the provider knows them; else it is told the account that is held
    #[arg(long, value_name = "WHO")]
    login_hint: Option<String>,
    /// If another account logs in than the one that is held, put it in its place without asking
    #[arg(long)]
    replace: bool,
    /// Ask for a token that does not expire, where the provider has both kinds (GitHub)
    #[arg(long)]
    no_expiring: bool,
    /// Finish a login that you began by hand (`mcp-authctl pkce`): the code of the redirect, or - for a line of stdin
    #[arg(long, value_name = "CODE", requires_all = ["verifier", "redirect_uri"], conflicts_with_all = ["device", "client_credentials", "no_browser", "callback_port"])]
    code: Option<String>,
    /// The code verifier, from stdin: -
    #[arg(long, value_name = "-", value_parser = ["-"], requires = "code")]
    verifier: Option<String>,
    /// The redirect URI that you sent
    #[arg(long, value_name = "URI", requires = "code")]
    redirect_uri: Option<String>,
}

pub(crate) fn run(args: Args, client: Client, json: bool) -> Result<(), Failure> {
    let client = Arc::new(client);
    let mut request = request(&args)?;
    args.remote.place(&args.target, &client, &mut request)?;
    args.bearer.place(Stdin::Ours, &mut request)?;
    if !args.scopes.is_empty() {
        tell_new_scopes(&client, &args);
    }
    match log_in(&client, &request, &args, json) {
        Err(Failure::LoginFailed(error)) if error.error == ErrorCode::Conflict => {
            let failure = Failure::LoginFailed(error);
            let Some(name) = args.target.name() else { return Err(failure) };
            register::complete(&client, name.base(), failure, json)?;
            log_in(&client, &request, &args, json)
        }
        outcome => outcome,
    }
}

fn request(args: &Args) -> Result<LoginRequest, Failure> {
    Ok(LoginRequest {
        provider: match &args.target {
            Target::Grant(name) => name.to_string(),
            Target::Resource(url) => url.clone(),
        },
        account: args.account.clone(),
        scopes: (!args.scopes.is_empty()).then(|| args.scopes.clone()),
        callback_port: args.callback_port,
        flow: flow(args),
        headless: !browser::available(),
        login_hint: args.login_hint.clone(),
        without_refresh_scopes: args.no_expiring,
        replace: args.replace,
        asks: may_ask(),
        exchange: exchange(args)?,
        unprompted: false,
        browser: !args.no_browser && browser::available(),
        interactive: true,
        // The others are for a remote server.
        ..LoginRequest::default()
    })
}

/// The code and the verifier, in this order, from stdin. The code may be given: it is good for one use, with its verifier.
fn exchange(args: &Args) -> Result<Option<CodeExchange>, Failure> {
    let (Some(code), Some(redirect_uri)) = (&args.code, &args.redirect_uri) else { return Ok(None) };
    let code = if code == "-" { ask::token("the code", "code: ")? } else { Secret::new(code.as_str()) };
    let code_verifier = ask::token("the code verifier", "code verifier: ")?;
    Ok(Some(CodeExchange { code, code_verifier, redirect_uri: redirect_uri.clone() }))
}

/// Whether a person is there to answer.
fn may_ask() -> bool {
    io::stdin().is_terminal() && output::can_count()
}

fn log_in(client: &Arc<Client>, request: &LoginRequest, args: &Args, json: bool) -> Result<(), Failure> {
    let follow = |request: &LoginRequest| follow(client, request, args, json);
    with_files(request, follow, |end| matches!(end, Err(Failure::LoginFailed(_))))?
}

fn follow(client: &Arc<Client>, request: &LoginRequest, args: &Args, json: bool) -> Result<(), Failure> {
    let mut wait = Wait::new(Arc::clone(client), args.no_browser);
    let mut named = args.target.to_string();
    for event in client.login(request)? {
        match event.map_err(gone)? {
            LoginEvent::Started { id, grant, joined } => {
                if args.account.is_none() && args.target.name().is_some_and(|name| *name != grant) {
                    output::note(&format!("{} stands for {grant}", args.target));
                }
                named = grant.to_string();
                if joined {
                    output::note("joined the login that is already running");
                }
                wait.began(id);
            }
            LoginEvent::ServerFound { server, authorization_server } => remote::tell_server(&server, &authorization_server),
            LoginEvent::ClientChosen { client, client_id, scopes } => remote::tell_client(client, &client_id, &scopes),
            LoginEvent::OpenUrl { url, host, redirect_uri, open } => {
                wait.over();
                page::show_url(&url, &host, open && request.browser)?;
                if let Some(absence) = browser::absence() {
                    page::tell_the_way_back(absence, &redirect_uri, &named, wait.reads());
                }
                wait.begin();
            }
            LoginEvent::EnterCode { user_code, verification_uri, verification_uri_complete, host, expires_in, open } => {
                wait.over();
                let page =
                    Page { user_code: &user_code, uri: &verification_uri, complete: verification_uri_complete.as_deref(), host: &host };
                page.show(expires_in, open && request.browser)?;
                wait.begin_elsewhere();
            }
            LoginEvent::Exchanging => wait.over(),
            LoginEvent::OtherAccount { grant, held, new } if request.asks => {
                wait.over();
                decide(client, &wait, &grant, (&held, &new));
            }
            LoginEvent::OtherAccount { .. } => {}
            LoginEvent::Done { grant, same_account } => {
                wait.over();
                return done(&grant, &same_account, &args.scopes, json);
            }
            LoginEvent::Failed { error } => {
                wait.over();
                return Err(Failure::LoginFailed(Box::new(error)));
            }
        }
    }
    Err(Failure::Gone("the login was done"))
}

/// Asks whose login it shall be. The login's own events tell what came of it.
fn decide(client: &Client, wait: &Wait, grant: &GrantName, (held, new): (&str, &str)) {
    output::note(&format!("{grant} holds the login of {}, and {} has logged in", field(held), field(new)));
    loop {
        output::prompt(&format!("replace it? [y/N], or a label to keep both ({}:LABEL): ", grant.base()));
        let answer = wait.answer().unwrap_or_default();
        let decision = match answer.trim() {
            "y" | "Y" | "yes" => LoginDecision { replace: true, account: None },
            "" | "n" | "N" | "no" => LoginDecision::default(),
            label => LoginDecision { replace: false, account: Some(label.to_owned()) },
        };
        let labelled = decision.account.is_some();
        match wait.decide(client, &decision) {
            // A label that will not do: another may.
            Err(error) if labelled && matches!(error.error, ErrorCode::InvalidRequest | ErrorCode::Conflict) => {
                output::complaint(&error.error_description, None);
            }
            _ => return,
        }
    }
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

/// Tells what a login with scopes of its own changes about the grant. Nothing where nobody is logged in.
fn tell_new_scopes(client: &Client, args: &Args) {
    let Ok(name) = args.target.grant(client) else { return };
    let named = |label: &String| -> Result<GrantName, NameError> { GrantName::with_label(name.base(), label) };
    let Ok(name) = args.account.as_ref().map_or_else(|| Ok(name.clone()), named) else { return };
    let Ok(held) = client.grant(&name) else { return };
    let (new, dropped) = (without(&args.scopes, &held.scopes), without(&held.scopes, &args.scopes));
    let told = [("new", new), ("no longer asked for", dropped)].into_iter().filter(|(_, scopes)| !scopes.is_empty());
    let told: Vec<_> = told.map(|(word, scopes)| format!("{word}: {}", commands::scopes(&scopes))).collect();
    if !told.is_empty() {
        output::note(&format!("beside what {} has now, {}", held.name, told.join("; ")));
    }
}

fn done(grant: &GrantSummary, same_account: &[GrantName], asked: &[String], json: bool) -> Result<(), Failure> {
    if let Some(other) = same_account.first() {
        output::warning(&format!("{other} is the same account; for another one, log out in the browser first, then log in here again"));
    }
    if let Some(difference) = difference(asked, &grant.scopes) {
        output::warning(&difference);
    }
    if json {
        return output::json(grant);
    }
    output::note(&format!("logged in to {}{} (scopes: {}){}", grant.name, account(grant), scopes(&grant.scopes), validity(grant)));
    if grant.assertion.is_some() && !grant.refreshable {
        output::note("the token was given for this once: give another when it has expired");
    } else if !grant.refreshable && grant.expires_in.is_some() {
        output::note("the provider gave no refresh token: log in again when it has expired");
    }
    if !grant.refreshable && grant.expires_in.is_none() {
        let told =
            if grant.never_expires { "the token does not expire" } else { "the provider told no expiry, the token may be good for ever" };
        output::note(&format!("{told}: mcp-authctl logout {} ends it", grant.name));
    }
    Ok(())
}

/// What was asked for and not granted, and the other way round. Nothing when nothing was asked for by name.
fn difference(asked: &[String], granted: &[String]) -> Option<String> {
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

fn without(these: &[String], those: &[String]) -> Vec<String> {
    these.iter().filter(|scope| !those.contains(scope)).cloned().collect()
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
