//! `service` where nobody runs services. Under a real systemd it is seen in `tests/tests/systemd.rs`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod canned;

use canned::{Ran, ctl, finish};

/// No systemctl is to be found.
fn without_systemd(args: &[&str]) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let mut command = ctl(args);
    command.env("PATH", folder.path()).env("HOME", folder.path());
    let ran = finish(command);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    ran
}

#[test]
fn every_verb_says_why_there_is_no_service_and_what_to_do() {
    for verb in ["install", "uninstall", "start", "stop", "restart", "status", "logs"] {
        let ran = without_systemd(&["service", verb]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{verb}: {ran:?}");
        let lines: Vec<&str> = ran.stderr.lines().collect();
        assert!(lines.len() == 2 && lines[0].starts_with("error: ") && lines[1].starts_with("hint: "), "{verb}: {ran:?}");
        assert!(lines[0].contains("systemd") || lines[0].contains("root by sudo"), "{verb}: {ran:?}");
    }
    let json: serde_json::Value = serde_json::from_str(&without_systemd(&["service", "status", "--json"]).stderr).unwrap();
    assert_eq!(json["error"], "no_service_manager");
}

#[test]
fn without_a_home_there_is_no_place_for_a_service() {
    let ran = finish(ctl(&["service", "install"]));
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.stderr, "error: there is no home folder for the files of a service\nhint: set HOME\n");
}
