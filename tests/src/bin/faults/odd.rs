//! Requests on the socket that are not as they should be: T46.

use std::time::Duration;

use mcp_auth_tests::rogue::{Rogue, Rules};
use mcp_auth_tests::send_raw;

use crate::report::{Case, Report};
use crate::stalls::room_at;

/// The rows of the table.
pub(crate) const CASES: &[Case] =
    &[Case { id: "T46", title: "odd, doubled and smuggled requests: an error, or their own answer", rounds: 570, quick: 57, run }];

/// A request for the token of a grant.
fn wanted(grant: &str) -> String {
    request("POST /v1/token HTTP/1.1", "", &format!("{{\"grant\":\"{grant}\"}}"))
}

/// A request with its length.
pub(crate) fn request(line: &str, headers: &str, body: &str) -> String {
    format!("{line}\r\nhost: mcp-authd\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

/// A request for a token with these lines in place of its length.
pub(crate) fn framed(headers: &str, rest: &str) -> String {
    format!("POST /v1/token HTTP/1.1\r\nhost: mcp-authd\r\n{headers}\r\n{rest}")
}

/// What is sent, and the statuses of the answers that may come; none where it is closed without a word.
struct Odd {
    sent: String,
    statuses: Statuses,
}

const BODY: &str = "{\"grant\":\"test\"}";

/// The statuses that may come.
type Statuses = &'static [&'static [u16]];
const SERVED: Statuses = &[&[200]];
const BAD: Statuses = &[&[400]];
const NOT_OURS: Statuses = &[&[403]];
const UNKNOWN: Statuses = &[&[404]];
/// What comes is less than was said: the connection may be closed at the body's time limit.
const CUT_OFF: Statuses = &[&[400], &[]];

fn odd(sent: String, statuses: Statuses) -> Odd {
    Odd { sent, statuses }
}

fn chunked(size: &str) -> String {
    framed("transfer-encoding: chunked\r\n", &format!("{size}\r\n{BODY}\r\n0\r\n\r\n"))
}

/// A request for a token with these header lines.
fn head(lines: &str) -> String {
    format!("POST /v1/token HTTP/1.1\r\n{lines}content-length: 16\r\n\r\n{BODY}")
}

/// A request for a token with this request line.
fn line(line: &str) -> String {
    request(line, "", BODY)
}

fn json(body: &str) -> String {
    request("POST /v1/token HTTP/1.1", "", body)
}

/// More than one in a piece, after two controls: what is right is served, else a refusal says nothing.
fn several() -> Vec<Odd> {
    vec![
        odd(wanted("test"), SERVED),
        odd(chunked("10"), SERVED),
        odd(wanted("test") + &wanted("test:work"), &[&[200, 200]]),
        odd(json("{\"grnat\":\"test\"}") + &wanted("test"), &[&[400, 200], &[400]]),
        odd(wanted("nobody") + &wanted("test:work"), &[&[404, 200]]),
        odd(wanted("test") + "\0\0\0\0 trailing bytes\r\n\r\n", &[&[200, 400]]),
        odd(wanted("test") + "GET", &[&[200], &[200, 400]]),
    ]
}

/// Where one ends: two ways to say it, and wrong ones.
fn lengths() -> Vec<Odd> {
    vec![
        odd(framed("content-length: 5\r\ntransfer-encoding: chunked\r\n", &format!("0\r\n\r\n{}", wanted("test:work"))), BAD),
        odd(
            framed("content-length: 5\r\ntransfer-encoding: chunked\r\n", &format!("10\r\n{BODY}\r\n0\r\n\r\n{}", wanted("test:work"))),
            &[&[200], &[400]],
        ),
        odd(framed("transfer-encoding: chunked\r\ncontent-length: 16\r\n", BODY), BAD),
        odd(framed("content-length: 16\r\ncontent-length: 0\r\n", BODY), BAD),
        odd(framed("content-length: 16, 0\r\n", BODY), BAD),
        odd(framed("content-length: +16\r\n", BODY), BAD),
        odd(framed("content-length: -1\r\n", BODY), BAD),
        odd(framed("content-length: 0x10\r\n", BODY), BAD),
        odd(framed("content-length: 18446744073709551616\r\n", BODY), BAD),
        odd(framed("transfer-encoding: identity\r\n", BODY), BAD),
        odd(framed("transfer-encoding: chunked, identity\r\n", BODY), BAD),
        odd(framed("transfer-encoding: xchunked\r\n", BODY), BAD),
        odd(chunked("FFFFFFFFFFFFFFFF"), &[&[413], &[400], &[]]),
        odd(chunked("10000000000000010"), BAD),
        odd(chunked("-10"), BAD),
        odd(chunked(&format!("10;{}", "x".repeat(20_000))), BAD),
        odd(framed("transfer-encoding: chunked\r\n", &format!("11\r\n{BODY}\r\n0\r\n\r\n")), BAD),
        odd(framed("content-length: 7\r\n", BODY), &[&[400, 400], &[400]]),
        odd(framed("content-length: 17\r\n", BODY), CUT_OFF),
    ]
}

/// Request lines and header lines.
fn heads() -> Vec<Odd> {
    vec![
        odd(head("host: mcp-authd\r\nhost: mcp-authd\r\n"), NOT_OURS),
        odd(head("host: mcp-authd\r\nx: a\r\nhost: evil.example\r\n"), NOT_OURS),
        odd(head(""), NOT_OURS),
        odd(head("host: mcp-authd\r\n folded: a\r\n"), BAD),
        odd(head("host: mcp-authd\r\nx: a\r\n b\r\n"), BAD),
        odd(head("host : mcp-authd\r\n"), &[&[400], &[403]]),
        odd(head("host: mcp-authd\r\nx\0: a\r\n"), BAD),
        odd(head("host: mcp-authd\r\nx: a\0b\r\n"), BAD),
        odd(head("host: mcp-authd\r\nx: a\rb: c\r\n"), BAD),
        odd(head("host: mcp-authd@evil.example\r\n"), NOT_OURS),
        odd(format!("{}{}", head("host: mcp-authd\r\norigin: null\r\n"), wanted("test")), &[&[403]]),
        odd(line("post /v1/token HTTP/1.1"), UNKNOWN),
        odd(line("P\0ST /v1/token HTTP/1.1"), BAD),
        odd(line("POST  /v1/token HTTP/1.1"), BAD),
        odd(line("POST /v1/token HTTP/1.1 HTTP/1.1"), BAD),
        odd(line("POST /v1/token\tHTTP/1.1"), BAD),
        odd(line("POST /v1/token HTTP/3.0"), BAD),
        odd(line("POST /v1/token?grant=test HTTP/1.1"), BAD),
        odd(line("POST /v1/./token HTTP/1.1"), UNKNOWN),
        odd(line("POST /v1/%74oken HTTP/1.1"), UNKNOWN),
        odd(line("POST http://evil.example/v1/token HTTP/1.1"), NOT_OURS),
        odd(line("CONNECT mcp-authd:80 HTTP/1.1"), &[&[404], &[403], &[400]]),
        odd("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), CUT_OFF),
    ]
}

/// JSON that is none, or says a thing twice.
fn bodies() -> Vec<Odd> {
    vec![
        odd(json("{\"grant\":\"test\",\"grant\":\"test:work\"}"), BAD),
        odd(json("{\"grant\":\"test\"}{\"grant\":\"test:work\"}"), BAD),
        odd(json("[\"test\"]"), BAD),
        odd(json("{\"grant\":\"te\\u0000st\"}"), &[&[400], &[404]]),
        odd(json("{\"grant\":\"test\\ud800\"}"), BAD),
        odd(json("\u{feff}{\"grant\":\"test\"}"), BAD),
        odd(json(&format!("{{\"grant\":{}", "[".repeat(60_000))), BAD),
        odd(json("{\"min_valid_for\":1e400,\"grant\":\"test\"}"), BAD),
    ]
}

/// The status lines of an answer, and the grants of the tokens in it.
fn answers(text: &str) -> (Vec<u16>, Vec<String>) {
    let statuses = text.match_indices("HTTP/1.1 ").filter_map(|(at, found)| text[at + found.len()..].get(..3)?.parse().ok()).collect();
    let bodies = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line.split("HTTP/1.1 ").next()?).ok());
    let granted = bodies.filter(|body| body["access_token"].is_string()).filter_map(|body| body["grant"].as_str().map(str::to_owned));
    (statuses, granted.collect())
}

fn run(report: &mut Report) {
    let rogue = Rogue::start(Rules::strict(Duration::from_secs(300)));
    let room = room_at(&rogue);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    daemon.log_in("test:work", "alice");
    let requests: Vec<Odd> = [several(), lengths(), heads(), bodies()].into_iter().flatten().collect();
    for round in 0..report.rounds() as usize {
        let odd = &requests[round % requests.len()];
        report.round(|| {
            let shown = odd.sent.escape_debug().take(160).collect::<String>();
            let (statuses, granted) = answers(&send_raw(&room.socket(), odd.sent.as_bytes()));
            assert!(odd.statuses.contains(&statuses.as_slice()), "{shown}: answered {statuses:?}");
            let served = statuses.iter().filter(|status| **status == 200).count();
            assert_eq!(granted.len(), served, "{shown}: tokens of {granted:?}");
            let asked = granted.iter().all(|grant| odd.sent.contains(&format!("\"{grant}\"")));
            assert!(asked, "{shown}: tokens of {granted:?}");
            let order: Vec<_> = granted.iter().map(|grant| odd.sent.find(&format!("\"{grant}\""))).collect();
            assert!(order.is_sorted(), "{shown}: tokens of {granted:?} in another order");
            daemon.token("test");
        });
    }
    report.figure(format!("{} kinds of requests, after each an honest client is served", requests.len()));
}
