//! A way to the network that goes where a server led us: to hosts that the person named wherever they are, and to every other
//! host on the public internet only.

use std::sync::Arc;
use std::time::Duration;

use url::Origin;

use super::address::Reach;
use super::{Exchange, Knock, Method, Open, Opening, Request, Transport, TransportError, check_url, is_loopback, shown};

/// What a person named, and what may be reached besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    named: Vec<Origin>,
    others: Reach,
}

impl Guard {
    /// The guard of a remote server whose URL the person typed or configured. A server on this machine may name others on
    /// it; `anywhere`: the person allows private networks, too.
    pub fn of(server: &str, anywhere: bool) -> Self {
        let url = check_url(server).ok();
        let others = match &url {
            _ if anywhere => Reach::Anywhere,
            Some(url) if is_loopback(url) => Reach::PublicAndLoopback,
            _ => Reach::Public,
        };
        Self { named: url.iter().map(url::Url::origin).collect(), others }
    }

    /// Where a request to this URL may be connected to.
    pub fn reach(&self, url: &str) -> Reach {
        if self.names(url) { Reach::Anywhere } else { self.others }
    }

    /// Whether the person named the origin of this URL.
    fn names(&self, url: &str) -> bool {
        check_url(url).is_ok_and(|url| self.named.contains(&url.origin()))
    }
}

/// A transport behind a [`Guard`].
pub struct Guarded {
    inner: Arc<dyn Transport>,
    guard: Guard,
}

impl Guarded {
    /// Puts a guard before a transport.
    pub fn new(inner: Arc<dyn Transport>, guard: Guard) -> Self {
        Self { inner, guard }
    }
}

impl std::fmt::Debug for Guarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guarded").field("guard", &self.guard).finish_non_exhaustive()
    }
}

impl Transport for Guarded {
    fn send(&self, request: Request) -> Exchange<'_> {
        let reach = self.guard.reach(&request.url);
        self.inner.send(Request { reach, ..request })
    }

    fn knock(&self, url: String, timeout: Duration) -> Knock<'_> {
        match self.guard.reach(&url) {
            Reach::Anywhere => self.inner.knock(url, timeout),
            reach => {
                let request = Request { timeout, reach, ..Request::new(Method::Get, url) };
                Box::pin(async move { self.inner.send(request).await.map(|_| None) })
            }
        }
    }

    /// What passes through goes to the server that the person named, and nowhere else, whatever else may be reached: its
    /// connections are kept, and no address is looked at again.
    fn open(&self, request: Opening) -> Open<'_> {
        if self.guard.names(&request.url) {
            return self.inner.open(request);
        }
        Box::pin(async move { Err(TransportError::Refused(shown(&request.url))) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use hyper::HeaderMap;

    use super::*;
    use crate::transport::Outgoing;

    /// Remembers where it was asked to go, and goes nowhere.
    #[derive(Default)]
    struct Nowhere(Mutex<Vec<String>>);

    impl Nowhere {
        fn refuse(&self, url: String) -> TransportError {
            self.0.lock().unwrap().push(url);
            TransportError::Refused("nowhere".to_owned())
        }
    }

    impl Transport for Nowhere {
        fn send(&self, request: Request) -> Exchange<'_> {
            Box::pin(async move { Err(self.refuse(request.url)) })
        }

        fn open(&self, request: Opening) -> Open<'_> {
            Box::pin(async move { Err(self.refuse(request.url)) })
        }
    }

    #[tokio::test]
    async fn what_passes_through_goes_to_the_named_origin_and_nowhere_else_even_where_more_may_be_reached() {
        let server = "https://mcp.corp.example/mcp";
        for anywhere in [false, true] {
            let inner = Arc::new(Nowhere::default());
            let guarded = Guarded::new(inner.clone(), Guard::of(server, anywhere));
            for url in
                [server, "https://as.corp.example/mcp", "https://10.0.0.1/", "https://mcp.corp.example:8443/mcp", "http://127.0.0.1/", "x"]
            {
                let (method, body) = (hyper::Method::GET, Outgoing::Whole(bytes::Bytes::new()));
                let opening = Opening { method, url: url.to_owned(), headers: HeaderMap::new(), body, prove: None };
                assert!(guarded.open(opening).await.is_err());
            }
            assert_eq!(*inner.0.lock().unwrap(), [server], "anywhere: {anywhere}");
        }
    }

    #[test]
    fn only_the_origin_that_the_person_named_is_exempt() {
        let corp = Guard::of("https://mcp.corp.example/mcp", false);
        for (url, reach) in [
            ("https://mcp.corp.example/.well-known/oauth-protected-resource", Reach::Anywhere),
            ("https://mcp.corp.example:443/", Reach::Anywhere),
            ("https://mcp.corp.example:8443/", Reach::Public),
            ("http://mcp.corp.example/", Reach::Public),
            ("https://as.corp.example/", Reach::Public),
            ("https://127.0.0.1/", Reach::Public),
        ] {
            assert_eq!(corp.reach(url), reach, "{url}");
        }
    }

    #[test]
    fn a_server_on_this_machine_may_name_others_on_it_and_the_person_may_allow_more() {
        let here = Guard::of("http://localhost:9/mcp", false);
        assert_eq!(here.reach("http://localhost:8/token"), Reach::PublicAndLoopback);
        assert_eq!(here.reach("http://localhost:9/token"), Reach::Anywhere);
        assert_eq!(Guard::of("https://mcp.corp.example/mcp", true).reach("https://10.0.0.1/token"), Reach::Anywhere);
        assert_eq!(Guard::of("nonsense", false).reach("https://as.example"), Reach::Public);
    }
}
