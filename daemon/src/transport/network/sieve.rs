//! The lookup of names whose addresses are sifted: the connection goes to exactly what was found and is within reach, so that
//! a second answer of the name's owner changes nothing.

use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::transport::address::Reach;

/// A host whose addresses are all out of reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it leads into a private network, which a server may not name")]
pub(super) struct OutOfReach;

/// Looks names up as the system does. The addresses of one host are sifted; others (the proxy's) are the config's.
#[derive(Clone, Debug)]
pub(super) struct Sieve {
    pub(super) host: String,
    pub(super) reach: Reach,
}

impl Resolve for Sieve {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = if name.as_str().eq_ignore_ascii_case(&self.host) { self.reach } else { Reach::Anywhere };
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<SocketAddr> = found.iter().copied().filter(|address| reach.allows(address.ip())).collect();
            if allowed.is_empty() && !found.is_empty() {
                return Err(OutOfReach.into());
            }
            let addresses: Addrs = Box::new(allowed.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_sifted_by_what_it_resolves_to_and_other_names_are_not() {
        let sieve = Sieve { host: "localhost".into(), reach: Reach::Public };
        let refused = sieve.resolve("localhost".parse().unwrap()).await.map(|_| ()).unwrap_err();
        assert_eq!(refused.downcast_ref(), Some(&OutOfReach));
        let proxy = Sieve { host: "mcp.example".into(), reach: Reach::Public };
        assert!(proxy.resolve("localhost".parse().unwrap()).await.unwrap().count() > 0);
        let here = Sieve { host: "localhost".into(), reach: Reach::PublicAndLoopback };
        assert!(here.resolve("LOCALHOST".parse().unwrap()).await.unwrap().count() > 0);
    }
}
