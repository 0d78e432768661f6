//! The fuzz target of the loopback listener, see [`crate::fuzzing`].

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::fuzzing::is_hidden;
use crate::login::pasted;
use crate::oauth::authorize::{self, Ask, Expected, RedirectError, check_redirect};
use crate::provider::ScopeSeparator;

/// The bytes of a connection to the listener of a login; the same bytes are also pasted. `{state}` stands for the login's
/// secret `state`, which nobody but the authorization server knows.
///
/// Nothing completes a login, and nothing ends it, without that state; the browser's answer is one of three fixed pages.
pub fn callback(input: &[u8]) {
    let ask = Ask {
        endpoint: "https://as.example/authorize",
        client_id: "client-1",
        redirect_uri: REDIRECT_URI,
        scopes: &[],
        separator: ScopeSeparator::Space,
        challenge: true,
        resource: None,
        login_hint: None,
        params: &[],
    };
    let request = authorize::request(ask, Some("https://as.example"), true).expect("a request");
    let url = url::Url::parse(&request.url).expect("a URL");
    let state = url.query_pairs().find(|(name, _)| name == "state").expect("a state").1.into_owned();
    let knows_state = input.windows(PLACEHOLDER.len()).any(|part| part == PLACEHOLDER);
    let sent = with_state(input, &state);

    let (result, reply) = runtime().block_on(knock(&sent, &request.expected));
    judge(&result, knows_state);
    if result.is_some() {
        let head = String::from_utf8_lossy(&sent).to_ascii_lowercase();
        assert!(head.contains("get /callback?") && head.contains("host:") && head.contains("127.0.0.1:7777"), "not a redirect");
    }
    assert_fixed(&String::from_utf8(reply).expect("text"), result.as_ref());

    let text = String::from_utf8_lossy(&sent);
    if let Ok(query) = pasted::query(&text, REDIRECT_URI) {
        let result = check_redirect(&query, &request.expected);
        judge(&Some(result).filter(|result| !matches!(result, Err(RedirectError::NotOurs))), knows_state);
    }
}

type Redirected = Result<authorize::Code, RedirectError>;

const REDIRECT_URI: &str = "http://127.0.0.1:7777/callback";
const PLACEHOLDER: &[u8] = b"{state}";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

fn with_state(input: &[u8], state: &str) -> Vec<u8> {
    let mut sent = Vec::with_capacity(input.len());
    let mut rest = input;
    while let Some(at) = rest.windows(PLACEHOLDER.len()).position(|part| part == PLACEHOLDER) {
        sent.extend_from_slice(&rest[..at]);
        sent.extend_from_slice(state.as_bytes());
        rest = &rest[at + PLACEHOLDER.len()..];
    }
    sent.extend_from_slice(rest);
    sent
}

/// One connection: what ends the login, and what the browser reads.
async fn knock(sent: &[u8], expected: &Expected) -> (Option<Redirected>, Vec<u8>) {
    let (mut browser, stream) = tokio::io::duplex(1 << 20);
    let (sender, mut hits) = mpsc::channel::<Hit>(MOST_CONNECTIONS);
    let place = Arc::new(Place::new("127.0.0.1", 7777, "/callback"));
    assert_eq!(place.redirect_uri, REDIRECT_URI);
    let browsing = async {
        browser.write_all(sent).await.expect("room");
        browser.shutdown().await.expect("open");
        let mut reply = Vec::new();
        browser.read_to_end(&mut reply).await.expect("a reply or none");
        reply
    };
    let deciding = async {
        let mut ended = None;
        while let Some(hit) = hits.recv().await {
            match check_redirect(&hit.query, expected) {
                Err(RedirectError::NotOurs) => hit.answer(Page::NotFound),
                result => {
                    hit.answer(if result.is_ok() { Page::Done } else { Page::Failed });
                    ended = Some(result);
                }
            }
        }
        ended
    };
    let ((), ended, reply) = tokio::join!(converse(stream, place, sender), deciding, browsing);
    (ended, reply)
}

fn judge(ended: &Option<Redirected>, knows_state: bool) {
    assert!(ended.is_none() || knows_state, "a login ended by somebody who does not know its state");
    if let Some(Err(error)) = ended {
        assert!(!error.to_string().contains(is_hidden), "{error:?}");
    }
}

/// Nothing of what was sent comes back.
fn assert_fixed(reply: &str, ended: Option<&Redirected>) {
    let Some((head, body)) = reply.split_once("\r\n\r\n") else { return assert!(reply.is_empty(), "half a reply") };
    let status = head.get(9..12).unwrap_or_default();
    match ended {
        Some(Ok(_)) => assert_eq!((status, body), ("200", include_str!("done.html"))),
        Some(Err(_)) => assert_eq!((status, body), ("400", include_str!("failed.html"))),
        // hyper's own answers to what is not HTTP have no body, and so has the answer to HEAD.
        None => assert!(matches!((status, body), ("404", "not found\n" | "") | ("400" | "414" | "431", "")), "{reply:?}"),
    }
}
