//! `[relay]`: where the relay listens besides the socket.

use std::net::SocketAddr;

use serde::Deserialize;
use toml::Spanned;

use super::wrong;
use crate::provider::check::Fault;
use crate::provider::table::Wrong;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RelayTable {
    listen: Option<Spanned<String>>,
}

impl RelayTable {
    /// The port that it names. `taken` is the issuer's.
    pub(super) fn check(self, taken: Option<SocketAddr>) -> Result<Option<SocketAddr>, Wrong> {
        let Some(text) = self.listen else { return Ok(None) };
        let address = listen(text.get_ref()).map_err(|fault| wrong("listen", text.span(), fault))?;
        if taken == Some(address) {
            return Err(wrong("listen", text.span(), Fault::new("is the issuer's port").hint("each needs a port of its own")));
        }
        Ok(Some(address))
    }
}

/// Loopback alone: what is reached from elsewhere needs TLS, and a secret would pass in the clear.
fn listen(text: &str) -> Result<SocketAddr, Fault> {
    match text.parse::<SocketAddr>() {
        Ok(address) if !address.ip().is_loopback() => Err(Fault::new("must be a loopback address, such as \"127.0.0.1:8732\"")),
        Ok(address) if address.port() == 0 => Err(Fault::new("must name a port").hint("clients keep the URL: \"127.0.0.1:8732\"")),
        Ok(address) => Ok(address),
        Err(_) => Err(Fault::new("must be an address with a port, such as \"127.0.0.1:8732\"")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;

    fn parsed(text: &str) -> Result<Option<String>, String> {
        let config = Config::parse(text, Path::new("/c/config.toml"));
        config
            .map(|config| config.relay.map(|address| address.to_string()))
            .map_err(|error| format!("{error} {}", error.hint().unwrap_or("")))
    }

    #[test]
    fn the_port_is_on_loopback_and_its_own() {
        assert_eq!(parsed(""), Ok(None));
        assert_eq!(parsed("[relay]\n"), Ok(None));
        assert_eq!(parsed("[relay]\nlisten = '127.0.0.1:8732'"), Ok(Some("127.0.0.1:8732".into())));
        assert_eq!(parsed("[relay]\nlisten = '[::1]:8732'"), Ok(Some("[::1]:8732".into())));
        for (listen, sentence) in [
            ("0.0.0.0:8732", "must be a loopback address"),
            ("192.168.1.2:8732", "must be a loopback address"),
            ("127.0.0.1:0", "must name a port"),
            ("127.0.0.1", "must be an address with a port"),
            ("localhost:8732", "must be an address with a port"),
        ] {
            let said = parsed(&format!("[relay]\nlisten = '{listen}'")).unwrap_err();
            assert!(said.starts_with("/c/config.toml:2: `listen` ") && said.contains(sentence), "{said}");
        }
        let both = "[issuer]\nenabled = true\nlisten = '127.0.0.1:9000'\n[relay]\nlisten = '127.0.0.1:9000'";
        assert!(parsed(both).unwrap_err().contains("is the issuer's port"));
        assert!(parsed(&both.replace("true", "false")).is_ok(), "which is switched off");
        assert!(parsed("[relay]\nport = 1").unwrap_err().contains("unknown key `port`"));
    }
}
