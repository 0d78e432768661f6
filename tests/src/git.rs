//! The gits of this machine, and a private git server: `git http-backend` behind HTTP, which asks for a token and keeps
//! what it saw.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use crate::accept::Accepting;
use crate::binaries::{bare_command, binary, require};
use crate::request::Request;
use crate::room::Room;
use crate::run::{Output, run};

/// One installed git.
#[derive(Clone, Debug)]
pub struct Git {
    program: PathBuf,
    version: (u32, u32),
}

impl Git {
    /// Every git on PATH, each once; a machine may have its distribution's and a newer one.
    #[track_caller]
    pub fn all() -> Vec<Self> {
        require("git", "git");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).filter_map(|folder| folder.join("git").canonicalize().ok());
        let mut programs: Vec<PathBuf> = found.collect();
        programs.sort();
        programs.dedup();
        programs.into_iter().map(Self::at).collect()
    }

    #[track_caller]
    fn at(program: PathBuf) -> Self {
        let said = bare_command(&program).arg("--version").output().unwrap().stdout;
        let said = String::from_utf8_lossy(&said).into_owned();
        let mut numbers = said.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
        let version = numbers.next().zip(numbers.next()).unwrap_or_else(|| panic!("no version of {}: {said}", program.display()));
        Self { program, version }
    }

    /// Major and minor version.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// Runs it to its end in the room. It asks nobody on a terminal, and knows no config but the room's.
    #[track_caller]
    pub fn run(&self, room: &Room, arguments: &[&str]) -> Output {
        self.run_typing(room, arguments, "")
    }

    /// `git credential fill`, which prints a password where it finds one.
    #[track_caller]
    pub fn fill(&self, room: &Room, protocol: &str, host: &str) -> Output {
        self.run_typing(room, &["credential", "fill"], &format!("protocol={protocol}\nhost={host}\n"))
    }

    /// Runs it with lines on its stdin. What `git credential` prints is left out of the leak search.
    #[track_caller]
    pub fn run_typing(&self, room: &Room, arguments: &[&str], lines: &str) -> Output {
        let mut command = room.command(&self.program);
        command.args(arguments).envs(SURROUNDINGS);
        run(command, "git", lines, arguments[0] == "credential")
    }

    /// Sets this list of helpers for every address that begins with `url`, in the config of the room's person.
    #[track_caller]
    pub fn set_helpers(&self, room: &Room, url: &str, helpers: &[&str]) {
        let key = if url.is_empty() { "credential.helper".to_owned() } else { format!("credential.{url}.helper") };
        for helper in helpers {
            self.run(room, &["config", "--global", "--add", &key, helper]).ok();
        }
    }
}

/// What git has for a credential helper to be ours, with these arguments.
pub fn our_helper(arguments: &str) -> String {
    format!("!{} git-credential {arguments}", binary("mcp-authctl").display())
}

const SURROUNDINGS: [(&str, &str); 6] = [
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_AUTHOR_NAME", "Alice"),
    ("GIT_AUTHOR_EMAIL", "alice@example.test"),
    ("GIT_COMMITTER_NAME", "Alice"),
    ("GIT_COMMITTER_EMAIL", "alice@example.test"),
];

/// What a server asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// A user name, with the token as the password.
    Basic,
    /// The token (RFC 6750).
    Bearer,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Visit {
    /// The path, without what follows the question mark.
    pub path: String,
    /// The user name that came with the token.
    pub user: Option<String>,
    /// The token that came.
    pub token: Option<String>,
    /// Whether it was let in.
    pub let_in: bool,
}

type Check = Box<dyn Fn(&str) -> bool + Send + Sync>;

struct Shared {
    port: u16,
    git: PathBuf,
    root: PathBuf,
    scheme: Scheme,
    is_valid: Check,
    visits: Mutex<Vec<Visit>>,
    refused: Mutex<Vec<String>>,
}

/// A server of private repositories. It ends with this value.
pub struct GitServer {
    _accepting: Accepting,
    shared: Arc<Shared>,
    _folder: TempDir,
}

impl std::fmt::Debug for GitServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GitServer").field("port", &self.shared.port).finish_non_exhaustive()
    }
}

impl GitServer {
    /// A server that lets those tokens in that are valid now.
    #[track_caller]
    pub fn start(scheme: Scheme, is_valid: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        let folder = tempfile::Builder::new().prefix("gits").tempdir().unwrap();
        let (git, root) = (require("git", "git"), folder.path().to_owned());
        let make = |port, _| {
            let (visits, refused) = Default::default();
            Arc::new(Shared { port, git, root, scheme, is_valid: Box::new(is_valid), visits, refused })
        };
        let (accepting, shared) = Accepting::start(make, Shared::serve);
        Self { _accepting: accepting, shared, _folder: folder }
    }

    /// Its host, with the port.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.shared.port)
    }

    /// The address of a repository or folder.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.host())
    }

    /// Makes a repository with one commit on `main`.
    #[track_caller]
    pub fn create(&self, path: &str) {
        let folder = self.shared.root.join(path);
        std::fs::create_dir_all(&folder).unwrap();
        self.git(path, &["init", "--quiet", "--bare", "--initial-branch=main"]);
        let tree = self.git(path, &["hash-object", "-t", "tree", "-w", "/dev/null"]);
        let commit = self.git(path, &["commit-tree", &tree, "-m", "the first"]);
        self.git(path, &["update-ref", "refs/heads/main", &commit]);
    }

    /// The newest commit of a repository's `main`.
    #[track_caller]
    pub fn newest(&self, path: &str) -> String {
        self.git(path, &["rev-parse", "refs/heads/main"])
    }

    /// Refuses this token from now on, whatever anybody says of it.
    pub fn refuse(&self, token: &str) {
        self.shared.refused.lock().unwrap().push(token.to_owned());
    }

    /// Every request so far.
    pub fn visits(&self) -> Vec<Visit> {
        self.shared.visits.lock().unwrap().clone()
    }

    /// The tokens that were let in, each once, in order.
    pub fn tokens(&self) -> Vec<String> {
        let mut tokens = Vec::new();
        for token in self.visits().into_iter().filter(|visit| visit.let_in).filter_map(|visit| visit.token) {
            if !tokens.contains(&token) {
                tokens.push(token);
            }
        }
        tokens
    }

    /// How many requests came with a token that was not let in.
    pub fn turned_away(&self) -> usize {
        self.visits().iter().filter(|visit| visit.token.is_some() && !visit.let_in).count()
    }

    #[track_caller]
    fn git(&self, path: &str, arguments: &[&str]) -> String {
        let mut command = bare_command(&self.shared.git);
        let done = command.current_dir(self.shared.root.join(path)).args(arguments).envs(SURROUNDINGS).output().unwrap();
        assert!(done.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) {
        // A client that goes away has its reasons.
        let Some(asked) = Request::read(&stream) else { return };
        let (user, token) = self.credential(asked.header("authorization")).unzip();
        let is_refused = |token: &String| self.refused.lock().unwrap().contains(token);
        let let_in = token.as_ref().is_some_and(|token| !is_refused(token) && (self.is_valid)(token));
        self.visits.lock().unwrap().push(Visit { path: asked.path.clone(), user: user.flatten(), token, let_in });
        let answer = if let_in { self.backend(&asked) } else { self.ask_for_a_token() };
        // As above.
        let _ = stream.write_all(&answer);
    }

    /// The user name and the token of a header line of the scheme that is asked for.
    fn credential(&self, line: &str) -> Option<(Option<String>, String)> {
        match self.scheme {
            Scheme::Bearer => line.strip_prefix("Bearer ").map(|token| (None, token.to_owned())),
            Scheme::Basic => {
                let text = String::from_utf8(STANDARD.decode(line.strip_prefix("Basic ")?).ok()?).ok()?;
                let (user, password) = text.split_once(':')?;
                // An address with a user name makes git try it alone first.
                (!password.is_empty()).then(|| (Some(user.to_owned()), password.to_owned()))
            }
        }
    }

    fn ask_for_a_token(&self) -> Vec<u8> {
        let challenge = format!("WWW-Authenticate: {:?} realm=\"private\"\r\n", self.scheme);
        answer("401 Unauthorized", &challenge, b"a token, please\n")
    }

    /// What `git http-backend` answers, a CGI program (RFC 3875).
    fn backend(&self, asked: &Request) -> Vec<u8> {
        let mut command = bare_command(&self.git);
        command.arg("http-backend").env("GIT_PROJECT_ROOT", &self.root).env("GIT_HTTP_EXPORT_ALL", "1");
        command.env("REQUEST_METHOD", &asked.method).env("PATH_INFO", &asked.path).env("QUERY_STRING", &asked.query);
        command.env("CONTENT_TYPE", asked.header("content-type")).env("CONTENT_LENGTH", asked.body.len().to_string());
        command.env("HTTP_CONTENT_ENCODING", asked.header("content-encoding")).env("GIT_PROTOCOL", asked.header("git-protocol"));
        // Somebody who is known may push.
        command.env("REMOTE_USER", "somebody").env("REMOTE_ADDR", "127.0.0.1").envs(SURROUNDINGS);
        let said = output_of(command, &asked.body);
        let end = said.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("an answer of git http-backend");
        let (head, body) = (String::from_utf8_lossy(&said[..end + 2]).into_owned(), &said[end + 4..]);
        let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
        answer(status, &head, body)
    }
}

fn output_of(mut command: Command, stdin: &[u8]) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // It may answer without having read everything.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap().stdout
}

fn answer(status: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status}\r\n{lines}content-length: {}\r\nconnection: close\r\n\r\n", body.len()).into_bytes();
    bytes.extend(body);
    bytes
}
