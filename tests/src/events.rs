//! What `GET /v1/events` tells, kept as it comes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::http::Connection;
use crate::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);

/// The change stream of one daemon from the moment that this was made; a thread reads it until the daemon ends.
#[derive(Debug)]
pub struct Events {
    text: Arc<Mutex<Vec<u8>>>,
    /// How many of them [`Events::until`] has given.
    given: usize,
}

impl Events {
    pub(crate) fn of(mut connection: Connection) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let heard = text.clone();
        std::thread::spawn(move || {
            while let Ok(Some(chunk)) = connection.read_chunk() {
                heard.lock().unwrap_or_else(PoisonError::into_inner).extend(chunk);
            }
        });
        Self { text, given: 0 }
    }

    /// Every event of that name so far.
    pub fn seen(&self, event: &str) -> Vec<Value> {
        self.all().into_iter().filter(|told| told["event"] == event).collect()
    }

    /// Waits for the first event of that name.
    #[track_caller]
    pub fn wait_for(&self, event: &str, patience: Duration) -> Value {
        wait_until(&format!("the event {event}"), patience, || self.seen(event).into_iter().next())
    }

    /// Waits for the next event that is called `event` and is of `grant`: every event since the last time, up to and with it.
    #[track_caller]
    pub fn until(&mut self, event: &str, grant: &str) -> Vec<Value> {
        let told = wait_until(&format!("the event {event} of {grant}"), PATIENCE, || {
            let mut new = self.all().split_off(self.given);
            let last = new.iter().position(|told| told["event"] == event && told["grant"] == grant)?;
            new.truncate(last + 1);
            Some(new)
        });
        self.given += told.len();
        told
    }

    /// Every event whose line has come whole.
    fn all(&self) -> Vec<Value> {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let whole = text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
        whole.map(|line| serde_json::from_slice(line).unwrap_or_else(|error| panic!("not an event: {error}"))).collect()
    }
}
