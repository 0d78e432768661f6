//! Ten bridges and their daemon beside ten processes of mcp-remote, which does for MCP clients what a bridge does, with a login of
//! its own: how soon the first call is answered, what a call costs, and what all of them take when nobody asks anything.

use std::fs::OpenOptions;
use std::process::Command;
use std::time::{Duration, Instant};

use mcp_auth_tests::{Answer, Person, require, source_folder, wait_until};
use serde_json::json;

use crate::clients::{Program, call};
use crate::remote::Place;
use crate::{PATIENCE, Size, all_switches, in_turn, median, pss_kib, row, row_times, woken};

/// As many as a person with a few MCP clients has.
const MANY: usize = 10;

/// What the last calls left behind is over by then.
const SETTLED: Duration = Duration::from_secs(2);

pub(crate) fn measure(place: &Place, size: &Size) {
    let daemon = place.room.start();
    log_in(place);
    let (mut ours, mut theirs) = (Many::default(), Many::default());
    for _ in 0..MANY {
        ours.start(|| place.bridge());
        theirs.start(|| initialized(mcp_remote(place)));
    }
    let [our_start, their_start] = [&ours, &theirs].map(|many| median(many.starts.clone()).as_secs_f64() * 1e3);
    let ratio = format!("{:.3}", our_start / their_start);
    let millis = [our_start, their_start].map(|time| format!("{time:.1} ms"));
    row("start to first answered tools/call, bridge beside mcp-remote", &millis[0], &millis[1], &ratio, "<= 0.1");
    let (method, params) = call(&json!({ "text": "hello" }));
    let (our_first, their_first) = (&mut ours.programs[0], &mut theirs.programs[0]);
    let calls: [&mut dyn FnMut(); 2] = [&mut || _ = our_first.ask(method, &params), &mut || _ = their_first.ask(method, &params)];
    let [our_calls, their_calls] = in_turn(size.calls / 2, calls);
    row_times("tools/call, bridge beside mcp-remote", our_calls, their_calls, "<= 0.5");
    let (mut our_pids, their_pids) = (ours.pids(), theirs.pids());
    memory("PSS of one of ten bridges (kB), beside one of ten mcp-remote", &our_pids[1..2], &their_pids[1..2]);
    our_pids.push(daemon.running.pid());
    std::thread::sleep(SETTLED);
    memory("PSS of ten bridges and the daemon (kB), beside ten mcp-remote", &our_pids, &their_pids);
    wake_ups(&our_pids, &their_pids, size.idle / 2);
}

/// Programs of one kind, and how long each took from its start to the answer of its first call.
#[derive(Default)]
struct Many {
    programs: Vec<Program>,
    starts: Vec<Duration>,
}

impl Many {
    fn start(&mut self, start: impl FnOnce() -> Program) {
        let began = Instant::now();
        let mut program = start();
        let (method, params) = call(&json!({ "text": "hello" }));
        program.ask(method, &params);
        self.starts.push(began.elapsed());
        self.programs.push(program);
    }

    fn pids(&self) -> Vec<u32> {
        self.programs.iter().map(Program::pid).collect()
    }
}

fn memory(what: &str, ours: &[u32], theirs: &[u32]) {
    let sum = |pids: &[u32]| pids.iter().map(|pid| pss_kib(*pid)).sum::<Option<u64>>();
    match (sum(ours), sum(theirs)) {
        (Some(ours), Some(theirs)) => {
            row(what, &ours.to_string(), &theirs.to_string(), &format!("{:.3}", ours as f64 / theirs as f64), "<= 0.1");
        }
        _ => row(what, "needs root", "", "", "<= 0.1"),
    }
}

fn wake_ups(ours: &[u32], theirs: &[u32], idle: Duration) {
    let count = || [ours, theirs].map(all_switches);
    let before = count();
    std::thread::sleep(idle);
    let after = count();
    let [ours, theirs] = [0, 1].map(|which| woken(&before[which], &after[which]).to_string());
    row(&format!("wake-ups of all of them in {} idle seconds", idle.as_secs()), &ours, &theirs, "", "0");
}

// ---- mcp-remote

/// One that is logged in already, as the bridges are: from its start to the end of its handshake.
fn mcp_remote(place: &Place) -> Command {
    let script = source_folder().join("mcp-remote/node_modules/mcp-remote/dist/proxy.js");
    assert!(script.exists(), "mcp-remote is not installed: run `npm ci --ignore-scripts` in tests/mcp-remote");
    let mut command = place.room.command(&require("node", "nodejs (20 or newer)"));
    command.arg(script).arg(place.url.as_str());
    // Its login is the person's below; nothing opens.
    command.env("MCP_REMOTE_CONFIG_DIR", place.room.path("mcp-remote")).env("BROWSER", "true");
    let log = OpenOptions::new().create(true).append(true).open(place.room.path("mcp-remote.log")).unwrap();
    command.stderr(log);
    command
}

fn initialized(command: Command) -> Program {
    let mut program = Program::start(command);
    program.initialize();
    program
}

/// The one login of mcp-remote, which all of its processes then find in its folder.
fn log_in(place: &Place) {
    let page = || {
        let said = std::fs::read_to_string(place.room.path("mcp-remote.log")).unwrap_or_default();
        said.split_whitespace().find(|word| word.contains("/authorize?")).map(str::to_owned)
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let url = wait_until("the login page of mcp-remote", PATIENCE, page);
            Person::named("alice").browse_to_the_end(&url, Answer::Yes);
        });
        initialized(mcp_remote(place))
    });
}
