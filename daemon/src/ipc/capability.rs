//! Capability sockets: entrances of their own, each for one process and what it starts, to the tokens of some grants and
//! nothing else. A socket is there until its process ends; connections through it end then too.
//!
//! A process may live longer than the daemon, so that the vault keeps who has which socket, and a new daemon makes it
//! again. Owns the sockets and that record; which grants a process may ask for is the broker's business.

mod record;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mcp_auth_proto::{ErrorBody, ErrorCode};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use self::record::Kept;
use super::listener::{Entrance, Hall, accept_all};
use crate::broker::Broker;
use crate::caller::Caller;
use crate::platform::{self, BindError, Process};
use crate::policy::Only;
use crate::vault::{Record, Vault, VaultError};

/// The most sockets at once: each costs three file descriptors.
const MOST: usize = 256;

/// How long the disk may take to keep a new socket.
const DISK: Duration = Duration::from_secs(5);

/// How the routes ask for sockets. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Capabilities {
    wishes: mpsc::Sender<Wish>,
}

/// Where what is asked for arrives.
#[derive(Debug)]
pub struct Wishes(mpsc::Receiver<Wish>);

/// What remembers the sockets.
#[derive(Debug)]
pub struct Memory {
    /// What the vault held when it was opened last.
    pub records: watch::Receiver<Arc<Vec<Record>>>,
    /// The vault.
    pub vault: Vault,
    /// Is told when one is gone.
    pub broker: Broker,
}

#[derive(Debug)]
struct Wish {
    process: Arc<Process>,
    only: Only,
    reply: oneshot::Sender<Result<Made, ErrorBody>>,
}

/// A socket, and when the vault has kept it, or said that it does not.
#[derive(Debug)]
struct Made(PathBuf, Option<oneshot::Receiver<()>>);

impl Capabilities {
    /// A handle, and where its wishes arrive.
    pub fn new() -> (Self, Wishes) {
        let (wishes, arriving) = mpsc::channel(16);
        (Self { wishes }, Wishes(arriving))
    }

    /// The path of a socket for the caller's process and these grants: the one that is there, else a new one; and whether it is.
    ///
    /// # Errors
    /// Where the system does not keep hold of the process, and where no further socket can be made.
    pub async fn open(&self, caller: &Caller, only: Only) -> Result<(PathBuf, bool), ErrorBody> {
        let process = caller.process().cloned().ok_or_else(untold)?;
        let (reply, answer) = oneshot::channel();
        let stopping = || ErrorBody::new(ErrorCode::InternalError, "the daemon is stopping").hint("try again in a moment");
        self.wishes.send(Wish { process, only, reply }).await.map_err(|_| stopping())?;
        let Made(path, kept) = answer.await.unwrap_or_else(|_| Err(stopping()))?;
        let is_new = kept.is_some();
        if let Some(kept) = kept {
            // A program that has its socket finds it again though the daemon is killed; a disk that hangs holds nobody up.
            let _ = tokio::time::timeout(DISK, kept).await;
        }
        Ok((path, is_new))
    }
}

/// Every socket there is.
pub(super) struct House {
    /// The folder that they are in.
    folder: PathBuf,
    hall: Hall,
    vault: Vault,
    broker: Broker,
    open: HashMap<Key, Open>,
    tasks: JoinSet<Option<String>>,
}

/// One for each process and set of grants. The number will do while the process lives.
type Key = (u32, Only);

struct Open {
    process: Arc<Process>,
    name: String,
}

impl House {
    /// The sockets of the daemon whose own is at `main`. What a daemon left that was killed is removed.
    pub(super) fn new(main: &Path, hall: Hall, vault: Vault, broker: Broker) -> Self {
        let folder = main.with_extension("only");
        clear(&folder);
        Self { folder, hall, vault, broker, open: HashMap::new(), tasks: JoinSet::new() }
    }

    /// Makes sockets until the daemon ends, and returns when the last is gone.
    pub(super) async fn serve(mut self, mut wishes: Wishes, mut records: watch::Receiver<Arc<Vec<Record>>>) {
        let mut closing = std::pin::pin!(self.hall.closing());
        loop {
            tokio::select! {
                () = &mut closing => break,
                Some(Wish { process, only, reply }) = wishes.0.recv() => {
                    // Whoever has gone meanwhile needs no answer.
                    let _ = reply.send(self.socket_for(process, only));
                }
                Some(ended) = self.tasks.join_next() => {
                    if let Ok(Some(name)) = ended {
                        self.forget(&name);
                    }
                }
                Ok(()) = records.changed() => {
                    let held = records.borrow_and_update().clone();
                    held.iter().for_each(|record| self.make_again(record));
                }
            }
        }
        while self.tasks.join_next().await.is_some() {}
        // Empty, it would only say that there was something.
        let _ = std::fs::remove_dir(&self.folder);
    }

    fn socket_for(&mut self, process: Arc<Process>, only: Only) -> Result<Made, ErrorBody> {
        let key = (process.pid(), only);
        if let Some(there) = self.open.get(&key).filter(|there| there.process.is_alive()) {
            return Ok(Made(self.folder.join(&there.name), None));
        }
        let kept = Kept::new(&process, &key.1).ok_or_else(untold)?;
        let path = self.make(&kept.name, process, key.1)?;
        // A disk that refuses costs no more than the socket at the daemon's next start.
        let (tell, told_kept) = oneshot::channel();
        let done = Box::new(move |saved: Result<(), VaultError>| {
            told("kept", saved.err());
            // Whoever asked may have gone.
            let _ = tell.send(());
        });
        self.vault.save(kept.to_record(), done);
        Ok(Made(path, Some(told_kept)))
    }

    /// Makes a socket of the daemon before this one again, if its process lives.
    fn make_again(&mut self, record: &Record) {
        let Some((kept, process)) = Kept::from_record(record).and_then(|kept| Some((kept.clone(), kept.process()?))) else {
            return self.forget(&record.id.name);
        };
        let key = (process.pid(), kept.only);
        if self.open.contains_key(&key) {
            return;
        }
        match self.make(&kept.name, Arc::new(process), key.1) {
            Ok(_) => tracing::info!(pid = key.0, "the socket of a program that was started before this daemon is there again"),
            Err(error) => {
                tracing::warn!(pid = key.0, %error, "the socket of a program that was started before this daemon is not there again")
            }
        }
    }

    fn make(&mut self, name: &str, process: Arc<Process>, only: Only) -> Result<PathBuf, ErrorBody> {
        let path = self.folder.join(name);
        if self.open.len() >= MOST {
            let error =
                ErrorBody::new(ErrorCode::TooManyRequests, format!("{MOST} programs have a socket of their own, which is the most"));
            return Err(error.hint("end some of those that `mcp-authctl exec --only` started"));
        }
        let watch = process.watch().map_err(|_| untold())?;
        let listener = platform::bind(&path).map_err(|error| unbound(&error))?;
        let listener = platform::listen(listener).map_err(|source| unbound(&BindError::Io { path: path.clone(), source }))?;
        let (hall, there, named) = (self.hall.clone(), path.clone(), name.to_owned());
        self.open.insert((process.pid(), only.clone()), Open { process, name: name.to_owned() });
        self.tasks.spawn(async move {
            let (open, inside) = watch::channel(());
            let entrance = Entrance::Private { only, until: inside };
            let over = tokio::select! {
                () = watch.ended() => true,
                () = hall.closing() => false,
                () = accept_all(&listener, &hall, &entrance) => false,
            };
            drop(listener);
            // What cannot be removed the next daemon removes.
            let _ = std::fs::remove_file(there);
            drop(entrance);
            if !over {
                // Requests finish, as on the daemon's own socket.
                open.closed().await;
            }
            over.then_some(named)
        });
        Ok(path)
    }

    /// A process has ended.
    fn forget(&mut self, name: &str) {
        let gone = self.open.iter().find(|(_, open)| open.name == name).map(|(key, _)| key.clone());
        if let Some(key) = gone {
            self.open.remove(&key);
            self.broker.capability_closed(key.0, &key.1);
        }
        self.vault.delete(record::id(name), Box::new(|deleted| told("forgotten", deleted.err())));
    }
}

fn untold() -> ErrorBody {
    ErrorBody::new(ErrorCode::Conflict, "the daemon does not hear of the end of your program, so it makes no socket for it alone")
        .hint("this needs Linux, and a daemon that sees your program's process (the same container)")
}

fn unbound(error: &BindError) -> ErrorBody {
    ErrorBody::new(ErrorCode::Conflict, error.to_string())
        .hint("let MCP_AUTHD_SOCKET name a shorter path in a folder of your own, and restart mcp-authd")
}

fn told(what: &str, error: Option<VaultError>) {
    if let Some(error) = error {
        tracing::warn!(%error, "who has a socket of its own could not be {what}");
    }
}

/// Removes what a daemon left that was killed. Nothing but our sockets is there, and nothing else is touched.
fn clear(folder: &Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| record::is_name(&entry.file_name())) {
        // What cannot be removed is in nobody's way.
        let _ = std::fs::remove_file(entry.path());
    }
}
