//! docs/providers.md and the presets column of docs/quirks.md are made from the preset files, so that they cannot drift:
//! `MCP_AUTHD_WRITE_DOCS=1 cargo test -p mcp-authd --lib provider::docs` writes them, and without it the tests compare.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::preset::{self, Preset};
use super::remote;

/// Below this line the page is made here.
const MARK: &str = "<!-- Made from daemon/src/provider/presets by a test, see daemon/src/provider/docs_tests.rs. -->";

#[test]
fn the_page_of_presets_says_what_the_preset_files_say() {
    let page = read("providers.md");
    let (head, _) = page.split_once(MARK).expect("docs/providers.md has lost its mark");
    let mut text =
        format!("{head}{MARK}\n\n## Overview\n\n| preset | for | needs | login | redirect to register |\n|---|---|---|---|---|\n");
    text.extend(preset::all().map(overview));
    text.push_str("\nRemote MCP servers that are known by name (`mcp-authctl login notion-mcp`); any other by its URL ([remote.md](remote.md)):\n\n| name | URL | |\n|---|---|---|\n");
    text.extend(remote::all().iter().map(|server| format!("| `{}` | <{}> | {} |\n", server.name, server.url, server.note)));
    text.extend(preset::all().map(section));
    agree("providers.md", &page, &text);
}

#[test]
fn every_quirk_that_a_preset_sets_stands_in_the_table_of_quirks() {
    let page = read("quirks.md");
    let lines: Vec<String> = page.lines().map(|line| row(line).map_or_else(|| line.to_owned(), |row| row.line())).collect();
    agree("quirks.md", &page, &format!("{}\n", lines.join("\n")));
    let rows: Vec<_> = page.lines().filter_map(row).collect();
    for preset in preset::all() {
        for (key, value) in quirks(preset) {
            let held = rows.iter().any(|row| row.means(&key, &value));
            assert!(held, "docs/quirks.md has no row for `{key} = {value}`, which the preset {} sets", preset.name());
        }
    }
    let sources = sources();
    for row in rows {
        let tests: Vec<_> = row.test.split('`').skip(1).step_by(2).filter(|code| code.len() > 1 && !code.contains(['.', '"'])).collect();
        assert!(row.test.contains('`'), "docs/quirks.md names no test for {}", row.first);
        for test in tests {
            assert!(sources.contains(&format!("fn {test}(")), "docs/quirks.md names the test `{test}`, which is not there");
        }
    }
}

/// A line of the table of quirks.
struct Row<'a> {
    first: &'a str,
    what: &'a str,
    test: &'a str,
    /// `key` or `key = value`.
    codes: Vec<&'a str>,
}

fn row(line: &str) -> Option<Row<'_>> {
    let cells: Vec<_> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").map(str::trim).collect();
    let [first, what, test] = match cells.as_slice() {
        [first, what, _, test] => [*first, *what, *test],
        // An empty cell leaves one space, not two.
        [first, what, test] => [*first, what.trim_end_matches(" |"), test.trim_start_matches("| ")],
        _ => return None,
    };
    let codes: Vec<_> = first.split('`').skip(1).step_by(2).collect();
    (!codes.is_empty()).then_some(Row { first, what, test, codes })
}

impl Row<'_> {
    fn means(&self, key: &str, value: &toml::Value) -> bool {
        self.codes.iter().any(|code| *code == key || *code == format!("{key} = {value}"))
    }

    fn line(&self) -> String {
        let sets = |preset: &&Preset| quirks(preset).iter().any(|(key, value)| self.means(key, value));
        let presets: Vec<_> = preset::all().filter(sets).map(|preset| format!("`{}`", preset.name())).collect();
        let presets = if presets.is_empty() { "| |".to_owned() } else { format!("| {} |", presets.join(" ")) };
        format!("| {} | {} {presets} {} |", self.first, self.what, self.test)
    }
}

/// What a preset says of its server besides where it is and how to register.
fn quirks(preset: &Preset) -> Vec<(String, toml::Value)> {
    const PLAIN: [&str; 14] = [
        "base_url",
        "api_base_url",
        "issuer",
        "authorization_endpoint",
        "token_endpoint",
        "device_authorization_endpoint",
        "revocation_endpoint",
        "userinfo_endpoint",
        "scopes",
        "refresh_scopes",
        "redirect_path",
        "needs_client_secret",
        "registration_url",
        "registration_steps",
    ];
    let plain = [toml::Value::from("rfc7009"), toml::Value::from("127.0.0.1")];
    let is_quirk = |(key, value): &(String, toml::Value)| !PLAIN.contains(&key.as_str()) && !plain.contains(value);
    table(preset).into_iter().filter(is_quirk).collect()
}

fn overview(preset: &Preset) -> String {
    let summary = preset.provider().summary(false);
    let mut needs = summary.missing.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(" ");
    if summary.needs_client_secret && !summary.missing.iter().any(|key| key == "client_secret") {
        needs.push_str(", for code `client_secret` too");
    }
    let redirect = summary.redirect_uri;
    format!("| [`{0}`](#{0}) | {1} | {needs} | {2} | `{redirect}` |\n", preset.name(), preset.title(), summary.flows.join(", "))
}

fn section(preset: &Preset) -> String {
    let summary = preset.provider().summary(false);
    let mut text = format!("\n## {}\n\n{}. ", preset.name(), preset.title());
    let steps = summary.registration_steps.iter().zip(1..).map(|(step, number)| format!("{number}. {}\n", escaped(step)));
    text.push_str("To register a client:\n\n");
    text.extend(steps);
    let notes: String = summary.notes.iter().map(|note| format!("- {}\n", escaped(note))).collect();
    if !notes.is_empty() {
        text.push_str(&format!("\nGood to know:\n\n{notes}"));
    }
    let keys = table(preset).into_iter().filter(|(key, _)| !key.starts_with("registration_"));
    let keys: Vec<_> = keys.map(|(key, value)| format!("`{key} = {value}`")).collect();
    text.push_str(&format!("\nSets {}.\n", keys.join(", ")));
    let how =
        if summary.verified == Some(true) { "with the real service" } else { "against documents; no login at the real service was made" };
    let sources = summary.sources.iter().map(|source| format!("<{source}>")).collect::<Vec<_>>().join(", ");
    text.push_str(&format!("\nChecked {} {how}: {sources}\n", summary.checked.unwrap_or_default()));
    text
}

/// `[providers.NAME]` in a sentence is no link.
fn escaped(text: &str) -> String {
    let linked = |word: &str| {
        if word.starts_with("https://") {
            format!("<{}>", word.trim_end_matches([',', '.', ';'])) + trailing(word)
        } else {
            word.to_owned()
        }
    };
    text.replace('[', "\\[").split(' ').map(linked).collect::<Vec<_>>().join(" ")
}

fn trailing(word: &str) -> &str {
    &word[word.trim_end_matches([',', '.', ';']).len()..]
}

/// Every source that holds tests, as one text.
fn sources() -> String {
    let mut text = String::new();
    let mut folders: Vec<PathBuf> = vec![[env!("CARGO_MANIFEST_DIR"), "src"].iter().collect()];
    folders.push([env!("CARGO_MANIFEST_DIR"), "..", "tests", "tests"].iter().collect());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&std::fs::read_to_string(entry).unwrap());
            }
        }
    }
    text
}

fn table(preset: &Preset) -> Vec<(String, toml::Value)> {
    let file: toml::Table = toml::from_str(preset.text()).unwrap();
    file["provider"].as_table().unwrap().iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn path(page: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "docs", page].iter().collect()
}

fn read(page: &str) -> String {
    std::fs::read_to_string(path(page)).unwrap()
}

#[track_caller]
fn agree(page: &str, found: &str, expected: &str) {
    if std::env::var_os("MCP_AUTHD_WRITE_DOCS").is_some() {
        return std::fs::write(path(page), expected).unwrap();
    }
    let differs = || found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    assert!(found == expected, "docs/{page} says otherwise than the presets, at {:?}; see docs_tests.rs", differs());
}

#[test]
fn readme_and_changelog_count_the_presets() {
    let count = preset::all().count();
    for (page, said) in
        [("../README.md", format!("{} other providers", count - 1)), ("../CHANGELOG.md", format!("Presets for {count} providers"))]
    {
        assert!(read(page).contains(&said), "{page} does not say `{said}`");
    }
}

#[test]
fn names_of_presets_and_servers_are_all_different() {
    let names: Vec<_> = preset::all().map(Preset::name).chain(remote::all().iter().map(|server| server.name.as_str())).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
}
