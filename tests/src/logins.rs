//! A login as a person does it: the command in a terminal, the page in a browser.

use crate::browse::{Answer, Person};
use crate::room::Room;
use crate::run::Output;

impl Room {
    /// `mcp-authctl login GRANT --no-browser`, with alice at the page that it shows. At a misbehaving server the page may
    /// refuse; the output tells.
    #[track_caller]
    pub fn log_in(&self, grant: &str) -> Output {
        let mut ctl = self.ctl_spawn(&["login", grant, "--no-browser"]);
        let url = ctl.wait_for("a page to open, or a refusal", |said| {
            let url = said.split_whitespace().find(|word| word.starts_with("http://127.0.0.1:") && word.contains('?'));
            url.map(|url| Some(url.to_owned())).or(said.contains("error: ").then_some(None))
        });
        if let Some(url) = url {
            Person::named("alice").browse_to_the_end(&url, Answer::Yes);
        }
        ctl.wait()
    }
}
