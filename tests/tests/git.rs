//! `mcp-authctl git-credential` under real gits (every one that is installed: they differ in what they can), with a real
//! authorization server and `git http-backend` behind it.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_auth_tests::{Git, GitServer, LeakSearch, Room, Scheme, Server, our_helper, post_form, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// An authorization server and a git server that believes it.
fn servers(scheme: Scheme, lifetime: u64) -> (Arc<Server>, GitServer) {
    let server = Arc::new(Server::with_lifetime(lifetime));
    let asked = server.clone();
    (server, GitServer::start(scheme, move |token| asked.is_active(token)))
}

/// Every git, told on stdout: the rest of the test says which of them it was about.
fn gits() -> Vec<Git> {
    let gits = Git::all();
    println!("with git {:?}", gits.iter().map(Git::version).collect::<Vec<_>>());
    gits
}

/// A repository's name, for one git alone.
fn name(git: &Git) -> String {
    format!("private-{}", git.version().1)
}

/// A helper of `grant` for this server alone.
fn helper(grant: &str, gits: &GitServer) -> String {
    our_helper(&format!("{grant} --host {}", gits.host()))
}

/// Commits more than git sends in one piece (`http.postBuffer`, 1 MiB), which no compression makes smaller.
fn commit_noise(git: &Git, room: &Room, folder: &str) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut xorshift64 = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let noise: Vec<u8> = (0..(3 << 20) / 8).flat_map(|_| xorshift64()).collect();
    std::fs::write(room.path(folder).join("noise"), noise).unwrap();
    git.run(room, &["-C", folder, "add", "noise"]).ok();
    git.run(room, &["-C", folder, "commit", "--quiet", "-m", "the second"]).ok();
}

#[test]
fn a_private_repository_is_cloned_and_pushed_to_though_the_token_expires_in_between() {
    let (server, forge) = servers(Scheme::Basic, 12);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let gits = gits();
    // `store` writes down what it hears of, and hears of nothing that our part of the config is about.
    gits[0].set_helpers(&room, "", &["store"]);
    gits[0].set_helpers(&room, &format!("http://{}", forge.host()), &["", &helper("test", &forge)]);
    for git in &gits {
        forge.create(&name(git));
        git.run(&room, &["clone", "--quiet", &forge.url(&name(git)), &name(git)]).ok();
    }
    assert!(forge.visits().iter().all(|visit| visit.token.is_none() || visit.user.as_deref() == Some("oauth2")));
    let first = forge.tokens();
    wait_until("the end of what the clones used", PATIENCE, || first.iter().all(|token| !server.is_active(token)).then_some(()));
    for git in &gits {
        let folder = name(git);
        commit_noise(git, &room, &folder);
        git.run(&room, &["-C", &folder, "push", "--quiet", "origin", "HEAD:main"]).ok();
        git.run(&room, &["-C", &folder, "fetch", "--quiet"]).ok();
        let ours = git.run(&room, &["-C", &folder, "rev-parse", "HEAD"]).ok().stdout;
        assert_eq!(forge.newest(&folder), ours.trim(), "what the server has");
    }
    assert!(forge.tokens().len() > first.len(), "the pushes used a new token");
    assert_eq!(forge.turned_away(), 0, "a token that is no good was sent");
    let (findings, files, _) = LeakSearch::default().search_folder(&room.path(""));
    assert!(files > 10 && findings.is_empty(), "of {files} files: {findings:?}");
}

#[test]
fn a_token_that_the_server_refuses_costs_one_command_and_one_refresh() {
    let (server, forge) = servers(Scheme::Basic, 3600);
    let room = Room::at(&server);
    let daemon = room.start();
    for git in gits() {
        let grant = format!("test:of-{}", git.version().1);
        forge.create(&name(&git));
        let url = forge.url(&name(&git));
        git.set_helpers(&room, &url, &["", &helper(&grant, &forge)]);
        daemon.log_in(&grant, "alice");
        let issued = Instant::now();
        git.run(&room, &["ls-remote", &url]).ok();
        // A token that has just been issued is not refreshed because somebody refuses it.
        wait_until("a token that may be refreshed", PATIENCE, || (issued.elapsed() > Duration::from_secs(11)).then_some(()));
        let old = daemon.token(&grant);
        let refreshes = server.counters().refreshes().ok;
        forge.refuse(&old);
        let refused = git.run(&room, &["ls-remote", &url]);
        assert!(refused.code == 128 && refused.stderr.contains("Authentication failed"), "{refused:?}");
        git.run(&room, &["ls-remote", &url]).ok();
        assert_eq!(server.counters().refreshes().ok, refreshes + 1);
        assert!(forge.tokens().contains(&daemon.token(&grant)), "the next command used the new token");
        assert_eq!(forge.visits().iter().filter(|visit| visit.token.as_ref() == Some(&old) && !visit.let_in).count(), 1);
    }
}

#[test]
fn a_grant_that_was_revoked_ends_with_the_command_to_log_in_again() {
    let (server, forge) = servers(Scheme::Basic, 3600);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let issued = Instant::now();
    let gits = gits();
    forge.create("private");
    let url = forge.url("private");
    gits[0].set_helpers(&room, &url, &["", &helper("test", &forge)]);
    gits[0].run(&room, &["ls-remote", &url]).ok();
    wait_until("a token that may be refreshed", PATIENCE, || (issued.elapsed() > Duration::from_secs(11)).then_some(()));
    let revocation = [("client_id", "native"), ("token", &daemon.token("test"))];
    assert_eq!(post_form(&server.url("/token/revocation"), &[], &revocation).status, 200);
    let refused = gits[0].run(&room, &["ls-remote", &url]);
    assert!(refused.code == 128 && refused.stderr.contains("Authentication failed"), "{refused:?}");
    let state = || daemon.show("/v1/grants/test")["state"] == "login_required";
    wait_until("the end of the grant", PATIENCE, || state().then_some(()));
    let before = forge.turned_away();
    for git in gits {
        let ended = git.run(&room, &["ls-remote", &url]);
        assert!(ended.code == 128 && ended.stderr.contains("told us to quit"), "{ended:?}");
        assert!(ended.stderr.contains("hint: mcp-authctl login test"), "{ended:?}");
    }
    assert_eq!(forge.turned_away(), before, "the token that was refused is sent again");
    daemon.log_in("test", "alice");
    Git::all()[0].run(&room, &["ls-remote", &url]).ok();
}

#[test]
fn a_host_that_is_not_the_providers_gets_nothing_and_git_asks_on() {
    let server = Server::with_lifetime(60);
    let forge = GitServer::start(Scheme::Basic, |token| token == "from-elsewhere");
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let gits = gits();
    let other = "!f() { echo username=me; echo password=from-elsewhere; }; f";
    gits[0].set_helpers(&room, "", &["", &our_helper("test"), other]);
    for git in gits {
        forge.create(&name(&git));
        let clone = git.run(&room, &["clone", "--quiet", &forge.url(&name(&git))]).ok();
        assert!(clone.stderr.contains(&format!("test gives no token to {0}; `--host {0}` allows it", forge.host())), "{clone:?}");
        // The provider's own host needs no naming.
        let own = server.issuer().strip_prefix("http://").unwrap();
        let filled = git.fill(&room, "http", own).ok().stdout;
        assert!(filled.contains(&format!("password={}\n", daemon.token("test"))), "of the provider's host");
        assert_eq!(filled.contains("password_expiry_utc="), git.version() >= (2, 40), "what this git keeps of the expiry");
    }
    assert_eq!((forge.tokens(), forge.turned_away()), (vec!["from-elsewhere".to_owned()], 0));
}

#[test]
fn an_open_line_and_a_port_that_is_not_named_get_nothing() {
    let server = Server::with_lifetime(60);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let gits = gits();
    gits[0].set_helpers(&room, "", &["", &our_helper("test --host git.example")]);
    for git in gits {
        let filled = git.fill(&room, "https", "git.example").ok();
        assert!(filled.stdout.contains("password=zQaT9qz"));
        let other = git.fill(&room, "https", "git.example:8443");
        assert!(other.code == 128 && other.stdout.is_empty(), "another port is another server: {other:?}");
        let open = git.fill(&room, "http", "git.example");
        assert!(open.code == 128 && open.stdout.is_empty(), "{open:?}");
        assert!(open.stderr.contains("mcp-authctl gives no token to http://git.example"), "{open:?}");
    }
}

#[test]
fn a_login_that_is_needed_is_told_and_nobody_is_asked_for_a_password() {
    let (server, forge) = servers(Scheme::Basic, 60);
    let mut room = Room::at(&server);
    let asked = room.path("asked");
    let askpass = room.path("askpass");
    std::fs::write(&askpass, format!("#!/bin/sh\ntouch {}\necho x\n", asked.display())).unwrap();
    std::fs::set_permissions(&askpass, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    room.set("GIT_ASKPASS", askpass.to_str().unwrap());
    let gits = gits();
    forge.create("private");
    gits[0].set_helpers(&room, &format!("http://{}", forge.host()), &["", &helper("test", &forge)]);
    gits[0].set_helpers(&room, server.issuer(), &["", &our_helper("test")]);
    let daemon = room.start();
    for git in &gits {
        for refused in [git.run(&room, &["ls-remote", &forge.url("private")]), git.fill(&room, "http", &server.issuer()[7..])] {
            assert!(refused.code == 128 && refused.stderr.contains("told us to quit"), "{refused:?}");
            assert!(refused.stderr.contains("hint: mcp-authctl login test"), "{refused:?}");
        }
    }
    assert_eq!(daemon.stop().code, 0);
    for git in &gits {
        let refused = git.run(&room, &["ls-remote", &forge.url("private")]);
        assert!(refused.code == 128 && refused.stderr.contains("error: mcp-authd is not running"), "{refused:?}");
    }
    assert!(!asked.exists(), "a person was asked for a password");
    // Without our helper the person is asked: the check above can fail.
    gits[0].set_helpers(&room, &format!("http://{}", forge.host()), &[""]);
    assert_eq!(gits[0].run(&room, &["ls-remote", &forge.url("private")]).code, 128);
    assert!(asked.exists());
}

#[test]
fn several_accounts_serve_the_addresses_that_the_config_gives_them() {
    let (server, forge) = servers(Scheme::Basic, 60);
    let room = Room::at(&server);
    let daemon = room.start();
    let gits = gits();
    // As docs/git.md has it: the section for all first.
    let host = forge.host();
    let sections = [("alice", format!("http://{host}")), ("bob", forge.url("acme")), ("carol", format!("http://me@{host}"))];
    for (who, section) in &sections {
        daemon.log_in(&format!("test:{who}"), who);
        gits[0].set_helpers(&room, section, &["", &helper(&format!("test:{who}"), &forge)]);
    }
    for path in ["notes", "acme/notes", "acmes"] {
        forge.create(path);
    }
    let with_name = forge.url("notes").replace("//", "//me@");
    for git in gits {
        for (url, who) in
            [(forge.url("notes"), "alice"), (forge.url("acmes"), "alice"), (forge.url("acme/notes"), "bob"), (with_name.clone(), "carol")]
        {
            let before = forge.visits().len();
            git.run(&room, &["ls-remote", &url]).ok();
            let tokens: Vec<String> = forge.visits().split_off(before).into_iter().filter_map(|visit| visit.token).collect();
            let subjects: Vec<_> = tokens.iter().map(|token| server.userinfo(token).json()["sub"].clone()).collect();
            assert!(!subjects.is_empty() && subjects.iter().all(|subject| subject == who), "{url}: {subjects:?}");
        }
    }
}

#[test]
fn a_server_that_takes_bearer_tokens_alone_gets_one_from_a_git_that_can_send_it() {
    let (server, forge) = servers(Scheme::Bearer, 60);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let gits = gits();
    forge.create("private");
    gits[0].set_helpers(&room, &format!("http://{}", forge.host()), &["", &helper("test", &forge)]);
    for git in gits {
        let clone = git.run(&room, &["clone", "--quiet", &forge.url("private"), &name(&git)]);
        if git.version() < (2, 46) {
            assert!(clone.code == 128 && clone.stderr.contains("Authentication failed"), "{clone:?}");
            continue;
        }
        clone.ok();
        commit_noise(&git, &room, &name(&git));
        // Larger than the push: see docs/git.md.
        git.run(&room, &["-C", &name(&git), "-c", "http.postBuffer=16777216", "push", "--quiet", "origin", "HEAD:main"]).ok();
        assert_eq!(forge.tokens(), [daemon.token("test")]);
    }
}

#[test]
fn what_a_cache_keeps_is_not_used_after_its_end_by_a_git_that_knows_of_ends() {
    let server = Server::with_lifetime(10);
    let room = Room::at(&server);
    let daemon = room.start();
    daemon.log_in("test", "alice");
    let host = server.issuer().strip_prefix("http://").unwrap();
    for git in gits() {
        // A cache and a config of its own for each.
        let folder = room.path(&format!("cache-{}", git.version().1));
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let socket = folder.join("socket").display().to_string();
        let _ = std::fs::remove_file(room.path("home/.gitconfig"));
        git.set_helpers(&room, "", &["", &format!("cache --socket {socket}"), &our_helper("test")]);
        // A program that knows nothing of schemes, as git-lfs before 3.6: the password is kept.
        let password = |filled: &str| filled.lines().find_map(|line| line.strip_prefix("password=")).unwrap().to_owned();
        let filled = git.fill(&room, "http", host).ok().stdout;
        git.run_typing(&room, &["credential", "approve"], &filled).ok();
        let kept = password(&filled);
        wait_until("the end of the cached token", PATIENCE, || (!server.is_active(&kept)).then_some(()));
        let next = password(&git.fill(&room, "http", host).ok().stdout);
        assert_eq!(next == kept, git.version() < (2, 40), "git {:?}", git.version());
        git.run(&room, &["credential-cache", "--socket", &socket, "exit"]).ok();
    }
}
