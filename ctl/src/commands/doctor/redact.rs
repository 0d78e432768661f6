//! What a report says in place of names: `<...>` marks a name of the person's own, which becomes a short mark that is the
//! same all over one report and another in the next, so that nobody can try names against it. Home and user name go too.

use std::path::PathBuf;

use sha2::Digest as _;

/// Takes names out of texts, for one report.
pub(super) struct Redactor {
    salt: [u8; 16],
    home: Option<String>,
    runtime: Option<String>,
    user: Option<String>,
}

impl Redactor {
    pub(super) fn of_this_process() -> Self {
        let mut salt = [0; 16];
        // Without chance the marks are still not the names.
        let _ = getrandom::fill(&mut salt);
        let text = |path: PathBuf| Some(path.to_string_lossy().into_owned()).filter(|path| path.len() > 1);
        let home = std::env::home_dir();
        let user = home.as_ref().and_then(|home| home.file_name()).map(|name| name.to_string_lossy().into_owned());
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).and_then(text);
        Self { salt, home: home.and_then(text), runtime, user: std::env::var("USER").ok().or(user).filter(|user| user.len() > 2) }
    }

    /// The text without names.
    pub(super) fn text(&self, text: &str) -> String {
        let mut plain = self.unmarked(text);
        let names = [(&self.runtime, "$XDG_RUNTIME_DIR"), (&self.home, "~"), (&self.user, "USER")];
        for (name, instead) in names {
            if let Some(name) = name {
                plain = plain.replace(name.as_str(), instead);
            }
        }
        plain
    }

    fn unmarked(&self, text: &str) -> String {
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('<') {
            let Some((name, after)) = after.split_once('>') else { break };
            plain.push_str(before);
            plain.push_str(&self.mark(name));
            rest = after;
        }
        plain + rest
    }

    fn mark(&self, name: &str) -> String {
        let hash = sha2::Sha256::new().chain_update(self.salt).chain_update(name).finalize();
        format!("#{}", hex::encode(&hash[..3]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(salt: u8) -> Redactor {
        let text = |text: &str| Some(text.to_owned());
        Redactor { salt: [salt; 16], home: text("/home/zoe"), runtime: text("/run/user/1000"), user: text("zoe") }
    }

    #[test]
    fn a_name_is_the_same_mark_in_one_report_and_another_in_the_next() {
        let one = redactor(1);
        let said = one.text("<work>: <git.corp> answers, <work>");
        let (first, rest) = said.split_once(": ").unwrap();
        assert!(first.starts_with('#') && rest.ends_with(first) && !said.contains("corp") && !said.contains("work"), "{said}");
        assert_ne!(redactor(2).text("<work>"), one.text("<work>"));
    }

    #[test]
    fn paths_lose_the_user() {
        let said = redactor(1).text("/home/zoe/x /run/user/1000/y /srv/zoe/z a < b");
        assert_eq!(said, "~/x $XDG_RUNTIME_DIR/y /srv/USER/z a < b");
    }
}
