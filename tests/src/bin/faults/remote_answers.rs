//! T26, T27 at a remote MCP server: what it, and the authorization server that it names, answer to a login without an end or
//! built to break a parser.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use mcp_auth_tests::rogue::{Content, Delivery, Plan, Rogue};
use mcp_auth_tests::{Asked, Daemon, RemoteServer, Reply, Room};
use serde_json::json;

use crate::hostile::{BODIES, FLOODS, MOST_GROWTH, NOT_UTF8, peak, start_peak, while_others_ask};
use crate::remote::{METADATA, log_in, page, rogue};
use crate::report::{Case, Report, quantile};
use crate::side::side_by_side;

/// The rows of the table.
pub(crate) const CASES: &[Case] = &[
    Case { id: "T26", title: "a remote server's answers without end: cut off, memory flat", rounds: 70, quick: 6, run: without_end },
    Case { id: "T27", title: "a remote server's JSON that breaks parsers: no page, an error", rounds: 120, quick: 20, run: odd_json },
];

/// Whose answer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The MCP server's own, to somebody without a token.
    Door,
    /// The metadata of the resource (RFC 9728).
    Resource,
    /// The metadata of the authorization server (RFC 8414).
    Issuer,
    /// The registration (RFC 7591).
    Registration,
    /// The exchange of the code.
    Code,
}

/// Where a body is read; the door's is not.
const READ: [Place; 4] = [Place::Resource, Place::Issuer, Place::Registration, Place::Code];
const PLACES: [Place; 5] = [Place::Door, Place::Resource, Place::Issuer, Place::Registration, Place::Code];

/// How long a login may take that is answered byte by byte.
const LONGEST: Duration = Duration::from_secs(25);

/// A hostile answer as the MCP server itself gives it.
type Give = fn(&Plan, &Asked, &mut Reply);

/// Both servers, of which one answers so at a place.
struct Servers {
    rogue: Rogue,
    mcp: RemoteServer,
}

impl Servers {
    /// `make` knows the issuer.
    fn start(place: Place, make: impl FnOnce(&str) -> Plan, give: Give) -> Self {
        let rogue = rogue();
        let issuer = rogue.issuer();
        let plan = make(&issuer);
        let own = plan.clone();
        let mcp = RemoteServer::start(move |asked, reply| match asked.target.as_str() {
            "/mcp" if place == Place::Door => give(&own, asked, reply),
            "/mcp" => reply.whole(401, &[("www-authenticate", "Bearer")], ""),
            "/.well-known/oauth-protected-resource/mcp" if place == Place::Resource => give(&own, asked, reply),
            "/.well-known/oauth-protected-resource/mcp" => {
                let resource = format!("http://{}/mcp", asked.header("host"));
                reply.message(&[], &json!({ "resource": resource, "authorization_servers": [issuer] }));
            }
            _ => reply.whole(404, &[], ""),
        });
        let path = match place {
            Place::Door | Place::Resource => return Self { rogue, mcp },
            Place::Issuer => METADATA,
            Place::Registration => "/register",
            Place::Code => "/token",
        };
        rogue.plan(plan.path(path));
        if place == Place::Issuer {
            rogue.plan(Plan::canned(404, &[], "").path("/.well-known/openid-configuration"));
        }
        Self { rogue, mcp }
    }
}

/// The login ends with a reason. Only an answer to the code comes after the page.
fn fails(daemon: &Daemon<'_>, place: Place, servers: &Servers) {
    let request = json!({ "provider": servers.mcp.url() });
    let refused = match place {
        Place::Code => log_in(daemon, &request),
        _ => page(&mut daemon.start_login(&request)).map(drop),
    };
    assert!(refused.as_ref().is_err_and(|why| !why.is_empty()), "{place:?}: {refused:?}");
    assert_eq!(servers.rogue.seen().requests_to("/authorize"), u64::from(place == Place::Code), "{place:?}: a page was opened");
    assert_eq!(daemon.show("/v1/grants").as_array().unwrap().iter().filter(|grant| grant["server"].is_string()).count(), 0);
}

/// The daemon goes on: a login at a server that behaves works, and nothing was said that should not be.
fn goes_on(daemon: Daemon<'_>) {
    let honest = Servers::start(Place::Code, |_| Plan::honest("/token"), |_, _, _| {});
    log_in(&daemon, &json!({ "provider": honest.mcp.url() })).unwrap();
    let said = daemon.stop();
    assert!(said.code == 0 && !said.stderr.contains("panicked") && !said.stderr.contains("evil"), "the daemon said: {}", said.stderr);
}

// ---- T26 ----

fn without_end(report: &mut Report) {
    // The last kind takes its time and is left out of quick runs. With 7 kinds and 5 places every pair has its turn.
    let kinds = if report.rounds() as usize >= 5 * FLOODS.len() { FLOODS.len() } else { FLOODS.len() - 1 };
    let (rows, others) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    side_by_side(report, 3, |round| {
        let (place, (name, plan)) = (PLACES[round % PLACES.len()], FLOODS[round % kinds]);
        let (growth, took, waits) = flooded(place, plan());
        assert!(growth <= MOST_GROWTH, "{name}, {place:?}: the daemon grew by {growth} KiB");
        assert!(took < LONGEST, "{name}, {place:?}: cut off after {took:?}");
        rows.lock().unwrap().push((growth, took.as_secs_f64()));
        others.lock().unwrap().extend(waits);
    });
    let (rows, mut others) = (rows.into_inner().unwrap(), others.into_inner().unwrap());
    let most = rows.iter().map(|row| row.0).max().unwrap_or(0) as f64 / 1024.0;
    let longest = rows.iter().map(|row| row.1).fold(0.0, f64::max);
    report.figure(format!(
        "{kinds} kinds at the server, both metadata, registration, code: peak memory +{most:.1} MB, at most {longest:.1} s"
    ));
    let (p50, p99) = (quantile(&mut others, 50), quantile(&mut others, 99));
    report.figure(format!("tokens of another provider meanwhile: {} in p50 {p50:.2} ms, p99 {p99:.2} ms", others.len()));
    if p50 > 100.0 {
        report.count(0, [format!("others waited {p50:.1} ms")]);
    }
}

/// A login that is answered so: growth of the peak, KiB, how long it took, and what others waited meanwhile.
fn flooded(place: Place, plan: Plan) -> (u64, Duration, Vec<f64>) {
    let (fine, servers) = (rogue(), Servers::start(place, |_| plan, pour));
    let mut room = Room::with_config(&fine.provider_table("fine", ""));
    room.set("MCP_AUTHD_LOG", "info");
    let daemon = room.start();
    daemon.log_in("fine", "alice");
    let before = start_peak(&daemon);
    let began = Instant::now();
    let ((), waits) = while_others_ask(&daemon, || fails(&daemon, place, &servers));
    let (growth, took) = (peak(&daemon).saturating_sub(before), began.elapsed());
    goes_on(daemon);
    (growth, took, waits)
}

/// What a plan of the authorization server does, done by the MCP server.
fn pour(plan: &Plan, _: &Asked, reply: &mut Reply) {
    let (Content::Raw(bytes), Delivery::Endless(from)) = (&plan.content, plan.delivery) else { return drip(reply) };
    let mut goes = reply.bytes(bytes);
    while goes {
        goes = reply.bytes(&bytes[from..]);
    }
}

fn drip(reply: &mut Reply) {
    let mut goes = reply.bytes(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n");
    while goes {
        std::thread::sleep(Duration::from_secs(1));
        goes = reply.bytes(b" ");
    }
}

// ---- T27 ----

fn odd_json(report: &mut Report) {
    let kinds = BODIES.len() + 1;
    side_by_side(report, 4, |round| {
        let (place, kind) = (READ[round % READ.len()], round / READ.len() % kinds);
        let name = BODIES.get(kind).map_or("bytes that are not UTF-8", |body| body.0);
        broken(place, kind, name);
    });
    report.figure(format!("{kinds} kinds in both metadata, the registration and the answer to the code"));
}

fn broken(place: Place, kind: usize, name: &str) {
    let make = |issuer: &str| {
        let good = members(place, issuer);
        let body = BODIES.get(kind).map_or_else(|| NOT_UTF8.to_vec(), |(_, make)| make(&good).into_bytes());
        Plan::canned(200, &["content-type: application/json"], body)
    };
    let servers = Servers::start(place, make, as_the_server);
    let mut room = Room::with_config("");
    room.set("MCP_AUTHD_LOG", "info");
    let daemon = room.start();
    fails(&daemon, place, &servers);
    assert_eq!(servers.rogue.seen().requests_to("/evil"), 0, "{name}, {place:?}: it was believed");
    goes_on(daemon);
}

/// Members that would be good without what stands beside them. `SELF` is the MCP server's own host.
fn members(place: Place, issuer: &str) -> String {
    match place {
        Place::Door | Place::Resource => format!(r#""resource":"http://SELF/mcp","authorization_servers":["{issuer}"]"#),
        Place::Issuer => format!(
            r#""issuer":"{issuer}","authorization_endpoint":"{issuer}/evil","token_endpoint":"{issuer}/evil","registration_endpoint":"{issuer}/evil","code_challenge_methods_supported":["S256"]"#
        ),
        Place::Registration => r#""client_id":"evil""#.to_owned(),
        Place::Code => r#""access_token":"zQaT9qz.evil","token_type":"Bearer","refresh_token":"zQrT9qz.evil""#.to_owned(),
    }
}

fn as_the_server(plan: &Plan, asked: &Asked, reply: &mut Reply) {
    let Content::Canned(status, _, body) = &plan.content else { return };
    // A body that is no text has no host in it.
    let body =
        String::from_utf8(body.clone()).map_or_else(|_| body.clone(), |text| text.replace("SELF", asked.header("host")).into_bytes());
    reply.head(*status, &[("content-type", "application/json")]);
    reply.bytes(&body);
}
