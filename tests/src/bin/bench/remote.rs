//! What the way to a remote MCP server costs: through the relay, and through the bridge and the relay, beside the same client that
//! speaks to the server itself with the token in its hand.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mcp_auth_tests::rogue::{Rogue, Rules};
use mcp_auth_tests::{Daemon, Room, binary};
use serde_json::{Value, json};
use url::Url;

use crate::clients::{Program, call, download, request};
use crate::server::PIECE;
use crate::{PLACES, Size, ask, in_turn, median, pin, row, row_ratio, row_times, unpin, worked};

/// A remote MCP server, the authorization server that it names, and a room whose daemon is logged in there.
pub(crate) struct Place {
    pub(crate) room: Room,
    pub(crate) url: Url,
    server: Child,
    _issuer: Rogue,
}

impl Place {
    pub(crate) fn new() -> Self {
        let issuer = Rogue::start(Rules::strict(Duration::from_secs(24 * 3600)));
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut server = command.args(["--mcp", &issuer.issuer()]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let mut room = Room::with_config("");
        room.set("MCP_AUTHD_LOG", "warn");
        let daemon = room.start();
        room.log_in(url.trim()).ok();
        assert_eq!(daemon.stop().code, 0);
        Self { room, url: url.trim().parse().unwrap(), server, _issuer: issuer }
    }

    /// The name of the grant.
    fn grant(&self) -> String {
        format!("127.0.0.1-{}", self.url.port().unwrap())
    }

    /// A bridge that has shaken hands.
    pub(crate) fn bridge(&self) -> Program {
        let mut command = self.room.command(&binary("mcp-authctl"));
        command.args(["bridge", self.url.as_str()]);
        let mut bridge = Program::start(command);
        bridge.initialize();
        bridge
    }

    fn direct(&self) -> TcpStream {
        let stream = TcpStream::connect(self.url.socket_addrs(|| None).unwrap()[0]).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn relay(&self) -> UnixStream {
        UnixStream::connect(self.room.socket()).unwrap()
    }

    fn to_relay(&self, arguments: &Value) -> Vec<u8> {
        request(&format!("/mcp/{}", self.grant()), &["host: mcp-authd".to_owned()], arguments)
    }

    fn to_server(&self, daemon: &Daemon<'_>, arguments: &Value) -> Vec<u8> {
        let host = format!("host: 127.0.0.1:{}", self.url.port().unwrap());
        request("/mcp", &[host, format!("authorization: Bearer {}", daemon.token(&self.grant()))], arguments)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // It has no end of its own.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

pub(crate) fn measure(place: &Place, size: &Size) {
    let daemon = place.room.start();
    for (name, client_cpu, server_cpu) in PLACES {
        let mut bridge = place.bridge();
        for (pid, cpu) in [
            (std::process::id(), client_cpu),
            (bridge.pid(), client_cpu),
            (daemon.running.pid(), server_cpu),
            (place.server.id(), server_cpu),
        ] {
            pin(pid, cpu);
        }
        calls(place, &daemon, &mut bridge, (name, size.calls));
    }
    for pid in [std::process::id(), daemon.running.pid(), place.server.id()] {
        unpin(pid);
    }
    work(place, &daemon, size.calls);
    stream(place, &daemon, ("100 MB of events", &json!({ "events": 100_000_000 / PIECE })), size.downloads);
    stream(place, &daemon, ("50 MB in one message", &json!({ "pieces": 50_000_000 / PIECE })), size.downloads);
}

/// One call after the other, each way in turn.
fn calls(place: &Place, daemon: &Daemon<'_>, bridge: &mut Program, (name, count): (&str, usize)) {
    let few = json!({ "text": "hello" });
    let (to_server, to_relay, (method, params)) = (place.to_server(daemon, &few), place.to_relay(&few), call(&few));
    let (mut server, mut relay) = (place.direct(), place.relay());
    let [direct, kept, fresh, bridged] = in_turn(
        count,
        [&mut || ask(&mut server, &to_server), &mut || ask(&mut relay, &to_relay), &mut || ask(&mut place.relay(), &to_relay), &mut || {
            assert!(bridge.ask(method, &params) > 0)
        }],
    );
    for (way, times, aim) in [
        ("through the relay, kept connection", kept, "<= 3.0"),
        ("through the relay, fresh connection", fresh, "<= 3.5"),
        ("through bridge and relay", bridged, "<= 6.0"),
    ] {
        row_times(&format!("tools/call {way}, beside the server itself, {name}"), times, direct.clone(), aim);
    }
}

/// The same in time on a processor, which a busy machine does not lengthen much.
fn work(place: &Place, daemon: &Daemon<'_>, count: usize) {
    let few = json!({ "text": "hello" });
    let (to_server, to_relay, (method, params)) = (place.to_server(daemon, &few), place.to_relay(&few), call(&few));
    let (mut server, mut relay, mut bridge) = (place.direct(), place.relay(), place.bridge());
    let (ours, bridged) = ([daemon.running.pid()], [daemon.running.pid(), bridge.pid()]);
    let direct = each(count, &[place.server.id()], || ask(&mut server, &to_server));
    let ways = [
        ("the daemon per call, kept connection", each(count, &ours, || ask(&mut relay, &to_relay))),
        ("the daemon per call, fresh connection", each(count, &ours, || ask(&mut place.relay(), &to_relay))),
        ("daemon and bridge per call", each(count, &bridged, || assert!(bridge.ask(method, &params) > 0))),
    ];
    for (who, time) in ways {
        row_ratio(&format!("processor time of {who}, beside the server's"), time, direct, "");
    }
}

/// What these processes work for each of so many calls.
fn each(count: usize, pids: &[u32], mut call: impl FnMut()) -> Duration {
    let sum = || pids.iter().map(|pid| worked(*pid)).sum::<Duration>();
    let before = sum();
    (0..count).for_each(|_| call());
    (sum() - before) / u32::try_from(count).unwrap()
}

/// A long answer, and what it leaves in memory on its way.
fn stream(place: &Place, daemon: &Daemon<'_>, (what, arguments): (&str, &Value), times: usize) {
    let (to_server, to_relay, (method, params)) = (place.to_server(daemon, arguments), place.to_relay(arguments), call(arguments));
    let mut bridge = place.bridge();
    let length = download(&mut place.direct(), &to_server);
    let memory = [Memory::of("daemon", daemon.running.pid()), Memory::of("bridge", bridge.pid())];
    let [direct, relayed, bridged] = in_turn(
        times,
        [&mut || _ = download(&mut place.direct(), &to_server), &mut || _ = download(&mut place.relay(), &to_relay), &mut || {
            _ = bridge.ask(method, &params)
        }],
    );
    let direct = median(direct);
    let rate = |time: Duration| format!("{:.0} MB/s", length as f64 / 1e6 / time.as_secs_f64());
    for (way, times, aim) in [("the relay", relayed, "<= 2.0"), ("bridge and relay", bridged, "<= 4.0")] {
        let time = median(times);
        let ratio = format!("{:.2}", time.as_secs_f64() / direct.as_secs_f64());
        row(&format!("{what} through {way}, beside the server itself"), &rate(time), &rate(direct), &ratio, aim);
    }
    for memory in memory {
        let grown = memory.grown().map_or_else(|| "needs root".to_owned(), |kib| kib.to_string());
        row(&format!("  the most that the {} grew by meanwhile (kB)", memory.who), &grown, "", "", "");
    }
}

/// How much of a process is in memory at most, from a moment on.
struct Memory {
    who: &'static str,
    pid: u32,
    before: Option<u64>,
}

impl Memory {
    fn of(who: &'static str, pid: u32) -> Self {
        // The kernel forgets the peak that was (man 5 proc, clear_refs).
        let forgotten = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
        Self { who, pid, before: forgotten.ok().and_then(|()| status_kib(pid, "VmRSS:")) }
    }

    fn grown(&self) -> Option<u64> {
        Some(status_kib(self.pid, "VmHWM:")?.saturating_sub(self.before?))
    }
}

fn status_kib(pid: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}
