//! T58 at a remote MCP server that somebody is logged in at: where it leads a relayed request, and what is still on its way when
//! the person leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mcp_auth_tests::rogue::{Moment, Plan};
use mcp_auth_tests::{McpServer, Room, wait_until};
use serde_json::json;

use crate::life::refresh_aside;
use crate::remote::{Forbidden, METADATA, edit, log_in, rogue};
use crate::report::{Case, Report};
use crate::side::{none_of, side_by_side};

/// The row of the table.
pub(crate) const CASES: &[Case] =
    &[Case { id: "T58", title: "a relayed request is led into no private network", rounds: 90, quick: 9, run: relayed }];

/// What a server answers a relayed request with, to lead it to an origin. The last way is by its metadata, once a token is rejected.
fn lure(way: usize, origin: &str, mcp: &McpServer) {
    let head = |status: &str, line: &str| format!("HTTP/1.1 {status} Status\r\n{line}content-length: 0\r\nconnection: close\r\n\r\n");
    match way {
        0..5 => mcp.say(head(["301", "302", "303", "307", "308"][way], &format!("location: {origin}/mcp\r\n"))),
        5 => mcp.say(head("200", &format!("refresh: 0; url={origin}\r\nlink: <{origin}>; rel=preconnect\r\nalt-svc: h2=\"{origin}\"\r\n"))),
        6 => mcp.say(head("401", &format!("www-authenticate: Bearer resource_metadata=\"{origin}/prm\"\r\n"))),
        _ => {
            mcp.describe(|metadata| metadata["authorization_servers"] = json!([origin]));
            mcp.say(head("401", "www-authenticate: Bearer error=\"invalid_token\"\r\n"));
        }
    }
}

fn relayed(report: &mut Report) {
    let forbidden = Forbidden::listen();
    let origins = forbidden.origins();
    side_by_side(report, 3, |round| {
        let origin = &origins[round % origins.len()];
        if round % 9 == 8 {
            return left_in_a_refresh(origin, &forbidden);
        }
        let (rogue, room) = (rogue(), Room::with_config(""));
        let mcp = McpServer::start(&rogue.issuer());
        let daemon = room.start();
        log_in(&daemon, &json!({ "provider": mcp.url() })).unwrap();
        lure(round % 9, origin, &mcp);
        let before = mcp.seen().len();
        for (method, body) in [("POST", r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#), ("GET", ""), ("DELETE", "")] {
            let answer = daemon.connect().request(method, &format!("/mcp/{}", mcp.name()), &[], body).unwrap();
            assert!(!matches!(answer.status, 300..=399 | 401 | 403), "{method}: {answer:?}");
        }
        assert!(mcp.seen().len() > before, "{round}: the server was not asked");
        assert_eq!(forbidden.hits(), 0, "somebody was connected to");
    });
    report.figure(none_of("connections to the private address", report.rounds() as usize));
}

/// A logout while a refresh waits for its answer, at a server that has moved on since: its tokens are revoked nowhere.
fn left_in_a_refresh(origin: &str, forbidden: &Forbidden) {
    let (rogue, room) = (rogue(), Room::with_config(""));
    edit(&rogue, METADATA, &json!({ "revocation_endpoint": format!("{origin}/revoke") }));
    let mcp = McpServer::start(&rogue.issuer());
    let daemon = room.start();
    log_in(&daemon, &json!({ "provider": mcp.url() })).unwrap();
    let (name, token) = (mcp.name(), daemon.token(&mcp.name()));
    let answered = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&answered);
    rogue.on(move |moment, path| told.store(moment == Moment::Answered && path == "/token", Ordering::Relaxed));
    rogue.plan(Plan::late(Duration::from_secs(3)));
    std::thread::scope(|scope| {
        let refresh = refresh_aside(scope, &daemon, &name);
        rogue.wait_for("the refresh", |seen| (seen.refreshes.len() == 1).then_some(()));
        mcp.describe(|metadata| metadata["authorization_servers"] = json!(["https://as.example"]));
        let rejected = daemon.call("POST", "/v1/token", &json!({ "resource": mcp.url(), "rejected_token": token }));
        assert_eq!(rejected.json()["error"], json!("login_required"), "{}", rejected.body);
        room.ctl(&["logout", &name]);
        refresh.join().unwrap();
    });
    wait_until("the answer to the refresh", Duration::from_secs(20), || answered.load(Ordering::Relaxed).then_some(()));
    // Many times what a connection takes.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(forbidden.hits(), 0, "somebody was connected to by a late revocation");
}
