//! TLS in front of a server that speaks plain HTTP, with certificates made by `openssl`: good ones, and those that nobody
//! may trust.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use crate::accept::Accepting;
use crate::binaries::require;

const PATIENCE: Duration = Duration::from_secs(30);

/// Who the front says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Its own names, signed by the authority of [`TlsFront::ca_file`].
    Good,
    /// That, but the certificate ended in 2020.
    Expired,
    /// Another host, signed by the same authority.
    WrongHost,
    /// Its own names, signed by itself.
    SelfSigned,
}

/// Takes TLS connections, each for one request, and passes them on. It ends with this value.
#[derive(Debug)]
pub struct TlsFront {
    _accepting: Accepting,
    shared: Arc<Shared>,
    folder: TempDir,
}

struct Shared {
    port: u16,
    behind: u16,
    identity: Mutex<Arc<ServerConfig>>,
    plain: AtomicU64,
    refused: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("port", &self.port).finish_non_exhaustive()
    }
}

impl TlsFront {
    /// In front of this loopback port, for `localhost` and `as.test`.
    #[track_caller]
    pub fn of(behind: u16) -> Self {
        let folder = tempfile::Builder::new().prefix("tls").tempdir().unwrap();
        make_certificates(folder.path());
        let identity = Mutex::new(config(folder.path(), Identity::Good));
        let make = |port, _| Arc::new(Shared { port, behind, identity, plain: AtomicU64::new(0), refused: AtomicU64::new(0) });
        let (accepting, shared) = Accepting::start(make, Shared::serve);
        Self { _accepting: accepting, shared, folder }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.shared.port
    }

    /// The authority that signs the good certificates.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Is somebody else from now on.
    #[track_caller]
    pub fn be(&self, identity: Identity) {
        *self.shared.identity.lock().unwrap() = config(self.folder.path(), identity);
    }

    /// Connections that did not begin as TLS does.
    pub fn plain(&self) -> u64 {
        self.shared.plain.load(Ordering::Relaxed)
    }

    /// Connections that ended without a request, because the client did not go on.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        let mut first = [0];
        if stream.set_read_timeout(Some(PATIENCE)).is_err() || stream.peek(&mut first).is_err() {
            return;
        }
        // A handshake record (RFC 8446 section 5.1).
        if first[0] != 0x16 {
            self.plain.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let config = self.identity.lock().unwrap().clone();
        let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
        let Some(request) = read_request(&mut tls) else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return;
        };
        // A client or a server that goes away has its reasons.
        let _ = self.pass_on(&request, &mut tls);
    }

    fn pass_on(&self, request: &[u8], tls: &mut StreamOwned<ServerConnection, TcpStream>) -> std::io::Result<()> {
        let mut behind = TcpStream::connect(("127.0.0.1", self.behind))?;
        behind.write_all(request)?;
        let mut answer = Vec::new();
        behind.read_to_end(&mut answer)?;
        tls.write_all(&answer)?;
        tls.conn.send_close_notify();
        tls.flush()
    }
}

/// One request, head and body; `None` where it does not come whole.
fn read_request(tls: &mut StreamOwned<ServerConnection, TcpStream>) -> Option<Vec<u8>> {
    let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let mut lines = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut lines);
        if let httparse::Status::Complete(head) = parsed.parse(&request).ok()? {
            let length = parsed.headers.iter().find(|line| line.name.eq_ignore_ascii_case("content-length"));
            let length = length.and_then(|line| std::str::from_utf8(line.value).ok()?.parse().ok()).unwrap_or(0);
            if request.len() >= head + length {
                return Some(request);
            }
        }
        match tls.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(read) => request.extend(&chunk[..read]),
        }
    }
}

fn config(folder: &Path, identity: Identity) -> Arc<ServerConfig> {
    let name = match identity {
        Identity::Good => "good",
        Identity::Expired => "expired",
        Identity::WrongHost => "wrong",
        Identity::SelfSigned => "own",
    };
    let certificate = CertificateDer::from_pem_file(folder.join(format!("{name}.pem"))).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("leaf.key")).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    Arc::new(builder.with_single_cert(vec![certificate], key).unwrap())
}

/// `openssl ca`, since `openssl x509` knows no dates in the past.
const CA_CONFIG: &str = "[ca]\ndefault_ca=own\n[own]\nnew_certs_dir=.\ndatabase=index.txt\nserial=serial\ncertificate=ca.pem\nprivate_key=ca.key\n\
default_md=sha256\npolicy=any\nunique_subject=no\nemail_in_dn=no\n[req]\ndistinguished_name=any\n[any]\ncommonName=supplied\n\
[mine]\nsubjectAltName=DNS:localhost,DNS:as.test\nbasicConstraints=CA:FALSE\n\
[other]\nsubjectAltName=DNS:elsewhere.test\nbasicConstraints=CA:FALSE\n";

#[track_caller]
fn make_certificates(folder: &Path) {
    std::fs::write(folder.join("ca.cnf"), CA_CONFIG).unwrap();
    std::fs::write(folder.join("index.txt"), "").unwrap();
    std::fs::write(folder.join("serial"), "01").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(folder, &format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=authority -days 2"));
    openssl(folder, &format!("req -new {key} -keyout leaf.key -out leaf.csr -subj /CN=leaf"));
    openssl(folder, "req -x509 -key leaf.key -out own.pem -subj /CN=leaf -days 2 -config ca.cnf -extensions mine");
    let sign = "ca -batch -notext -config ca.cnf -in leaf.csr";
    openssl(folder, &format!("{sign} -extensions mine -days 2 -out good.pem"));
    openssl(folder, &format!("{sign} -extensions other -days 2 -out wrong.pem"));
    openssl(folder, &format!("{sign} -extensions mine -startdate 20200101000000Z -enddate 20200201000000Z -out expired.pem"));
}

#[track_caller]
fn openssl(folder: &Path, words: &str) {
    let mut command = Command::new(require("openssl", "openssl"));
    let output = command.args(words.split(' ')).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&output.stderr));
}
