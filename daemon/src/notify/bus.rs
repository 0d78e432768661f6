//! The notification service of a freedesktop desktop, over D-Bus (Desktop Notifications Specification 1.3).
//!
//! Directly on the zbus that the keychain brings: a crate for notifications brings a second one. One connection for
//! everything that is shown; while it waits, nothing wakes but the messages of the bus.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use zbus::message::{Message, Type};
use zbus::zvariant::Value;
use zbus::{Connection, MessageStream, connection};

use super::{Key, Notification, NotifyError, Order, Report, Tell, text};
use crate::oauth::text::clean;

const SERVICE: &str = "org.freedesktop.Notifications";
const OBJECT: &str = "/org/freedesktop/Notifications";
const BUS: &str = "org.freedesktop.DBus";
const BUS_OBJECT: &str = "/org/freedesktop/DBus";

/// How long the service may take to answer; the bus may have to start it first.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same for a question that somebody waits for.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// What is to be heard: the service's signals, and that the service goes.
const MATCHES: [&str; 2] = [
    "type='signal',sender='org.freedesktop.Notifications',interface='org.freedesktop.Notifications'",
    "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='org.freedesktop.Notifications'",
];

/// Carries out orders until there will be no more.
pub(super) fn serve(mut orders: mpsc::UnboundedReceiver<Order>, tell: &Tell) {
    match runtime() {
        Ok(runtime) => {
            runtime.block_on(work(&mut orders, tell));
            runtime.shutdown_background();
        }
        Err(error) => {
            while let Some(order) = orders.blocking_recv() {
                if let Order::Show(key, _) = order {
                    tell(Report::Failed(key, error.clone()));
                }
            }
        }
    }
}

/// Who shows notifications here.
pub(super) fn probe() -> Result<Option<String>, NotifyError> {
    let runtime = runtime()?;
    let found = runtime.block_on(async { tokio::time::timeout(PROBE_PATIENCE, look()).await });
    runtime.shutdown_background();
    found.unwrap_or(Err(NotifyError::Silent))
}

fn runtime() -> Result<Runtime, NotifyError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| NotifyError::Other(error.to_string()))
}

async fn look() -> Result<Option<String>, NotifyError> {
    let connection = connection::Builder::session()?.build().await?;
    let ask = async |method: &str| connection.call_method(Some(BUS), BUS_OBJECT, Some(BUS), method, &()).await;
    let owned: Vec<String> = ask("ListNames").await?.body().deserialize()?;
    if owned.iter().any(|name| name == SERVICE) {
        let told = connection.call_method(Some(SERVICE), OBJECT, Some(SERVICE), "GetServerInformation", &()).await?;
        let (name, _vendor, version, _specification): (String, String, String, String) = told.body().deserialize()?;
        return Ok(Some(clean(&format!("{name} {version}"))));
    }
    let startable: Vec<String> = ask("ListActivatableNames").await?.body().deserialize()?;
    if startable.iter().any(|name| name == SERVICE) { Ok(None) } else { Err(NotifyError::NoServer) }
}

async fn work(orders: &mut mpsc::UnboundedReceiver<Order>, tell: &Tell) {
    let mut session: Option<Session> = None;
    loop {
        let heard = match &mut session {
            None => Heard::Order(orders.recv().await),
            Some(session) => tokio::select! {
                order = orders.recv() => Heard::Order(order),
                heard = session.hear() => heard,
            },
        };
        match heard {
            Heard::Order(None) => return,
            Heard::Order(Some(Order::Show(key, notification))) => {
                if let Err(error) = show(&mut session, key, &notification).await {
                    tell(Report::Failed(key, error));
                }
            }
            Heard::Order(Some(Order::Close(key))) => {
                if let Some(session) = &mut session {
                    session.close(key).await;
                }
            }
            Heard::Pressed(key, action) => tell(Report::Pressed(key, action)),
            Heard::Closed(key) => tell(Report::Closed(key)),
            Heard::Lost => {
                let gone = session.take().map(|session| session.shown).unwrap_or_default();
                gone.into_values().for_each(|key| tell(Report::Closed(key)));
            }
        }
    }
}

async fn show(session: &mut Option<Session>, key: Key, notification: &Notification) -> Result<(), NotifyError> {
    if session.is_none() {
        *session = Some(tokio::time::timeout(PATIENCE, Session::connect()).await.unwrap_or(Err(NotifyError::Silent))?);
    }
    let Some(present) = session else { return Err(NotifyError::NoServer) };
    let shown = present.show(key, notification).await;
    if shown.is_err() && present.shown.is_empty() {
        // Whatever it was, the next one finds the desktop anew.
        *session = None;
    }
    shown
}

enum Heard {
    Order(Option<Order>),
    Pressed(Key, String),
    Closed(Key),
    /// The service or the bus has gone, and what it showed with it.
    Lost,
}

/// A connection to the desktop.
struct Session {
    connection: Connection,
    messages: MessageStream,
    /// Who answers on the bus: nobody else's signals count.
    server: String,
    /// It takes the body for markup.
    markup: bool,
    /// It has buttons.
    buttons: bool,
    /// By the service's own number.
    shown: HashMap<u32, Key>,
}

impl Session {
    async fn connect() -> Result<Self, NotifyError> {
        let connection = connection::Builder::session()?.method_timeout(PATIENCE).build().await?;
        let messages = MessageStream::from(&connection);
        for rule in MATCHES {
            connection.call_method(Some(BUS), BUS_OBJECT, Some(BUS), "AddMatch", &rule).await?;
        }
        let answer = connection.call_method(Some(SERVICE), OBJECT, Some(SERVICE), "GetCapabilities", &()).await?;
        let capabilities: Vec<String> = answer.body().deserialize()?;
        let can = |what: &str| capabilities.iter().any(|capability| capability == what);
        let (markup, buttons, server) = (can("body-markup"), can("actions"), sender(&answer));
        Ok(Self { connection, messages, server, markup, buttons, shown: HashMap::new() })
    }

    async fn show(&mut self, key: Key, notification: &Notification) -> Result<(), NotifyError> {
        let replaced = self.number(key).unwrap_or(0);
        let buttons = notification.actions.iter().filter(|_| self.buttons);
        let actions: Vec<&str> = buttons.flat_map(|action| [action.id, action.label]).collect();
        let urgency = Value::U8(if notification.urgent { 2 } else { 1 });
        let hints = HashMap::from([("urgency", urgency)]);
        // 0: until it is closed.
        let milliseconds = notification.lasts.map_or(0, |lasts| i32::try_from(lasts.as_millis()).unwrap_or(i32::MAX));
        let (summary, body) = (text::summary(notification), text::body(notification, self.markup));
        let message = ("mcp-authd", replaced, "dialog-password", summary, body, actions, hints, milliseconds);
        let answer = self.connection.call_method(Some(SERVICE), OBJECT, Some(SERVICE), "Notify", &message).await?;
        let number = answer.body().deserialize()?;
        self.server = sender(&answer);
        self.shown.retain(|_, shown| *shown != key);
        self.shown.insert(number, key);
        Ok(())
    }

    async fn close(&mut self, key: Key) {
        let Some(number) = self.number(key) else { return };
        self.shown.remove(&number);
        // One that is closed already, or a service that has gone, needs nothing more.
        let _ = self.connection.call_method(Some(SERVICE), OBJECT, Some(SERVICE), "CloseNotification", &number).await;
    }

    fn number(&self, key: Key) -> Option<u32> {
        self.shown.iter().find(|(_, shown)| **shown == key).map(|(number, _)| *number)
    }

    async fn hear(&mut self) -> Heard {
        loop {
            let Some(Ok(message)) = self.messages.next().await else { return Heard::Lost };
            if let Some(heard) = self.meant(&message) {
                return heard;
            }
        }
    }

    /// What a message means for what is shown. Signals can be sent to us past the bus's filter, so that it is done again.
    fn meant(&mut self, message: &Message) -> Option<Heard> {
        let (header, body) = (message.header(), message.body());
        if message.message_type() != Type::Signal {
            return None;
        }
        let (interface, member) = (header.interface()?.as_str(), header.member()?.as_str());
        let sender = sender(message);
        match (interface, member) {
            (BUS, "NameOwnerChanged") if sender == BUS => {
                let (name, before, _): (&str, &str, &str) = body.deserialize().ok()?;
                (name == SERVICE && before == self.server).then_some(Heard::Lost)
            }
            (SERVICE, "ActionInvoked") if sender == self.server => {
                let (number, action): (u32, &str) = body.deserialize().ok()?;
                self.shown.get(&number).map(|key| Heard::Pressed(*key, clean(action)))
            }
            (SERVICE, "NotificationClosed") if sender == self.server => {
                let (number, _reason): (u32, u32) = body.deserialize().ok()?;
                self.shown.remove(&number).map(Heard::Closed)
            }
            _ => None,
        }
    }
}

fn sender(message: &Message) -> String {
    message.header().sender().map(ToString::to_string).unwrap_or_default()
}

impl From<zbus::Error> for NotifyError {
    fn from(error: zbus::Error) -> Self {
        let text = error.to_string();
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        match error {
            zbus::Error::Connection(..) | zbus::Error::Address(_) | zbus::Error::Handshake(_) => Self::NoBus,
            zbus::Error::InputOutput(error) if error.kind() == ErrorKind::TimedOut => Self::Silent,
            // The names that the bus gives to "nobody is there, and nobody can be started".
            _ if says(&["ServiceUnknown", "NameHasNoOwner", "Error.Spawn."]) => Self::NoServer,
            _ => Self::Other(clean(&text)),
        }
    }
}
