//! The timed stream: every read and write of a connection passes here, so that its one deadline follows from where its
//! request stands. What happens when the deadline has passed is the connection's business.
//!
//! A clock is read when a request begins, is whole, and is answered; the timer itself is touched about once per idle
//! time, since it is only ever set to an earlier instant, or anew when it fires too early.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::Limits;
use crate::platform::{self, Stream};

/// What a connection runs on.
pub(super) trait Line: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Whether a peer that has closed its sending half has closed the other one too.
    fn hung_up(&self) -> bool;

    /// Whether the peer of an answer that streams has closed its sending half, or sent more; if neither, the task hears of it.
    fn poll_disturbed(&self, cx: &mut Context<'_>) -> bool;
}

impl Line for Stream {
    fn hung_up(&self) -> bool {
        platform::hung_up(self)
    }

    fn poll_disturbed(&self, cx: &mut Context<'_>) -> bool {
        platform::poll_disturbed(self, cx)
    }
}

impl Line for TcpStream {
    /// It cannot be told, and no client of HTTP closes one half alone: to wait would keep alive what the client has given up.
    fn hung_up(&self) -> bool {
        true
    }

    fn poll_disturbed(&self, cx: &mut Context<'_>) -> bool {
        while let Poll::Ready(ready) = self.poll_read_ready(cx) {
            match ready.and_then(|()| self.try_read(&mut [0])) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => return true,
            }
        }
        false
    }
}

/// Where a connection stands. Shared by its stream, its requests and its timer, which all run in one task: the atomics
/// are only there to make that task `Send`.
#[derive(Debug)]
pub(super) struct Gate {
    born: Instant,
    limits: Limits,
    phase: AtomicU8,
    /// Milliseconds since `born`, or [`NEVER`].
    read_by: AtomicU64,
    /// The same, for a write that the peer does not take.
    write_by: AtomicU64,
    peer_closed: AtomicBool,
    /// The answer is another server's.
    relays: AtomicBool,
    /// The request was answered before its body was read to its end.
    upload_left: AtomicBool,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// Nothing has come yet.
    Fresh,
    /// A head has begun.
    Head,
    /// A body is awaited.
    Body,
    /// A request waits for its answer.
    Waiting,
    /// An answer streams.
    Streaming,
    /// The whole answer is written, but not yet out.
    Answered,
    /// The next request is awaited.
    Idle,
}

const NEVER: u64 = u64::MAX;

impl Gate {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        let gate = Self {
            born: Instant::now(),
            phase: AtomicU8::new(Phase::Fresh as u8),
            read_by: AtomicU64::new(millis(limits.head_time)),
            write_by: AtomicU64::new(NEVER),
            peer_closed: AtomicBool::new(false),
            relays: AtomicBool::new(false),
            upload_left: AtomicBool::new(false),
            limits,
        };
        Arc::new(gate)
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn phase(&self) -> Phase {
        const ALL: [Phase; 7] = [Phase::Fresh, Phase::Head, Phase::Body, Phase::Waiting, Phase::Streaming, Phase::Answered, Phase::Idle];
        ALL[usize::from(self.phase.load(Relaxed))]
    }

    /// Enters a phase whose time limit starts now.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
        let time = match phase {
            Phase::Fresh | Phase::Head => Some(self.limits.head_time),
            Phase::Body => Some(self.limits.body_time),
            Phase::Waiting | Phase::Streaming | Phase::Answered => None,
            Phase::Idle => Some(self.limits.idle_time),
        };
        self.read_by.store(time.map_or(NEVER, |time| self.after(time)), Relaxed);
    }

    /// The answer is another server's from now on; the next request's is our own again.
    pub(super) fn relays(&self) {
        self.relays.store(true, Relaxed);
    }

    /// The rest of this request's body is read by nobody.
    pub(super) fn leaves_upload(&self) {
        self.upload_left.store(true, Relaxed);
    }

    /// Whether whatever arrives now, or an end, says that the peer does not wait for the stream's rest. What is left of an upload
    /// says nothing, and hides the end: the next write tells that.
    fn is_disturbable(&self) -> bool {
        self.phase() == Phase::Streaming && !self.upload_left.load(Relaxed)
    }

    /// Whether the peer has closed its sending half, as far as we have read.
    pub(super) fn peer_closed(&self) -> bool {
        self.peer_closed.load(Relaxed)
    }

    /// Whether an answer is owed. A stream is not: it goes to whoever is there, and nothing else would tell its end.
    fn is_answering(&self) -> bool {
        matches!(self.phase(), Phase::Body | Phase::Waiting | Phase::Answered)
    }

    /// Leaves at most `time` for what has a limit anyway.
    pub(super) fn hurry(&self, time: Duration) {
        self.read_by.fetch_min(self.after(time), Relaxed);
    }

    fn after(&self, time: Duration) -> u64 {
        millis(self.born.elapsed()).saturating_add(millis(time))
    }

    fn received(&self, bytes: usize) {
        if bytes == 0 {
            self.peer_closed.store(true, Relaxed);
            return;
        }
        match self.phase() {
            // The limit for the head has been running since the connection was made.
            Phase::Fresh => self.phase.store(Phase::Head as u8, Relaxed),
            Phase::Idle => {
                self.relays.store(false, Relaxed);
                self.upload_left.store(false, Relaxed);
                self.enter(Phase::Head);
            }
            _ => {}
        }
    }

    fn wrote(&self, stalled: bool) {
        if !stalled {
            self.write_by.store(NEVER, Relaxed);
        } else if self.write_by.load(Relaxed) == NEVER {
            let time = if self.relays.load(Relaxed) { self.limits.relayed_stalled_time } else { self.limits.stalled_time };
            self.write_by.store(self.after(time), Relaxed);
        }
    }

    fn flushed(&self) {
        if self.phase() == Phase::Answered {
            self.enter(Phase::Idle);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let by = self.read_by.load(Relaxed).min(self.write_by.load(Relaxed));
        (by != NEVER).then(|| self.born + Duration::from_millis(by))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(NEVER - 1)
}

/// The one timer of a connection.
#[derive(Debug, Default)]
pub(super) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ready when the gate's deadline has passed. To be polled after the connection, in the same task.
    pub(super) fn poll_expired(&mut self, gate: &Gate, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // A timer that is set and not needed fires once for nothing; to take it back would cost every request.
            let Some(due) = gate.deadline() else { return Poll::Pending };
            let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            if due < sleep.deadline() {
                sleep.as_mut().reset(due);
            }
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
    }
}

/// A stream that tells its [`Gate`] what passes.
#[derive(Debug)]
pub(super) struct Timed<L> {
    stream: Arc<Mutex<L>>,
    gate: Arc<Gate>,
    /// The end was read and not told.
    end_held: bool,
}

impl<L: Line> Timed<L> {
    pub(super) fn new(stream: Arc<Mutex<L>>, gate: Arc<Gate>) -> Self {
        Self { stream, gate, end_held: false }
    }

    /// The stream itself, once nobody looks at it any more.
    pub(super) fn into_inner(self) -> Option<L> {
        Arc::try_unwrap(self.stream).ok().map(|stream| stream.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Never waits: whoever else looks at the stream does so in this task.
    fn stream(&self) -> MutexGuard<'_, L> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_write(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.gate.wrote(polled.is_pending());
        polled
    }
}

impl<L: Line> AsyncRead for Timed<L> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut *self.stream()).poll_read(cx, buf))?;
        let received = buf.filled().len() - before;
        self.gate.received(received);
        if received == 0 && self.gate.is_answering() && !self.stream().hung_up() {
            // The peer has only closed its sending half, and still wants its answer, after which the end is read again.
            // hyper would take it for gone.
            self.end_held = true;
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<L: Line> AsyncWrite for Timed<L> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut *self.stream()).poll_write(cx, buf);
        self.note_write(polled)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut *self.stream()).poll_write_vectored(cx, bufs);
        self.note_write(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut *self.stream()).poll_flush(cx))?;
        self.gate.flushed();
        // hyper looks for the peer's end only where it has read nothing past the request.
        if self.gate.is_disturbable() && self.stream().poll_disturbed(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if self.end_held && !self.gate.is_answering() {
            self.end_held = false;
            // Nothing else would: the stream has no more to tell.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_shutdown(cx)
    }
}
