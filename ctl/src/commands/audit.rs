//! `audit`: who got what, when and how often.

use anstyle::{AnsiColor, Style};
use mcp_auth_proto::{AuditLine, AuditRequest, Client, ClientError, GrantName, Malformed, Program, event};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::failure::Failure;
use crate::output::{self, field};

/// Show which programs got which tokens, and what was changed
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcp-authctl audit
  mcp-authctl audit --grant github --since 8h
  mcp-authctl audit --peer /usr/bin/node --event denied
  mcp-authctl audit --follow
  mcp-authctl audit --json | jq -r '.[] | select(.event == \"token\") | .program.executable'

Times are UTC. Tokens are counted: a line tells how many a program got, and since when.")]
pub(crate) struct Args {
    /// Only this grant
    #[arg(long, value_name = "NAME")]
    grant: Option<GrantName>,
    /// Only programs with this in the path of executable or script, or in the unit; or the process with this number
    #[arg(long, value_name = "TEXT")]
    peer: Option<String>,
    /// Only this event, such as `token`, `denied` or `logged_in`
    #[arg(long, value_name = "EVENT")]
    event: Option<String>,
    /// Only the last while: 90s, 30m, 8h, 7d
    #[arg(long, value_name = "SPAN", value_parser = seconds)]
    since: Option<u64>,
    /// The newest so many lines, at most 1000 [default: 200]
    #[arg(long, value_name = "LINES")]
    limit: Option<usize>,
    /// Go on with what happens from now on, until Ctrl-C
    #[arg(long)]
    follow: bool,
}

pub(crate) fn run(args: Args, client: &Client, json: bool) -> Result<(), Failure> {
    let Args { grant, peer, event, since, limit, follow } = args;
    let request = AuditRequest { grant, peer, event, within: since, limit, follow };
    if !follow {
        let lines = client.audit(&request)?;
        if lines.is_empty() && !json {
            output::note("nothing of that is in the audit");
        }
        return if json { output::json(&lines) } else { lines.iter().try_for_each(show) };
    }
    for line in client.follow_audit(&request)? {
        match line {
            Ok(line) if json => output::json(&line)?,
            Ok(line) => show(&line)?,
            Err(ClientError::Protocol(Malformed::Truncated) | ClientError::Io(_)) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::Gone("you stopped following"))
}

const COLUMNS: usize = 80;

fn show(line: &AuditLine) -> Result<(), Failure> {
    let refused = matches!(line.event.as_str(), event::DENIED | event::REFUSED | event::UNLOCK_FAILED | event::GAP);
    let style = if refused { AnsiColor::Red.on_default() } else { Style::new() };
    output::styled_line(&text(line), style)
}

/// One line of at most 80 columns: when, which grant, what, and who. A path is cut at its beginning.
fn text(line: &AuditLine) -> String {
    let when = field(&line.at);
    let grant = line.grant.as_ref().map(|grant| format!("{grant}: ")).unwrap_or_default();
    let before = format!("{when} {grant}");
    let room = COLUMNS.saturating_sub(before.width()).max(2 * LEAST);
    let Some(program) = &line.program else { return format!("{before}{}", what(line, room)) };
    let to = match line.event.as_str() {
        event::TOKEN | event::DENIED => " to ",
        event::CAPABILITY_CLOSED => " of ",
        _ => " by ",
    };
    // A word about a program, or a rule: that is what the line is about, and whoever gave it has what is left.
    let is_word = matches!(line.event.as_str(), event::POLICY_CHANGED | event::CONSENT_DECIDED);
    let (process, least) = if is_word { (None, LEAST_OF_A_NAME) } else { (program.pid, LEAST) };
    let what = what(line, room.saturating_sub(to.width() + least));
    let room = room.saturating_sub(what.width() + to.width()).max(least);
    let whole = who(program, true, process);
    let who = if whole.width() > room { who(program, false, process) } else { whole };
    format!("{before}{what}{to}{}", tail(&who, room))
}

/// The fewest columns that are left of a program: its name and number, mostly.
const LEAST: usize = 20;
/// The same without a number.
const LEAST_OF_A_NAME: usize = 13;

fn what(line: &AuditLine, room: usize) -> String {
    let about = line.about.as_ref().map(|about| field(about));
    let times = if line.count > 1 { format!(" {} times", line.count) } else { String::new() };
    match (line.event.as_str(), about) {
        (event::TOKEN, _) if line.count == 1 => "1 token".to_owned(),
        (event::TOKEN, _) => format!("{} tokens{}", line.count, line.since.as_ref().map(|at| since(at)).unwrap_or_default()),
        (event::GAP, _) => format!("{} lines are missing here", line.count),
        (event::POLICY_CHANGED, Some(about)) => format!("{about}{times}"),
        (event::CONSENT_DECIDED, Some(about)) => match about.split_once(": ") {
            Some((word, program)) => format!("{word} {}{times}", tail(program, room.saturating_sub(word.width() + 1 + times.width()))),
            None => format!("{about}{times}"),
        },
        (other, None) => format!("{}{times}", field(other).replace('_', " ")),
        (other, Some(about)) => format!("{} ({about}){times}", field(other).replace('_', " ")),
    }
}

/// ` since 11:20:05`: the day is that of the line, or the one before.
fn since(at: &str) -> String {
    at.get(11..19).map(|time| format!(" since {}", field(time))).unwrap_or_default()
}

/// A program, by its script with or without what runs it.
fn who(program: &Program, runner: bool, pid: Option<u32>) -> String {
    if let Some(client) = &program.client {
        return format!("{} (client of the relay)", field(client));
    }
    let process = pid.map(|pid| format!(" ({pid})")).unwrap_or_default();
    let name = |path: &String| path.rsplit(['/', '\\']).next().unwrap_or_default().to_owned();
    match (&program.script, &program.executable, &program.unit) {
        (Some(script), Some(executable), _) if runner => format!("{} {}{process}", field(&name(executable)), field(script)),
        (Some(path), _, _) | (None, Some(path), _) => format!("{}{process}", field(path)),
        (None, None, Some(unit)) => format!("a program of {}{process}", field(unit)),
        (None, None, None) => format!("an unknown program{process}"),
    }
}

/// The end of a text in at most `width` columns, `…` where it was cut.
fn tail(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut room = width.saturating_sub(1);
    let end = text.char_indices().rev().take_while(|(_, c)| {
        let wide = c.width().unwrap_or(0);
        let fits = wide <= room;
        room -= if fits { wide } else { 0 };
        fits
    });
    format!("…{}", &text[end.last().map_or(text.len(), |(at, _)| at)..])
}

/// Seconds of a span such as `8h`.
fn seconds(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => 0,
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).filter(|_| factor > 0);
    seconds.ok_or_else(|| "a span is a number with s, m, h or d, such as 8h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(event: &str, program: Option<Program>) -> AuditLine {
        AuditLine {
            at: "2026-11-21T11:25:00Z".into(),
            event: event.into(),
            grant: "github".parse().ok(),
            about: None,
            program,
            count: 1,
            since: None,
        }
    }

    fn program(executable: &str, script: Option<&str>) -> Program {
        Program { executable: Some(executable.into()), script: script.map(str::to_owned), pid: Some(42), ..Program::default() }
    }

    #[test]
    fn a_line_says_when_what_and_who_in_80_columns() {
        let counted =
            AuditLine { count: 312, since: Some("2026-11-21T11:20:00Z".into()), ..line("token", Some(program("/usr/bin/x", None))) };
        assert_eq!(text(&counted), "2026-11-21T11:25:00Z github: 312 tokens since 11:20:00 to /usr/bin/x (42)");
        let long = program("/usr/bin/node", Some("/home/me/src/mcp/servers/github/dist/index.js"));
        let shown = text(&line("denied", Some(long)));
        assert_eq!(shown.width(), 80, "{shown}");
        assert!(shown.starts_with("2026-11-21T11:25:00Z github: denied to …") && shown.ends_with("/dist/index.js (42)"), "{shown}");
        assert_eq!(text(&line("login_required", None)), "2026-11-21T11:25:00Z github: login required");
        let gone = text(&line("logged_out", Some(Program { pid: Some(7), ..Program::default() })));
        assert_eq!(gone, "2026-11-21T11:25:00Z github: logged out by an unknown program (7)");
        let ended = Program { pid: Some(7), ..Program::default() };
        let closed = text(&AuditLine { grant: None, about: Some("github".into()), ..line("capability_closed", Some(ended)) });
        assert_eq!(closed, "2026-11-21T11:25:00Z capability closed (github) of an unknown program (7)");
    }

    #[test]
    fn what_was_said_of_a_program_stands_before_who_said_it_and_both_have_room() {
        let by = |about: &str| {
            let ctl = program("/usr/local/bin/mcp-authctl", None);
            text(&AuditLine { about: Some(about.into()), ..line("consent_decided", Some(ctl)) })
        };
        assert_eq!(by("allowed: /opt/x"), "2026-11-21T11:25:00Z github: allowed /opt/x by /usr/local/bin/mcp-authctl");
        let long = by("refused: /home/me/src/mcp/servers/github/dist/index.js");
        assert_eq!(long, "2026-11-21T11:25:00Z github: refused …vers/github/dist/index.js by …/mcp-authctl");
        assert!(long.width() <= COLUMNS, "{long}");
        let nobody = text(&AuditLine { about: Some("nobody answered: /opt/x".into()), ..line("consent_decided", None) });
        assert_eq!(nobody, "2026-11-21T11:25:00Z github: nobody answered /opt/x");
        let about = Some("rule 1, the last, was removed".into());
        let rule = AuditLine { about, ..line("policy_changed", Some(program("/opt/mcp-authctl", None))) };
        assert_eq!(text(&rule), "2026-11-21T11:25:00Z github: rule 1, the last, was removed by /opt/mcp-authctl");
    }

    #[test]
    fn nothing_in_a_path_reaches_the_terminal_as_a_command() {
        let shown = text(&line("token", Some(program("/tmp/\u{1b}[2J\u{202e}x", None))));
        assert!(!shown.contains(|c: char| c.is_control() || c == '\u{202e}'), "{shown:?}");
    }

    #[test]
    fn spans_are_numbers_with_a_unit() {
        assert_eq!([seconds("90s"), seconds("8h"), seconds("7d")], [Ok(90), Ok(28_800), Ok(604_800)]);
        for wrong in ["", "8", "h", "-1h", "8 h", "8ö", "99999999999999999999d", "99999999999999999d"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
