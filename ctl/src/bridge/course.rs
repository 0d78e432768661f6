//! How far a request has come, for a cancellation that may arrive at any time (before 2026-07-28).

use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The course of one request: its own task moves it on, a cancellation looks at it.
#[derive(Debug, Default)]
pub(super) struct Course {
    sent: AtomicBool,
    cancelled: AtomicBool,
}

impl Course {
    /// From here on the server may have it. Never returns for what was cancelled: whoever did that ends its task.
    pub(super) async fn goes(&self) {
        self.enter(true).await;
    }

    /// The server does not have it, or has refused it. Never returns for what was cancelled.
    pub(super) async fn waits(&self) {
        self.enter(false).await;
    }

    async fn enter(&self, sent: bool) {
        if self.cancelled.load(Relaxed) {
            pending::<()>().await;
        }
        self.sent.store(sent, Relaxed);
    }

    /// Cancels it. Whether the server may have it.
    pub(super) fn cancel(&self) -> bool {
        self.cancelled.store(true, Relaxed);
        self.sent.load(Relaxed)
    }
}
