//! What the bridge knows of one conversation, and what becomes of each line of the client: requests run side by side,
//! notifications and answers keep their order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::{HeaderMap, Method};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::course::Course;
use super::link::Link;
use super::login::{Logins, Shown};
use super::message::{self, Kind, Message};
use super::stdio::{Line, Lines};
use super::tools::Tools;
use super::{elicit, exchange, listening, mirror};
use crate::output;

/// The most exchanges at a time: the daemon gives one process 256 connections.
const MOST_AT_ONCE: usize = 200;
/// How many bytes of requests are kept, under way or waiting for their turn, and what one takes beside its line. One more is refused
/// and not held back: behind it may come what ends another, such as a cancellation or an answer that the server waits for.
const MOST_KEPT: usize = 256 * 1024 * 1024;
const BESIDE_LINE: usize = 16 * 1024;
/// How long a notification holds back what comes after it.
const IN_ORDER: Duration = Duration::from_secs(5);
/// How long a request that was cancelled by a notification (before 2026-07-28) is still listened to.
const LAST_ANSWER: Duration = Duration::from_secs(10);
/// After stdin's end: for answers that are under way, and for the server to hear of it. Clients wait 2 s.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
const LAST_WORD: Duration = Duration::from_millis(700);

const TOO_MUCH: &str = "too many requests wait for their answers; hint: send it again when others are answered";

/// One conversation.
pub(super) struct Conversation {
    pub(super) link: Link,
    pub(super) logins: Logins,
    outlet: Lines,
    /// Itself, for tasks that outlive a request.
    this: Weak<Self>,
    state: Mutex<State>,
    permits: Arc<Semaphore>,
    room: Arc<Semaphore>,
}

/// What changes in it.
#[derive(Default)]
pub(super) struct State {
    /// The server's name for it (before 2026-07-28).
    pub(super) session: Option<HeaderValue>,
    /// The version that was agreed on, or named last.
    pub(super) version: Option<String>,
    pub(super) tools: Tools,
    /// The client shows a person a page if it is asked to (before 2026-07-28, where every message says it itself).
    pub(super) elicits: bool,
    under_way: HashMap<String, UnderWay>,
    listening: Option<AbortHandle>,
}

struct UnderWay {
    task: AbortHandle,
    course: Arc<Course>,
    /// Giving it up is closing its stream.
    modern: bool,
}

impl Conversation {
    pub(super) fn new(link: Link, outlet: Lines, logins: Logins) -> Arc<Self> {
        let (permits, room) = (Arc::new(Semaphore::new(MOST_AT_ONCE)), Arc::new(Semaphore::new(MOST_KEPT)));
        Arc::new_cyclic(|this| Self { link, logins, outlet, this: this.clone(), state: Mutex::default(), permits, room })
    }

    /// Takes line after line, until there are no more, nobody reads ours, or it is `ended`.
    pub(super) async fn run(self: Arc<Self>, mut lines: mpsc::Receiver<Line>, ended: impl Future<Output = ()>) {
        let mut requests = JoinSet::new();
        let mut ended = std::pin::pin!(ended);
        loop {
            let line = tokio::select! {
                line = lines.recv() => line,
                () = self.outlet.closed() => None,
                () = &mut ended => None,
                Some(_) = requests.join_next() => continue,
            };
            let Some(line) = line else { break };
            self.take(line.text, &mut requests).await;
        }
        // Their answers may be on their way.
        let _ = timeout(LAST_ANSWERS, async { while requests.join_next().await.is_some() {} }).await;
        requests.shutdown().await;
        self.end().await;
    }

    async fn take(self: &Arc<Self>, line: Bytes, requests: &mut JoinSet<()>) {
        let Some(message) = Message::read(&line) else {
            return self.write(message::unreadable().into_bytes()).await;
        };
        if message.method == "initialize" {
            self.begin_anew();
            self.state().elicits = message.elicits;
        } else if let Some(version) = &message.version {
            self.state().version = Some(version.clone());
        }
        match &message.kind {
            Kind::Request(_) | Kind::Batch(_) => match self.room_for(&line) {
                Some(room) => self.start(message, line, room, requests),
                None => exchange::refuse(self, &message, &message::own_error(TOO_MUCH)).await,
            },
            Kind::Notification | Kind::Response(_) => {
                if !self.gave_up(&message) {
                    self.tell(message, line).await;
                }
            }
        }
    }

    /// `None`: too much is kept already.
    fn room_for(&self, line: &Bytes) -> Option<OwnedSemaphorePermit> {
        let size = u32::try_from(line.len() + BESIDE_LINE).ok()?;
        Arc::clone(&self.room).try_acquire_many_owned(size).ok()
    }

    fn start(self: &Arc<Self>, message: Message, line: Bytes, room: OwnedSemaphorePermit, requests: &mut JoinSet<()>) {
        let (this, modern, course) = (Arc::clone(self), message.is_modern(), Arc::new(Course::default()));
        let own_course = Arc::clone(&course);
        // A batch is not given up for one of its requests: the others want their answers.
        let id = if let Kind::Request(id) = &message.kind { Some(message::plain(id)) } else { None };
        let of = id.clone();
        let task = requests.spawn(async move {
            let _room = room;
            // It is never closed.
            let _permit = Arc::clone(&this.permits).acquire_owned().await;
            exchange::run(&this, &message, line, &own_course).await;
            if let Some(of) = of {
                this.state().under_way.remove(&of);
            }
        });
        if let Some(id) = id {
            self.state().under_way.insert(id, UnderWay { task, course, modern });
        }
    }

    /// Since 2026-07-28 a request is cancelled by closing its stream, and the notification goes no further; nor does it where the
    /// server does not have the request.
    fn gave_up(&self, message: &Message) -> bool {
        let Some(id) = &message.cancels else { return false };
        let request = self.state().under_way.remove(&message::plain(id));
        let modern = message.is_modern() || request.as_ref().is_some_and(|request| request.modern);
        let Some(UnderWay { task, course, .. }) = request else { return modern };
        let ended = !course.cancel() || modern;
        if ended {
            task.abort();
        } else {
            // A server may still have an answer on its way, or never close the stream.
            tokio::spawn(async move {
                sleep(LAST_ANSWER).await;
                task.abort();
            });
        }
        ended
    }

    /// What nobody answers is sent before the next message, unless the server takes too long over it.
    async fn tell(self: &Arc<Self>, message: Message, line: Bytes) {
        let initialized = message.method == "notifications/initialized" && !message.is_modern();
        let this = Arc::clone(self);
        let told = tokio::spawn(async move { exchange::tell(&this, &message, line).await });
        if let Ok(Ok(Err(reason))) = timeout(IN_ORDER, told).await {
            output::note(&format!("a message without an answer was not delivered: {reason}"));
        }
        if initialized {
            let task = tokio::spawn(listening::run(Arc::clone(self))).abort_handle();
            self.stop_listening(Some(task));
        }
    }

    /// A handshake begins: nothing of the conversation before it counts any more.
    fn begin_anew(&self) {
        self.stop_listening(None);
        let mut state = self.state();
        (state.session, state.version) = (None, None);
    }

    fn stop_listening(&self, next: Option<AbortHandle>) {
        if let Some(task) = std::mem::replace(&mut self.state().listening, next) {
            task.abort();
        }
    }

    /// Tells the server that its session is over, if it began one.
    async fn end(&self) {
        self.stop_listening(None);
        let in_session = self.state().session.is_some();
        if !in_session {
            return;
        }
        let headers = self.stream_headers(None);
        // A server that does not hear of it ends the session by itself.
        let _ = timeout(LAST_WORD, self.link.send(Method::DELETE, headers, Bytes::new())).await;
    }

    /// Tells the client when the login has brought tokens whose page it shows: it may ask again then.
    pub(super) fn tell_completion(&self, mut shown: Shown) {
        let this = self.this.clone();
        tokio::spawn(async move {
            if shown.completed().await
                && let Some(this) = this.upgrade()
            {
                this.write(elicit::complete(&shown.page).into_bytes()).await;
            }
        });
    }

    /// The headers of a stream that is opened without a message, or of the session's end.
    pub(super) fn stream_headers(&self, last_event: Option<&str>) -> HeaderMap {
        let state = self.state();
        let mut headers = mirror::of_stream(state.version.as_deref(), last_event);
        headers.extend(state.session.clone().map(|session| (mirror::SESSION, session)));
        headers
    }

    /// Writes a message to the client, held back while it does not read.
    pub(super) async fn write(&self, message: Vec<u8>) {
        // Nobody reads any more: the loop above ends.
        self.outlet.send(message::one_line(message).into()).await;
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use mcp_auth_proto::LoginRequest;
    use mcp_auth_proto::asynchronous::Client;
    use serde_json::{Value, json};

    use super::*;
    use crate::bridge::stdio;

    fn line(id: Option<u32>, method: &str, mut params: Value) -> Bytes {
        params["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
        let mut message = json!({ "jsonrpc": "2.0", "method": method, "params": params });
        if let Some(id) = id {
            message["id"] = id.into();
        }
        message.to_string().into()
    }

    #[tokio::test]
    async fn a_request_beyond_the_room_is_refused_and_a_cancellation_behind_it_makes_room_again() {
        let (outlet, mut written) = stdio::lines();
        let link = Link::new(Client::new("/nowhere"), "test".into(), HeaderMap::new());
        let conversation = Conversation::new(link, outlet, Logins::new("/nowhere".into(), LoginRequest::default(), true));
        let mut requests = JoinSet::new();
        // Others never end, and leave room for one.
        let _others = conversation.permits.acquire_many(u32::try_from(MOST_AT_ONCE).unwrap()).await.unwrap();
        conversation.room.forget_permits(MOST_KEPT - 2 * BESIDE_LINE);

        conversation.take(line(Some(1), "ping", json!({})), &mut requests).await;
        conversation.take(line(Some(2), "ping", json!({})), &mut requests).await;
        assert_eq!(requests.len(), 1);
        let refusal: Value = serde_json::from_slice(&written.recv().await.unwrap().text).unwrap();
        assert_eq!((&refusal["id"], &refusal["error"]["message"]), (&json!(2), &json!(TOO_MUCH)));

        conversation.take(line(None, "notifications/cancelled", json!({ "requestId": 1 })), &mut requests).await;
        assert!(requests.join_next().await.unwrap().unwrap_err().is_cancelled());
        conversation.take(line(Some(3), "ping", json!({})), &mut requests).await;
        assert!(requests.len() == 1 && written.try_recv().is_err(), "there is room");
    }

    #[tokio::test]
    async fn a_request_of_the_older_era_that_is_cancelled_before_its_turn_ends_at_once() {
        let (outlet, _written) = stdio::lines();
        let link = Link::new(Client::new("/nowhere"), "test".into(), HeaderMap::new());
        let conversation = Conversation::new(link, outlet, Logins::new("/nowhere".into(), LoginRequest::default(), true));
        let mut requests = JoinSet::new();
        let _others = conversation.permits.acquire_many(u32::try_from(MOST_AT_ONCE).unwrap()).await.unwrap();
        let request = Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t"}}"#);
        let cancellation = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#);

        conversation.take(request, &mut requests).await;
        conversation.take(cancellation, &mut requests).await;
        let ended = timeout(LAST_ANSWER / 2, requests.join_next()).await.unwrap().unwrap();
        assert!(ended.unwrap_err().is_cancelled());
    }
}
