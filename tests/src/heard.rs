//! What `GET /v1/events` told, kept as it came.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::http::Connection;
use crate::wait::wait_until;

/// The change stream of one daemon; a thread reads it until the daemon ends.
#[derive(Debug)]
pub struct Heard {
    text: Arc<Mutex<Vec<u8>>>,
}

impl Heard {
    pub(crate) fn of(mut connection: Connection) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let heard = text.clone();
        std::thread::spawn(move || {
            while let Ok(Some(chunk)) = connection.read_chunk() {
                heard.lock().unwrap_or_else(PoisonError::into_inner).extend(chunk);
            }
        });
        Self { text }
    }

    /// Every event of that name so far.
    pub fn seen(&self, event: &str) -> Vec<Value> {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lines = text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        lines.filter(|line| line["event"] == event).collect()
    }

    /// Waits for the first event of that name.
    #[track_caller]
    pub fn wait_for(&self, event: &str, patience: Duration) -> Value {
        wait_until(&format!("the event {event}"), patience, || self.seen(event).into_iter().next())
    }
}
