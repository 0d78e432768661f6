//! The end that a refresh token has by itself: when it comes, the one use that moves an idle end on, and the warnings
//! before it.
//!
//! The end is a belief, the provider's own or the config's, and ends nothing: only the provider's word does. What it
//! changes is what people are told, and how long an answer that is no clear word is asked for again.

use std::time::Duration;

use super::record::{GrantRecord, RefreshTokenLife};
use super::{Grant, News, Terms};
use crate::clock::{Boot, Now, Wall};
use crate::oauth::token::RefreshTokenLifetime;

/// A person hears of the end so long before it, or a tenth of the life before it if that is shorter.
const NOTICE: Duration = Duration::from_secs(3 * 86_400);
/// How often: at the notice, and when a third of it is left.
const WARNINGS: usize = 2;
/// The same end told again, in seconds that are left, is not the same to the millisecond.
const ROUNDING: Duration = Duration::from_secs(5);

/// The end of the present refresh token.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    at: Boot,
    wall: Wall,
    notice: Duration,
    /// When the refresh token is used although nobody asks for a token: half of an idle life is over.
    pub(super) keep_alive: Option<Boot>,
    /// How many warnings are told, or are not worth telling any more.
    told: usize,
}

/// One reason for an end.
struct Life {
    from: Wall,
    lasts: Duration,
    /// A use of the refresh token may move the end on.
    moves: bool,
}

impl Ending {
    /// The end that record and terms speak of, the first of several. `before`: what was told of the same end is not told
    /// again.
    pub(super) fn of(record: &GrantRecord, terms: Option<&Terms>, now: Now, before: Option<&Self>) -> Option<Self> {
        let terms = terms.filter(|_| record.refresh_token.is_some() && record.ended.is_none())?;
        let used = record.refreshed_at.unwrap_or(record.logged_in_at);
        let lives = lives(record, terms, used);
        let first = lives.iter().min_by_key(|life| life.from + life.lasts)?;
        // A use that came after it and moved nothing is not repeated: such an end does not move.
        let halves = lives.iter().filter(|life| life.moves).map(|life| life.from + life.lasts / 2).filter(|half| used < *half);
        let wall = first.from + first.lasts;
        Some(Self {
            at: boot_of(wall, now),
            wall,
            notice: NOTICE.min(first.lasts / 10),
            keep_alive: halves.min().map(|half| boot_of(half, now)),
            told: before.filter(|before| before.wall == wall).map_or(0, |before| before.told),
        })
    }

    fn stage(&self, number: usize) -> Boot {
        self.at - if number == 0 { self.notice } else { self.notice / 3 }
    }

    /// When a person is to be told next.
    pub(super) fn next_warning(&self) -> Option<Boot> {
        (self.told < WARNINGS).then(|| self.stage(self.told))
    }

    /// Whether a person is to be told now: once per stage, however many have passed unheard, and never after the end.
    fn warns(&mut self, now: Now) -> bool {
        let passed = (0..WARNINGS).filter(|stage| self.stage(*stage) <= now.boot).count();
        let news = passed > self.told && now.boot < self.at;
        self.told = self.told.max(passed);
        news
    }

    /// When it is, as it is shown.
    pub(super) fn wall(&self) -> Wall {
        self.wall
    }

    /// What is left.
    pub(super) fn remaining(&self, now: Now) -> Duration {
        self.at.since(now.boot)
    }

    /// Whether it is time for a person to think of it.
    pub(super) fn is_near(&self, now: Now) -> bool {
        self.stage(0) <= now.boot
    }
}

fn lives(record: &GrantRecord, terms: &Terms, used: Wall) -> Vec<Life> {
    if let Some(told) = &record.refresh_token_life {
        return told.lifetime.map(|lasts| Life { from: told.from, lasts, moves: true }).into_iter().collect();
    }
    let absolute = terms.refresh_token_lifetime.map(|lasts| Life { from: record.logged_in_at, lasts, moves: false });
    let idle = terms.refresh_token_idle_lifetime.map(|lasts| Life { from: used, lasts, moves: true });
    absolute.into_iter().chain(idle).collect()
}

fn boot_of(wall: Wall, now: Now) -> Boot {
    match wall.since(now.wall) {
        Some(ahead) => now.boot + ahead,
        None => now.boot - now.wall.since(wall).unwrap_or_default(),
    }
}

impl Grant {
    /// Looks again when the refresh token ends: the record or the terms are new.
    pub(super) fn look_for_the_end(&mut self, now: Now) {
        self.ending = Ending::of(&self.record, self.terms.as_ref(), now, self.ending.as_ref());
    }

    /// When the refresh token's life was over, if it is.
    pub(super) fn overdue_since(&self, now: Now) -> Option<Wall> {
        self.ending.as_ref().filter(|ending| ending.remaining(now).is_zero()).map(Ending::wall)
    }

    /// What a person is to be told of the end now.
    pub(super) fn warning(&mut self, now: Now) -> Option<News> {
        let ending = self.ending.as_mut()?;
        let at = ending.warns(now).then(|| ending.wall().rfc3339())?;
        Some(News::RefreshTokenEnding(format!("the login ends at {at}; `{}` begins a new one", self.login_command())))
    }
}

impl RefreshTokenLife {
    /// What is known of a life once an answer has told of it. The same end told again leaves its whole length as it was:
    /// some servers tell what is left.
    pub(super) fn told(told: RefreshTokenLifetime, from: Wall, before: Option<Self>) -> Self {
        let lifetime = match told {
            RefreshTokenLifetime::Endless => None,
            RefreshTokenLifetime::Lasts(lifetime) => Some(lifetime),
        };
        let new = Self { from, lifetime };
        before.filter(|before| before.ends_with(&new)).unwrap_or(new)
    }

    fn ends_with(&self, other: &Self) -> bool {
        let (Some(lifetime), Some(one), Some(another)) = (self.lifetime, self.end(), other.end()) else { return false };
        let apart = one.since(another).or_else(|| another.since(one));
        apart.is_some_and(|apart| apart <= ROUNDING.min(lifetime / 10))
    }
}
