//! PURE: the lane to one issuer: two refreshes at a time, those that somebody waits for first.

use std::collections::VecDeque;

use mcp_auth_proto::GrantName;

use super::attempt::Errand;
use crate::grant::{Attempt, Ticket};

/// How much one issuer is sent at a time.
pub(super) const WIDTH: usize = 2;

/// The refreshes to one issuer.
#[derive(Debug, Default)]
pub(super) struct Lane {
    running: usize,
    queue: VecDeque<Errand>,
}

impl Lane {
    /// Takes an errand in.
    pub(super) fn push(&mut self, errand: Errand) {
        self.queue.push_back(errand);
    }

    /// Somebody waits for this attempt now.
    pub(super) fn hurry(&mut self, ticket: Ticket) {
        if let Some(errand) = self.queue.iter_mut().find(|errand| errand.attempt.ticket == ticket) {
            errand.attempt.urgent = true;
        }
    }

    /// The next errand, if there is room.
    pub(super) fn next(&mut self) -> Option<Errand> {
        if self.running == WIDTH {
            return None;
        }
        let urgent = self.queue.iter().position(|errand| errand.attempt.urgent).unwrap_or(0);
        let next = self.queue.remove(urgent)?;
        self.running += 1;
        Some(next)
    }

    /// An errand that [`Self::next`] gave has ended.
    pub(super) fn ended(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// Gives back all that were not sent: the issuer is to be left alone.
    pub(super) fn clear(&mut self) -> Vec<(GrantName, Attempt)> {
        self.queue.drain(..).map(|errand| (errand.grant, errand.attempt)).collect()
    }

    /// Whether it can be forgotten.
    pub(super) fn is_idle(&self) -> bool {
        self.running == 0 && self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::RefreshToken;

    fn errand(ticket: Ticket, urgent: bool) -> Errand {
        let refresh_token = Some(RefreshToken::new("rt".into()));
        let attempt = Attempt { ticket, refresh_token, generation: 1, urgent, even_if_not_durable: false };
        Errand { grant: "g".parse().unwrap(), attempt, assertion: None }
    }

    #[test]
    fn two_run_at_a_time_and_those_with_waiters_go_first() {
        let mut lane = Lane::default();
        for (ticket, urgent) in [(1, false), (2, false), (3, false), (4, true), (5, false)] {
            lane.push(errand(ticket, urgent));
        }
        lane.hurry(3);
        let mut sent = Vec::new();
        while !lane.is_idle() {
            while let Some(errand) = lane.next() {
                sent.push(errand.attempt.ticket);
            }
            assert_eq!(lane.running.min(2), lane.running);
            lane.ended();
        }
        assert_eq!(sent, [3, 4, 1, 2, 5]);
    }
}
