//! The daemon's events, read while it runs.

use serde_json::Value;

use crate::http::Connection;
use crate::room::Daemon;

/// The events of a daemon from the moment that this was made.
#[derive(Debug)]
pub struct Events {
    connection: Connection,
    buffer: Vec<u8>,
}

impl Events {
    /// Follows the events of this daemon from now on.
    #[track_caller]
    pub fn of(daemon: &Daemon<'_>) -> Self {
        let mut connection = daemon.connect();
        connection.send("GET", "/v1/events", &[], "").unwrap();
        let (status, _) = connection.read_head().unwrap();
        assert_eq!(status, 200, "the events are not told");
        Self { connection, buffer: Vec::new() }
    }

    /// Every event up to and with the first that is called `event` and is of `grant`.
    #[track_caller]
    pub fn until(&mut self, event: &str, grant: &str) -> Vec<Value> {
        let mut seen = Vec::new();
        loop {
            let next = self.next_event();
            let last = next["event"] == event && next["grant"] == grant;
            seen.push(next);
            if last {
                return seen;
            }
        }
    }

    #[track_caller]
    fn next_event(&mut self) -> Value {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return serde_json::from_slice(&line).unwrap_or_else(|error| panic!("not an event: {error}"));
            }
            self.buffer.extend(self.connection.read_chunk().unwrap().expect("the events have ended"));
        }
    }
}
