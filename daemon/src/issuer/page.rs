//! PURE: the pages, as HTML without a script and without anything from elsewhere. Whatever is not a text of ours is escaped.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use url::{Host, Url};

use super::error::Code;

/// What the person is asked about.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    /// What people call the client, and its id.
    pub(crate) client: &'a str,
    pub(crate) client_id: &'a str,
    pub(crate) redirect_uri: &'a str,
    /// The MCP server; `None`: the issuer itself.
    pub(crate) resource: Option<&'a str>,
    pub(crate) scopes: &'a [String],
    /// What is to be typed.
    pub(crate) code: &'a str,
    /// The request's own name, and the proof that a form is of its page.
    pub(crate) pending: &'a str,
    pub(crate) csrf: &'a str,
}

const STYLE: &str = include_str!("page.css");

/// The Content-Security-Policy of every page: the one style sheet, forms to ourselves, nothing else and in no frame.
pub(crate) static POLICY: LazyLock<String> = LazyLock::new(|| {
    let style = STANDARD.encode(Sha256::digest(STYLE));
    format!("default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
});

/// The page that waits for `mcp-authctl approve CODE`. It asks by itself whether that has come, and so does its button.
pub(crate) fn consent(facts: &Facts<'_>, notice: Option<&str>) -> String {
    let client = escaped(facts.client);
    let resource = facts.resource.map(|resource| row("MCP server", &format!("<code>{}</code>", escaped(resource)))).unwrap_or_default();
    let scopes: String = facts.scopes.iter().map(|scope| format!("<li>{}</li>", meaning(scope))).collect();
    let scopes = if scopes.is_empty() { "nothing but to know that you approved".to_owned() } else { format!("<ul>{scopes}</ul>") };
    let notice = notice.map(|notice| format!("<p class=\"notice\" role=\"status\">{}</p>\n", escaped(notice))).unwrap_or_default();
    let (pending, csrf, code) = (escaped(facts.pending), escaped(facts.csrf), escaped(facts.code));
    let id =
        if facts.client == facts.client_id { String::new() } else { row("Program", &format!("<code>{}</code>", escaped(facts.client_id))) };
    let rows = [id, row("Goes back to", &escaped(&host(facts.redirect_uri))), resource, row("It may", &scopes)].concat();
    let head = format!("<meta http-equiv=\"refresh\" content=\"3; url=/oauth/authorize?pending={pending}\">\n");
    let body = format!(
        "<h1>{client} asks for access</h1>\n{notice}<dl>\n{rows}</dl>\n\
         <h2>To allow it, type this in a terminal</h2>\n\
         <code class=\"command\">mcp-authctl approve <b>{code}</b></code>\n\
         <p class=\"soft\">This page goes on by itself then. The code is good for 5 minutes. If you did not just start this in \
         {client}, cancel: nobody else has a reason to give you a code.</p>\n\
         <form method=\"post\" action=\"/oauth/authorize\">\n\
         <input type=\"hidden\" name=\"pending\" value=\"{pending}\">\n\
         <input type=\"hidden\" name=\"csrf\" value=\"{csrf}\">\n\
         <button class=\"first\" name=\"press\" value=\"continue\">Continue</button>\n\
         <button name=\"press\" value=\"cancel\">Cancel</button>\n\
         </form>\n"
    );
    whole(&format!("Allow {client}?"), &head, &body)
}

/// The page after the last button: on to the client, by itself or by hand.
pub(crate) fn done(to: &str, allowed: bool) -> String {
    let (mark, title, sentence) = match allowed {
        true => ("<div class=\"mark\" aria-hidden=\"true\">&#10003;</div>", "Approved", "You are taken back to"),
        false => ("<div class=\"mark none\" aria-hidden=\"true\">&#215;</div>", "Nothing was allowed", "This is told to"),
    };
    let (host, to) = (escaped(&host(to)), escaped(to));
    let head = format!("<meta http-equiv=\"refresh\" content=\"0; url='{to}'\">\n");
    let body = format!(
        "{mark}\n<h1>{title}</h1>\n<p>{sentence} {host}. If nothing happens:</p>\n\
         <p class=\"last\"><a class=\"button\" href=\"{to}\">Go back to the program</a></p>\n"
    );
    whole(title, &head, &body)
}

/// A request that leads nowhere.
pub(crate) fn error(sentence: &str) -> String {
    let body = format!(
        "<div class=\"mark bad\" aria-hidden=\"true\">!</div>\n<h1>This did not work</h1>\n<p role=\"alert\">{}.</p>\n\
         <p class=\"soft\">Nothing was allowed, and nobody was told anything. You can close this tab. <a href=\"/oauth/errors\">What the errors mean</a></p>\n",
        escaped(&capital(sentence))
    );
    whole("This did not work", "", &body)
}

/// Where every `error_uri` leads.
pub(crate) fn errors() -> String {
    let entry = |code: &Code| format!("<h2 id=\"{0}\"><code>{0}</code></h2>\n<p>{1}</p>\n", code.as_str(), escaped(code.meaning()));
    let entries: String = Code::ALL.iter().map(entry).collect();
    whole("Errors", "", &format!("<h1>What the errors of mcp-authd mean</h1>\n{entries}"))
}

/// Where an answer goes, for people: the host in ASCII, or the scheme of an app.
pub(crate) fn host(uri: &str) -> String {
    let Ok(url) = Url::parse(uri) else { return "an unknown place".to_owned() };
    match (url.scheme(), url.host()) {
        ("http" | "https", Some(Host::Domain(name))) if name != "localhost" => name.to_owned(),
        ("http" | "https", Some(host)) => format!("{host} (a program on this computer)"),
        (scheme, _) => format!("{scheme}: (an app)"),
    }
}

/// A scope in words, where we know them.
fn meaning(scope: &str) -> String {
    match scope {
        "openid" => "recognise you (<code>openid</code>)".to_owned(),
        "profile" => "see your user name (<code>profile</code>)".to_owned(),
        "offline_access" => "stay logged in (<code>offline_access</code>)".to_owned(),
        other => format!("<code>{}</code>", escaped(other)),
    }
}

fn row(term: &str, html: &str) -> String {
    format!("<dt>{term}</dt><dd>{html}</dd>\n")
}

fn whole(title: &str, head: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title} - mcp-authd</title>\n{head}<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

fn capital(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// For element content and quoted attributes.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "</code><script>alert(1)</script>\" onload='x' &amp;";

    #[test]
    fn nothing_that_others_wrote_is_markup() {
        let scopes = [HOSTILE.to_owned()];
        let facts = Facts {
            client: HOSTILE,
            client_id: "'><script>",
            redirect_uri: "http://127.0.0.1/cb",
            resource: Some(HOSTILE),
            scopes: &scopes,
            code: HOSTILE,
            pending: HOSTILE,
            csrf: HOSTILE,
        };
        for page in [consent(&facts, Some(HOSTILE)), done(HOSTILE, true), error(HOSTILE)] {
            assert!(!page.contains("<script") && !page.contains("\" onload") && !page.contains("' onload"), "{page}");
        }
        let page = consent(&facts, None);
        assert_eq!(page.matches("&lt;script&gt;").count(), 10, "{page}");
    }

    #[test]
    fn a_person_reads_where_the_answer_goes() {
        for (uri, expected) in [
            ("http://127.0.0.1:7/cb", "127.0.0.1 (a program on this computer)"),
            ("http://[::1]/cb", "[::1] (a program on this computer)"),
            ("http://localhost/cb", "localhost (a program on this computer)"),
            ("https://b\u{fc}cher.example/cb", "xn--bcher-kva.example"),
            ("com.example.app:/cb", "com.example.app: (an app)"),
            ("", "an unknown place"),
        ] {
            assert_eq!(host(uri), expected, "{uri}");
        }
    }

    #[test]
    fn every_error_has_its_place_on_the_page_of_errors() {
        let page = errors();
        assert!(Code::ALL.iter().all(|code| page.contains(&format!("id=\"{}\"", code.as_str()))));
    }
}
