//! PURE: which lines an answer has.

use std::collections::VecDeque;

use mcp_auth_proto::{AuditLine, AuditRequest, Program};

use crate::clock::Wall;

/// Lines of an answer where the request says nothing.
const LINES: usize = 200;
/// The most lines of an answer.
const MOST: usize = 1000;
/// The most bytes of an answer: clients take 1 MiB.
const BYTES: usize = 700 * 1024;

/// A request at one moment.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    request: AuditRequest,
    /// Older lines are left out; both are in UTC and of one form.
    earliest: Option<String>,
}

impl Filter {
    pub(super) fn new(request: AuditRequest, now: Wall) -> Self {
        let back = |seconds: u64| Wall(now.0.saturating_sub(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000))).rfc3339();
        Self { earliest: request.within.map(back), request }
    }

    pub(super) fn passes(&self, line: &AuditLine) -> bool {
        let Self { request, earliest } = self;
        request.grant.as_ref().is_none_or(|grant| line.grant.as_ref() == Some(grant))
            && request.event.as_ref().is_none_or(|event| line.event == *event)
            && earliest.as_ref().is_none_or(|earliest| line.at >= *earliest)
            && request.peer.as_ref().is_none_or(|text| line.program.as_ref().is_some_and(|program| is_of(program, text)))
    }

    /// The newest of those that pass, the oldest first.
    pub(super) fn newest(&self, lines: impl Iterator<Item = AuditLine>) -> Vec<AuditLine> {
        let most = self.request.limit.unwrap_or(LINES).min(MOST);
        let mut kept: VecDeque<(usize, AuditLine)> = VecDeque::new();
        let mut bytes = 0;
        for line in lines.filter(|line| self.passes(line)) {
            let size = serde_json::to_vec(&line).map_or(0, |text| text.len() + 1);
            bytes += size;
            kept.push_back((size, line));
            while kept.len() > most || bytes > BYTES {
                let Some((size, _)) = kept.pop_front() else { break };
                bytes -= size;
            }
        }
        let mut lines: Vec<_> = kept.into_iter().map(|(_, line)| line).collect();
        // What was counted for a while stands where it was written, which is later than its last moment.
        lines.sort_by(|one, other| one.at.cmp(&other.at));
        lines
    }
}

fn is_of(program: &Program, text: &str) -> bool {
    let names = [&program.executable, &program.script, &program.unit, &program.client];
    names.into_iter().flatten().any(|name| name.contains(text)) || program.pid.is_some_and(|pid| pid.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seconds: i64, grant: &str, executable: &str) -> AuditLine {
        AuditLine {
            at: Wall(seconds * 1000).rfc3339(),
            event: "token".into(),
            grant: Some(grant.parse().unwrap()),
            about: None,
            program: Some(Program { executable: Some(executable.into()), pid: Some(42), ..Program::default() }),
            count: 1,
            since: None,
        }
    }

    fn found(request: AuditRequest) -> Vec<String> {
        let lines = [line(10, "github", "/usr/bin/node"), line(30, "github:work", "/usr/bin/curl"), line(20, "github", "/usr/bin/curl")];
        let found = Filter::new(request, Wall(40_000)).newest(lines.into_iter());
        found.into_iter().map(|line| line.at[17..19].to_owned()).collect()
    }

    #[test]
    fn each_wish_narrows_the_answer_and_the_newest_are_last() {
        let all = AuditRequest::default;
        assert_eq!(found(all()), ["10", "20", "30"]);
        assert_eq!(found(AuditRequest { grant: "github".parse().ok(), ..all() }), ["10", "20"]);
        assert_eq!(found(AuditRequest { peer: Some("curl".into()), ..all() }), ["20", "30"]);
        assert_eq!(found(AuditRequest { peer: Some("42".into()), ..all() }).len(), 3);
        assert_eq!(found(AuditRequest { peer: Some("4".into()), ..all() }).len(), 0, "a part of a process number is none");
        assert_eq!(found(AuditRequest { within: Some(20), ..all() }), ["20", "30"]);
        assert_eq!(found(AuditRequest { within: Some(u64::MAX), ..all() }).len(), 3);
        assert_eq!(found(AuditRequest { event: Some("denied".into()), ..all() }).len(), 0);
        assert_eq!(found(AuditRequest { limit: Some(1), ..all() }), ["20"], "the last that was written");
    }

    #[test]
    fn an_answer_is_never_larger_than_a_client_takes() {
        let long = (0..2000).map(|number| line(number, "github", &"ä".repeat(300)));
        let request = AuditRequest { limit: Some(usize::MAX), ..AuditRequest::default() };
        let kept = Filter::new(request, Wall(0)).newest(long);
        let size = serde_json::to_vec(&kept).unwrap().len();
        assert!((600_000..900_000).contains(&size) && kept.last().unwrap().at.ends_with("00:33:19Z"), "{size} {:?}", kept.last());
    }
}
