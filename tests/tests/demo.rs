//! `mcp-authctl demo`, as a stranger runs it first: on a machine without display, keychain, account or network, watched to its
//! end or ended in the middle. Whatever happens, no process and no file of it is left.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mcp_auth_tests::{HttpAnswer, OnTerminal, Running, binary, get, require, require_root, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// How long anything of a demo may take to be gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// A demo with nothing but `PATH` and a folder for temporary files of its own.
struct Demo {
    running: Running,
    folder: TempDir,
    /// Every process of it that was ever seen, the first one not counted.
    children: BTreeSet<u32>,
}

impl Demo {
    fn start(wrapper: &[&str], arguments: &[&str]) -> Self {
        Self::start_at(&binary("mcp-authctl"), wrapper, arguments)
    }

    fn start_at(program: &Path, wrapper: &[&str], arguments: &[&str]) -> Self {
        for name in ["mcp-authd", "mcp-auth-model-server"] {
            binary(name);
        }
        let folder = tempfile::Builder::new().prefix("demo").tempdir().unwrap();
        let mut words = wrapper.iter().map(PathBuf::from).chain([program.to_owned(), "demo".into()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(arguments).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("TMPDIR", folder.path());
        // What a person may have set for other things, none of which is the demo's business.
        command.env("HTTP_PROXY", "http://127.0.0.1:9").env("http_proxy", "http://127.0.0.1:9").env("ALL_PROXY", "http://127.0.0.1:9");
        command.env("MCP_AUTHD_SOCKET", "/nowhere/socket").env("MCP_AUTHD_STATE_DIR", "/nowhere").env("MODEL_SERVER_LISTEN", "127.0.0.1:9");
        Self { running: Running::start(command, "demo", false), folder, children: BTreeSet::new() }
    }

    /// Waits until it says this, and notes its processes.
    fn wait_for(&mut self, words: &str) {
        self.running.wait_for(words, |said| said.contains(words).then_some(()));
        self.look();
    }

    fn look(&mut self) {
        let mut parents = vec![self.running.pid()];
        while let Some(parent) = parents.pop() {
            let path = format!("/proc/{parent}/task/{parent}/children");
            let children = std::fs::read_to_string(path).unwrap_or_default();
            let children: Vec<u32> = children.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
            parents.extend(&children);
            self.children.extend(children);
        }
    }

    /// The process of its n-th MCP server, or of its daemon.
    fn child(&self, name: &str) -> Pid {
        let found =
            self.children.iter().find(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim() == name);
        Pid::from_raw(i32::try_from(*found.unwrap_or_else(|| panic!("no {name}: {:?}", self.children))).unwrap()).unwrap()
    }

    /// Waits until nothing is left.
    fn is_gone(&self) {
        wait_until("the end of all its processes", PATIENCE, || {
            let marked = marked(self.folder.path());
            (marked.is_empty() && self.children.iter().all(|pid| !lives(*pid))).then_some(())
        });
        wait_until("an empty folder", PATIENCE, || (self.folder.path().read_dir().unwrap().count() == 0).then_some(()));
    }
}

/// Whether a process runs; one that nobody has waited for yet does not.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// The processes that were started with this folder in their environment.
fn marked(folder: &Path) -> Vec<u32> {
    let mark = format!("TMPDIR={}", folder.display());
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let is_marked = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    all.filter(is_marked).filter(|pid| lives(*pid)).collect()
}

fn fetch(url: &str) -> HttpAnswer {
    get(&url.parse().unwrap(), &[])
}

fn events(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"))).collect()
}

#[test]
fn it_shows_the_whole_job_without_display_keychain_account_or_anything_installed() {
    let mut demo = Demo::start(&[], &["--seconds", "25"]);
    demo.wait_for("Logged in");
    let output = demo.running.wait().ok();
    demo.is_gone();
    for words in [
        "The demo answers the login page itself, because there is no display",
        "mcp-authd has refreshed",
        "<- a new token",
        "50 calls by two clients, 0 failed",
        "Logged out: the authorization server has revoked the tokens.",
        "Nothing is left behind",
        "mcp-authctl setup",
    ] {
        assert!(output.stdout.contains(words), "does not say {words:?}: {}", output.stdout);
    }
    assert!(!output.stdout.contains('\u{1b}') && output.stderr.is_empty(), "plain lines on a pipe, and nothing else: {output:?}");
    // The start of every JWT.
    assert!(!output.stdout.contains("eyJ"), "a token is shown");
}

#[test]
fn on_a_terminal_with_a_browser_the_person_types_the_code_of_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let opened = folder.path().join("opened");
    let browser = folder.path().join("browser");
    std::fs::write(&browser, format!("#!/bin/sh\nprintf '%s' \"$1\" >{0}.new && mv {0}.new {0}\n", opened.display())).unwrap();
    std::fs::set_permissions(&browser, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let mut command = Command::new(binary("mcp-authctl"));
    command
        .args(["demo", "--seconds", "20"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("TMPDIR", folder.path())
        .env("BROWSER", &browser);
    let mut demo = OnTerminal::start(command, "demo-browser");
    let url = wait_until("the browser", PATIENCE, || std::fs::read_to_string(&opened).ok());
    let page = fetch(&url).body;
    let between = |before: &str, after: &str| page.split_once(before).unwrap().1.split_once(after).unwrap().0.to_owned();
    demo.type_line("WRNG-CODE");
    // As it stands on the page.
    demo.type_line(&format!("mcp-authctl approve {}", between("mcp-authctl approve <b>", "<")));
    let next = format!("{}{}", url.split_once("/oauth/").unwrap().0, between("url=", "\""));
    let back = wait_until("the approval", PATIENCE, || fetch(&next).header("location").map(str::to_owned));
    assert_eq!(fetch(&back).status, 200);
    let (code, screen) = demo.wait();
    let screen = String::from_utf8_lossy(&screen).into_owned();
    assert_eq!(code, 0, "{screen}");
    for words in [
        "Logging in, with your browser",
        "no request waits under this code",
        "the demo (demo) asks for access",
        "approved; the page goes on",
        "40 calls, 0 failed, 1 refresh",
    ] {
        assert!(screen.contains(words), "does not show {words:?}: {screen}");
    }
    // A second without news is a line that is replaced, and no other.
    assert!(screen.contains("\x1b[2m   7 s   client 1: ") && screen.matches("   7 s").count() == 1, "{screen:?}");
}

#[test]
fn without_any_network_a_minute_has_three_refreshes_and_no_failed_call() {
    require_root("take the network away");
    let (unshare, _) = (require("unshare", "util-linux"), require("ip", "iproute2"));
    let loopback_only = ["-n", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""];
    let wrapper: Vec<&str> = [unshare.to_str().unwrap()].into_iter().chain(loopback_only).collect();
    let mut demo = Demo::start(&wrapper, &["--json"]);
    demo.wait_for("logged_in");
    let output = demo.running.wait().ok();
    demo.is_gone();
    let events = events(&output.stdout);
    let count = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    assert!(count("refreshed") >= 3, "{} refreshes", count("refreshed"));
    assert_eq!(count("called"), 120);
    assert!(events.iter().all(|event| event["error"].is_null()), "a failed call");
    let ended = events.last().unwrap();
    assert_eq!((&ended["event"], &ended["failed"], &ended["nothing_left"]), (&"ended".into(), &0.into(), &true.into()), "{ended}");
    assert!(ended["tokens"].as_u64().unwrap() > 3, "{ended}");
    // Both clients were served the same token in every second but those of a refresh.
    let of = |client: u64| events.iter().filter(move |event| event["client"] == client).map(|event| event["token"].as_str().unwrap());
    let differing = of(1).zip(of(2)).filter(|(one, other)| one != other).count();
    assert!(differing <= count("refreshed"), "{differing} seconds with two tokens");
}

#[test]
fn ended_in_the_middle_it_leaves_no_process_and_no_file() {
    let moments = ["private mcp-authd runs", "Logged in", "   2 s   client 1"];
    let mut ended = 0;
    for signal in [Signal::TERM, Signal::INT, Signal::KILL] {
        for moment in moments {
            let mut demo = Demo::start(&[], &[]);
            demo.wait_for(moment);
            assert!(!demo.children.is_empty(), "no process was seen");
            demo.running.signal(signal);
            let output = demo.running.wait();
            assert_ne!(output.code, 0, "{signal:?} at {moment:?}: {output:?}");
            demo.is_gone();
            ended += 1;
        }
    }
    println!("ended in the middle: {ended} of {} left nothing", 3 * moments.len());
}

#[test]
fn killed_at_any_instant_it_leaves_no_process_and_no_file() {
    const KILLS: u64 = 24;
    for number in 0..KILLS {
        let demo = Demo::start(&[], &[]);
        // Not a wait for anything: this is how the instants are spread over start, login and first calls.
        std::thread::sleep(Duration::from_millis(number * 40));
        demo.running.signal(Signal::KILL);
        demo.is_gone();
    }
    println!("killed at any instant: {KILLS} of {KILLS} left nothing");
}

#[test]
fn ctrl_c_ends_it_with_a_summary() {
    let mut demo = Demo::start(&[], &[]);
    demo.wait_for("   2 s   client 1");
    demo.running.signal(Signal::INT);
    let output = demo.running.wait();
    assert_eq!(output.code, 130, "{output:?}");
    assert!(output.stdout.contains("stopped by Ctrl-C") && output.stdout.contains("Nothing is left behind"), "{output:?}");
    demo.is_gone();
}

#[test]
fn it_fails_when_a_call_does() {
    let mut demo = Demo::start(&[], &["--seconds", "20"]);
    demo.wait_for("   2 s   client 1");
    kill_process(demo.child("mcp-auth-model-"), Signal::KILL).unwrap();
    let output = demo.running.wait();
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stdout.contains("failed: the MCP server has ended"), "{output:?}");
    assert!(output.stdout.contains("That is not what it should be") && !output.stdout.contains(" 0 failed"), "{output:?}");
    assert!(output.stderr.contains("error: the demo did not go as it should\nhint: "), "{output:?}");
    demo.is_gone();
}

#[test]
fn when_its_daemon_is_killed_it_ends_at_once_and_takes_the_daemons_folder_away() {
    let mut demo = Demo::start(&[], &["--seconds", "600"]);
    demo.wait_for("   2 s   client 1");
    kill_process(demo.child("mcp-authd"), Signal::KILL).unwrap();
    let output = demo.running.wait();
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stdout.contains("its mcp-authd has ended") && output.stdout.contains("Nothing is left behind"), "{output:?}");
    assert!(output.stdout.matches(" failed: ").count() <= 4, "it goes on with calls that must fail: {output:?}");
    assert!(output.stderr.contains("mcp-authd: ") && output.stderr.contains("error: the mcp-authd of the demo has ended"), "{output:?}");
    demo.is_gone();
}

#[test]
fn without_the_other_programs_it_says_how_to_get_them() {
    let alone = tempfile::tempdir_in(binary("mcp-authctl").parent().unwrap()).unwrap();
    let program = alone.path().join("mcp-authctl");
    std::fs::hard_link(binary("mcp-authctl"), &program).unwrap();
    let mut demo = Demo::start_at(&program, &[], &[]);
    let said = demo.running.wait().fails_with(1).says("mcp-authd is neither beside mcp-authctl nor on PATH");
    assert!(said.stderr.contains("hint: cargo build --release"), "{said:?}");
    demo.is_gone();
}
