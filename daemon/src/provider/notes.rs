//! What a person should know of a provider, in plain words: what follows from its quirks, then the preset's own notes. Pure.

use std::time::Duration;

use super::{DefaultLifetime, Flow, Pkce, Provider, RevocationStyle, Revokes};

/// One sentence each, the weightiest first.
pub(super) fn of(provider: &Provider) -> Vec<String> {
    let quirks = &provider.quirks;
    let mut notes = Vec::new();
    let mut note = |holds: bool, sentence: &str| notes.extend(holds.then(|| sentence.to_owned()));
    note(quirks.flow == Some(Flow::DeviceCode), "A login shows a code to type at a page; --no-browser takes the code flow.");
    note(quirks.flow == Some(Flow::ClientCredentials), "Nobody logs in: the client itself is what is granted.");
    note(quirks.flow == Some(Flow::JwtBearer), "Nobody logs in: a JWT that the platform keeps in a file is enough.");
    note(quirks.flow == Some(Flow::Enterprise), "Nobody logs in here: the enterprise's identity provider vouches for the person.");
    note(quirks.refresh_invalidates_access_token, "A refresh ends the access token that was handed out before.");
    if let Some(lifetime) = quirks.refresh_token_lifetime {
        note(true, &format!("A login ends {} after it was made.", span(lifetime)));
    }
    if let Some(idle) = quirks.refresh_token_idle_lifetime {
        note(true, &format!("A refresh token dies when it is not used for {}.", span(idle)));
    }
    note(quirks.default_lifetime == Some(DefaultLifetime::Never), "An access token that comes without an expiry never expires.");
    note(quirks.pkce == Some(Pkce::Off), "The server takes no PKCE, so none is sent.");
    if quirks.revocation == RevocationStyle::None {
        note(true, "There is no way to revoke: after a logout the tokens live until they expire.");
    } else if quirks.revokes == Revokes::Account {
        note(true, "Revoking ends every login of that person with this client, here and elsewhere, so logout asks first.");
    }
    notes.extend(provider.preset().into_iter().flat_map(|preset| preset.notes()).map(|text| text.replace("NAME", &provider.name)));
    notes
}

fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::preset;

    fn notes(name: &str, table: &str) -> Vec<String> {
        of(&preset::provider(name, toml::from_str(table).unwrap()).unwrap())
    }

    #[test]
    fn quirks_are_told_in_plain_words_and_a_plain_server_needs_none() {
        assert_eq!(notes("corp", "issuer = 'https://corp.example'"), [""; 0]);
        let table = [
            ("refresh_invalidates_access_token = true", "A refresh ends the access token that was handed out before."),
            ("refresh_token_lifetime = 2592000", "A login ends 30 days after it was made."),
            ("refresh_token_idle_lifetime = 86400", "A refresh token dies when it is not used for 24 h."),
            ("default_lifetime = 'never'", "An access token that comes without an expiry never expires."),
            ("pkce = 'none'", "The server takes no PKCE, so none is sent."),
            ("revocation = 'none'\nrevokes = 'account'", "There is no way to revoke: after a logout the tokens live until they expire."),
            ("revokes = 'account'", "Revoking ends every login of that person with this client, here and elsewhere, so logout asks first."),
        ];
        for (quirk, expected) in table {
            assert_eq!(notes("corp", &format!("issuer = 'https://corp.example'\n{quirk}")), [expected]);
        }
    }

    #[test]
    fn a_presets_own_notes_follow_and_name_the_configured_provider() {
        let notes = notes("work", "preset = 'auth0'\nbase_url = 'https://a.example'\nclient_id = 'x'");
        assert!(notes.iter().any(|note| note.contains("[providers.work]")), "{notes:?}");
    }
}
