//! Asking the person: secrets without echo, from the terminal or, when stdin is not one, from a line of stdin. Never from
//! the arguments, which everybody on the machine can read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::Path;
#[cfg(unix)]
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(unix)]
use std::sync::{Arc, OnceLock};

use mcp_auth_proto::Secret;
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::output;

/// A secret from the terminal or from stdin's first line. `what` is how errors call it.
pub(crate) fn secret(what: &'static str, prompt: &str) -> Result<Secret, Failure> {
    let secret = if io::stdin().is_terminal() { typed(what, prompt)? } else { line_of(io::stdin().lock(), what)? };
    if secret.expose().is_empty() { Err(Failure::Empty(what)) } else { Ok(secret) }
}

/// A token: as [`secret`], without the spaces that copying adds around it.
pub(crate) fn token(what: &'static str, prompt: &str) -> Result<Secret, Failure> {
    let secret = Secret::new(secret(what, prompt)?.expose().trim());
    if secret.expose().is_empty() { Err(Failure::Empty(what)) } else { Ok(secret) }
}

/// A client secret: as [`token`]; a private key (PEM, JWK) is taken with all its lines, which a terminal cannot give.
pub(crate) fn client_secret(prompt: &str) -> Result<Secret, Failure> {
    let what = "the client secret";
    if io::stdin().is_terminal() {
        return token(what, prompt);
    }
    let secret = Secret::new(key_or_line_of(io::stdin().lock(), what)?.expose().trim());
    if secret.expose().is_empty() { Err(Failure::Empty(what)) } else { Ok(secret) }
}

/// What a file holds: its first line, or a whole private key; `-` is stdin. `what` is how errors call it.
pub(crate) fn secret_in(path: &Path, what: &'static str) -> Result<Secret, Failure> {
    let read = if path == Path::new("-") {
        key_or_line_of(io::stdin().lock(), what)?
    } else {
        let file = File::open(path).map_err(|source| Failure::Unreadable { path: path.to_owned(), source })?;
        key_or_line_of(BufReader::new(file), what)?
    };
    let secret = Secret::new(read.expose().trim());
    if secret.expose().is_empty() { Err(Failure::Empty(what)) } else { Ok(secret) }
}

/// A secret from the terminal, or nothing where nothing is typed.
pub(crate) fn secret_or_nothing(prompt: &str) -> Result<Option<Secret>, Failure> {
    let secret = typed("the client secret", prompt)?;
    Ok(Some(Secret::new(secret.expose().trim())).filter(|secret| !secret.expose().is_empty()))
}

/// A line that is no secret, from the terminal.
pub(crate) fn line(what: &'static str, prompt: &str) -> Result<String, Failure> {
    output::prompt(prompt);
    let line = answer(what)?;
    if line.is_empty() { Err(Failure::Empty(what)) } else { Ok(line) }
}

/// A new passphrase, typed twice on a terminal: a typing error here would lock everything away for good.
pub(crate) fn new_passphrase() -> Result<Secret, Failure> {
    let first = secret(PASSPHRASE, "new passphrase: ")?;
    if io::stdin().is_terminal() && typed(PASSPHRASE, "the same again: ")? != first {
        return Err(Failure::PassphrasesDiffer);
    }
    Ok(first)
}

/// What is typed in answer to a question that was shown, without the spaces around it; empty for Enter alone.
pub(crate) fn answer(what: &'static str) -> Result<String, Failure> {
    let mut line = String::new();
    let count = io::stdin().lock().take(MAX_SECRET as u64).read_line(&mut line).map_err(|source| Failure::Input { what, source })?;
    if count == 0 { Err(Failure::Cancelled) } else { Ok(line.trim().to_owned()) }
}

/// Yes or no, from the terminal; Enter alone is `otherwise`. `None` without a terminal: nobody has said yes.
pub(crate) fn yes_or_no(question: &str, otherwise: bool) -> Result<Option<bool>, Failure> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    loop {
        output::note(&format!("{question} {}", if otherwise { "[Y/n]" } else { "[y/N]" }));
        match answer("the answer")?.to_lowercase().as_str() {
            "" => return Ok(Some(otherwise)),
            "y" | "yes" => return Ok(Some(true)),
            "n" | "no" => return Ok(Some(false)),
            _ => {}
        }
    }
}

/// How errors call a passphrase.
pub(crate) const PASSPHRASE: &str = "the passphrase";

fn typed(what: &'static str, prompt: &str) -> Result<Secret, Failure> {
    let _held = HeldInterrupt::new();
    match rpassword::prompt_password(prompt) {
        Ok(text) => Ok(Secret::new(text)),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(Failure::Cancelled),
        Err(source) => Err(Failure::Input { what, source }),
    }
}

fn line_of(input: impl BufRead, what: &'static str) -> Result<Secret, Failure> {
    read(input, what, |_| false)
}

/// The first line, or everything where that begins a private key.
fn key_or_line_of(input: impl BufRead, what: &'static str) -> Result<Secret, Failure> {
    read(input, what, |line| line.starts_with("-----BEGIN ") || line.starts_with('{'))
}

fn read(input: impl BufRead, what: &'static str, goes_on: fn(&str) -> bool) -> Result<Secret, Failure> {
    // The exact capacity: a string that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_SECRET + 1));
    let mut input = input.take(MAX_SECRET as u64 + 1);
    let failed = |source| Failure::Input { what, source };
    input.read_line(&mut text).map_err(failed)?;
    if goes_on(&text) {
        input.read_to_string(&mut text).map_err(failed)?;
    }
    if text.len() > MAX_SECRET {
        return Err(Failure::TooLong(what));
    }
    Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
}

/// While it lives, SIGINT does not end the process. At Ctrl-C rpassword raises it with the echo still off: the shell would
/// be left with a terminal that shows nothing. Held, rpassword puts the terminal back and tells us. On Windows the
/// console's own handler does.
struct HeldInterrupt;

impl HeldInterrupt {
    fn new() -> Self {
        #[cfg(unix)]
        ends_process().store(false, Ordering::SeqCst);
        Self
    }
}

impl Drop for HeldInterrupt {
    fn drop(&mut self) {
        #[cfg(unix)]
        ends_process().store(true, Ordering::SeqCst);
    }
}

/// Whether SIGINT ends the process. One for all prompts: a handler that is in place stays.
#[cfg(unix)]
fn ends_process() -> &'static AtomicBool {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(|| {
        let flag = Arc::new(AtomicBool::new(true));
        // It fails only for signals that cannot be caught.
        let _ = signal_hook::flag::register_conditional_default(signal_hook::consts::SIGINT, Arc::clone(&flag));
        flag
    })
}

const MAX_SECRET: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_secret_and_its_end_is_not_part_of_it() {
        for (input, expected) in [("pat\n", "pat"), ("pat", "pat"), (" a b \r\nmore\n", " a b "), ("", "")] {
            assert_eq!(line_of(input.as_bytes(), "x").unwrap().expose(), expected);
        }
        let key = "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\n";
        for (input, expected) in [("hush\nmore\n", "hush"), (key, key.trim_end()), ("{\n}\n", "{\n}")] {
            assert_eq!(key_or_line_of(input.as_bytes(), "x").unwrap().expose(), expected);
        }
        assert!(matches!(line_of("x".repeat(65 * 1024).as_bytes(), "x"), Err(Failure::TooLong("x"))));
    }
}
