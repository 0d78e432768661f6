//! Desktop notifications: shows them, closes them, and tells what was pressed. An edge: what is worth telling is
//! [`crate::notices`]' business, and what a press does the broker's.
//!
//! The way to the desktop is made when there is something to show, on a thread of its own, and is gone again when nothing is
//! shown. Nobody waits for it: a desktop that is missing, hangs or dies is reported, and that is all.

#[cfg(target_os = "linux")]
mod bus;
pub mod ctl;
#[cfg(any(target_os = "linux", test))]
mod text;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

/// Names a notification while it is shown. What is shown under the same key takes its place.
pub type Key = u64;

/// What a person sees. Texts are plain; what a desktop could take for markup or for the end of a line is made harmless here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// One line.
    pub summary: String,
    /// The lines below it.
    pub body: Vec<String>,
    /// What can be pressed. None of them is pressed by a click on the notification as a whole.
    pub actions: Vec<Action>,
    /// Whether it stays in sight whatever the desktop usually does.
    pub urgent: bool,
    /// How long it is shown; `None`: until somebody closes it.
    pub lasts: Option<Duration>,
}

/// Something that can be pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    /// Its name in [`Report::Pressed`].
    pub id: &'static str,
    /// What the button says.
    pub label: &'static str,
}

/// What became of a notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Somebody pressed this action. The name is whatever the desktop says.
    Pressed(Key, String),
    /// It is no longer shown: closed by a person, timed out, or gone with the desktop.
    Closed(Key),
    /// It could not be shown.
    Failed(Key, NotifyError),
}

/// Why nothing can be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotifyError {
    /// This daemon shows none: not on this system, or a daemon of a demo.
    #[error("this daemon shows no notifications")]
    Unsupported,
    /// No desktop, or one that was not told to the daemon.
    #[error("there is no D-Bus session bus")]
    NoBus,
    /// A session bus and nobody who shows notifications.
    #[error("nobody on the D-Bus session bus shows notifications")]
    NoServer,
    /// It took too long.
    #[error("the desktop's notification service does not answer")]
    Silent,
    /// What the desktop said, safe to show.
    #[error("the desktop's notification service failed: {0}")]
    Other(String),
}

/// Who hears of [`Report`]s, on whatever thread.
pub type Tell = Arc<dyn Fn(Report) + Send + Sync>;

/// Whether this daemon has anything to do with a desktop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Desktop {
    /// It keeps to itself: nothing is shown, nothing is connected to.
    #[default]
    None,
    /// The desktop of the session that the daemon's environment names.
    OfThisSession,
}

impl Desktop {
    /// Who shows notifications here: the name and version of the service, or `None` for one that is started when needed.
    /// Shows nothing and starts nobody. Takes some seconds at most.
    ///
    /// # Errors
    /// Why nothing can be shown.
    pub async fn probe(self) -> Result<Option<String>, NotifyError> {
        if self == Self::None {
            return Err(NotifyError::Unsupported);
        }
        let (answer, found) = oneshot::channel();
        start("notify-probe", move || {
            // Who asked may have gone.
            let _ = answer.send(system::probe());
        })?;
        found.await.unwrap_or(Err(NotifyError::Silent))
    }
}

/// The desktop as a place to show things.
pub struct Screen {
    desktop: Desktop,
    tell: Tell,
    orders: Option<mpsc::UnboundedSender<Order>>,
    /// Told when the last thread has ended.
    ended: Option<oneshot::Receiver<()>>,
}

/// What the thread is to do.
#[derive(Debug)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "nothing is shown there"))]
enum Order {
    Show(Key, Box<Notification>),
    Close(Key),
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("desktop", &self.desktop).finish_non_exhaustive()
    }
}

impl Screen {
    /// A place to show things. Nothing is connected to yet.
    pub fn new(desktop: Desktop, tell: Tell) -> Self {
        Self { desktop, tell, orders: None, ended: None }
    }

    /// Shows it, soon; what comes of it is reported.
    pub fn show(&mut self, key: Key, notification: Notification) {
        if self.desktop == Desktop::None {
            return (self.tell)(Report::Failed(key, NotifyError::Unsupported));
        }
        let mut order = Order::Show(key, Box::new(notification));
        if let Some(orders) = &self.orders {
            match orders.send(order) {
                Ok(()) => return,
                // That thread has ended by a fault.
                Err(unsent) => order = unsent.0,
            }
        }
        if let Err(error) = self.start(order) {
            (self.tell)(Report::Failed(key, error));
        }
    }

    /// Takes it away, soon, if it is still shown. Nothing is reported.
    pub fn close(&mut self, key: Key) {
        if let Some(orders) = &self.orders {
            // A thread that has ended shows nothing.
            let _ = orders.send(Order::Close(key));
        }
    }

    /// Nothing is shown any more: the thread carries out what it was told and ends.
    pub fn rest(&mut self) {
        self.orders = None;
    }

    /// The same; ready when the thread has ended. `None`: there is none.
    pub fn end(&mut self) -> Option<oneshot::Receiver<()>> {
        self.rest();
        self.ended.take()
    }

    fn start(&mut self, first: Order) -> Result<(), NotifyError> {
        let (orders, received) = mpsc::unbounded_channel();
        let (ends, ended) = oneshot::channel();
        let tell = self.tell.clone();
        // The receiver is still here.
        let _ = orders.send(first);
        start("notify", move || {
            system::serve(received, &tell);
            // Nobody may wait for it.
            let _ = ends.send(());
        })?;
        (self.orders, self.ended) = (Some(orders), Some(ended));
        Ok(())
    }
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), NotifyError> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    started.map(drop).map_err(|error| NotifyError::Other(error.to_string()))
}

#[cfg(target_os = "linux")]
use bus as system;

/// Where there is no freedesktop desktop, the log and `mcp-authctl status` tell.
#[cfg(not(target_os = "linux"))]
mod system {
    use tokio::sync::mpsc;

    use super::{NotifyError, Order, Report, Tell};

    pub(super) fn serve(mut orders: mpsc::UnboundedReceiver<Order>, tell: &Tell) {
        while let Some(order) = orders.blocking_recv() {
            if let Order::Show(key, _) = order {
                tell(Report::Failed(key, NotifyError::Unsupported));
            }
        }
    }

    pub(super) fn probe() -> Result<Option<String>, NotifyError> {
        Err(NotifyError::Unsupported)
    }
}
