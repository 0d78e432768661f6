//! The half of `approve` that is about the tokens of a grant: what a program asks for, and the person's word on it.

use mcp_auth_proto::{Client, Consent, ConsentDecision, Program};

use super::approve::Word;
use super::scopes;
use crate::failure::Failure;
use crate::output::{self, field};

/// Whether a text is the id of a question about a token: digits, where the issuer's codes are letters.
pub(super) fn is_id(text: &str) -> bool {
    text.chars().any(|c| c.is_ascii_digit()) && text.chars().all(|c| c.is_ascii_digit() || matches!(c, '-' | ' '))
}

/// Shows what waits, each with the command that decides it.
pub(super) fn list(client: &Client, json: bool) -> Result<(), Failure> {
    let waiting = client.consents()?;
    if json {
        return output::json(&waiting);
    }
    if waiting.is_empty() {
        output::note("nothing waits for your word");
    }
    for consent in &waiting {
        output::line(&format!("{}  {} asks for {}", consent.id, program_lines(&consent.program).join(", "), consent.grant))?;
        output::line(&format!("           mcp-authctl approve {} (within {} s)", consent.id, consent.expires_in))?;
    }
    Ok(())
}

/// Shows one, has the person decide, and tells the daemon.
pub(super) fn decide(id: &str, word: Word, client: &Client, json: bool) -> Result<(), Failure> {
    let asked = client.consent(id)?;
    if !json {
        describe(&asked);
    }
    let allow = word.or_ask(id)?;
    let decided = client.decide_consent(id, &ConsentDecision { allow })?;
    if json {
        return output::json(&decided);
    }
    output::note(match (allow, decided.remember) {
        (true, true) => "allowed, and remembered: `mcp-authctl policy list` shows it",
        (true, false) => "allowed, this time",
        (false, _) => "refused",
    });
    Ok(())
}

fn describe(asked: &Consent) {
    output::note(&format!("a program asks for a token of {}", asked.grant));
    for (number, line) in program_lines(&asked.program).iter().enumerate() {
        output::note(&format!("  {:<9} {line}", if number == 0 { "program" } else { "" }));
    }
    let process = asked.program.pid.map(|pid| format!("  process   {pid}"));
    process.iter().for_each(|line| output::note(line));
    output::note(&format!("  scopes    {}", scopes(&asked.scopes)));
    output::note(&format!("  host      {}", field(&asked.host)));
    asked.resource.iter().for_each(|resource| output::note(&format!("  resource  {}", field(resource))));
    asked.program.weak.iter().for_each(|weak| output::warning(&field(weak)));
}

/// A program for people: the script and what runs it, else the executable; then the unit.
pub(super) fn program_lines(program: &Program) -> Vec<String> {
    if let Some(client) = &program.client {
        return vec![format!("{} (client of the relay)", field(client))];
    }
    let mut lines = match (&program.script, &program.executable) {
        (Some(script), Some(executable)) => vec![format!("{} (run by {})", field(script), field(executable))],
        (Some(one), None) | (None, Some(one)) => vec![field(one)],
        (None, None) => vec!["an unknown program".to_owned()],
    };
    lines.extend(program.unit.as_ref().map(|unit| format!("unit {}", field(unit))));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_digits_and_the_codes_of_a_page_are_letters() {
        assert!(is_id("1234-5678") && is_id("12345678") && is_id("1234 5678"));
        assert!(!is_id("WDJB-MJHT") && !is_id("wdjbmjht") && !is_id("") && !is_id("-"));
    }
}
