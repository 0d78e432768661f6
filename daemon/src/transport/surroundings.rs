//! What is in effect on the way to the providers: config.toml first, the daemon's own environment otherwise. Only tells;
//! that it is so is `network`'s doing.

use mcp_auth_proto::{NetworkStatus, Setting};

use super::Proxy;
use crate::config::Network;

/// The settings in effect. `variable` reads the daemon's environment.
pub fn in_effect(config: &Network, variable: impl Fn(&str) -> Option<String>) -> NetworkStatus {
    let configured = |value: &str| Setting { value: value.to_owned(), from: "config.toml".to_owned() };
    let first = |names: &[&str]| {
        let set = |name: &&str| variable(name).filter(|value| !value.is_empty()).map(|value| Setting { value, from: (*name).to_owned() });
        names.iter().find_map(set)
    };
    let proxy = match &config.proxy {
        Some(Proxy::Through(proxy)) => Some(configured(proxy)),
        Some(Proxy::Direct) => Some(configured("none")),
        None => first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
    };
    // Where config.toml names a proxy the environment's exceptions do not count.
    let no_proxy = match (&config.no_proxy, &config.proxy) {
        (Some(hosts), Some(_)) => Some(configured(&hosts.join(","))),
        (_, Some(_)) => None,
        (_, None) => first(&["NO_PROXY", "no_proxy"]),
    };
    let ca_file = match &config.ca_file {
        Some(path) => Some(configured(&path.display().to_string())),
        None => first(&["SSL_CERT_FILE"]),
    };
    NetworkStatus {
        no_proxy: no_proxy.filter(|_| proxy.is_some()),
        proxy: proxy.map(|proxy| Setting { value: without_password(&proxy.value), ..proxy }),
        ca_file,
    }
}

/// A proxy as it may be shown: what stands before an `@` may be a password.
fn without_password(proxy: &str) -> String {
    let (scheme, rest) = proxy.split_once("://").map_or(("", proxy), |(scheme, rest)| (scheme, rest));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(config: &Network, environment: &[(&str, &str)]) -> [Option<(String, String)>; 3] {
        let lookup = |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let NetworkStatus { proxy, no_proxy, ca_file } = in_effect(config, lookup);
        [proxy, no_proxy, ca_file].map(|setting| setting.map(|setting| (setting.value, setting.from)))
    }

    fn some(value: &str, from: &str) -> Option<(String, String)> {
        Some((value.to_owned(), from.to_owned()))
    }

    #[test]
    fn config_toml_comes_before_the_environment() {
        let config = Network {
            proxy: Some(Proxy::Through("http://p:1".into())),
            no_proxy: Some(vec!["a".into(), ".b".into()]),
            ca_file: Some("/ca.pem".into()),
        };
        let environment = [("HTTPS_PROXY", "http://q:2"), ("NO_PROXY", "c"), ("SSL_CERT_FILE", "/other.pem")];
        let from = "config.toml";
        assert_eq!(told(&config, &environment), [some("http://p:1", from), some("a,.b", from), some("/ca.pem", from)]);
        let expected = [some("http://q:2", "HTTPS_PROXY"), some("c", "NO_PROXY"), some("/other.pem", "SSL_CERT_FILE")];
        assert_eq!(told(&Network::default(), &environment), expected);
        let proxy_only = Network { proxy: Some(Proxy::Through("http://p:1".into())), ..Network::default() };
        assert_eq!(told(&proxy_only, &environment)[1], None, "the environment's exceptions are not for the configured proxy");
        let direct = Network { proxy: Some(Proxy::Direct), ..Network::default() };
        assert_eq!(told(&direct, &environment)[..2], [some("none", from), None], "the environment's proxy is switched off");
    }

    #[test]
    fn without_a_proxy_there_are_no_exceptions_and_an_empty_variable_is_none() {
        assert_eq!(told(&Network::default(), &[("HTTPS_PROXY", ""), ("NO_PROXY", "c")]), [None, None, None]);
        assert_eq!(told(&Network::default(), &[("all_proxy", "socks5h://s:1")])[0], some("socks5h://s:1", "all_proxy"));
    }

    #[test]
    fn a_password_is_not_shown() {
        for (proxy, shown) in [("http://me:p@ss@p:1/", "http://p:1/"), ("me:pass@p:1", "p:1"), ("p:1", "p:1")] {
            assert_eq!(told(&Network::default(), &[("HTTPS_PROXY", proxy)])[0], some(shown, "HTTPS_PROXY"));
        }
    }
}
