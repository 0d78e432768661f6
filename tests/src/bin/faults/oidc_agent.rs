//! The same faults against oidc-agent, the nearest program in daily use, with the same misbehaving server: T1, T23, T33
//! and T53. These rows are observations of that program as its distribution ships it; they fail nobody but its absence does.

mod agent;
mod replies;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use mcp_auth_tests::rogue::{Moment, Plan, Rogue, Rules, Verdict};
use mcp_auth_tests::wait_until;
use rustix::process::{Signal, kill_process_group};

use crate::report::{Case, Report, quantile};
use agent::{Home, NAME, version};
use replies::{Kind, LIFETIME, kinds};

pub(crate) const CASES: &[Case] = &[
    Case { id: "T1", title: "oidc-agent: kill -9 in a refresh, grace window: kept", rounds: 60, quick: 3, run: kills_with_grace },
    Case { id: "T1", title: "oidc-agent: kill -9 in a refresh, strict server: kept", rounds: 60, quick: 3, run: kills_at_a_strict_server },
    Case { id: "T23", title: "oidc-agent: odd replies: login and valid token kept", rounds: 30, quick: 6, run: odd_replies },
    Case { id: "T33", title: "oidc-agent: tokens of 60 s, 20 s of questions: valid ones", rounds: 6, quick: 1, run: short_lifetime },
    Case { id: "T53", title: "oidc-agent: a client stalls: others answered within 10 s", rounds: 4, quick: 2, run: stalled_client },
];

const HOUR: Duration = Duration::from_secs(3600);

/// When the agent dies, seen from the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum When {
    Committed,
    HalfAnswered,
    Answered,
    Within100ms,
    Within1500ms,
    /// As soon as the new token was served, as in our own T1.
    Served,
}

const WHEN: [When; 6] = [When::Committed, When::HalfAnswered, When::Answered, When::Within100ms, When::Within1500ms, When::Served];

impl When {
    /// The moment at the server.
    fn moment(self) -> Option<Moment> {
        match self {
            Self::HalfAnswered => Some(Moment::HalfAnswered),
            Self::Answered => Some(Moment::Answered),
            Self::Committed | Self::Within100ms | Self::Within1500ms => Some(Moment::Committed),
            Self::Served => None,
        }
    }

    /// How long after that moment; `share` of the way from the shortest to the longest.
    fn delay(self, share: f64) -> Duration {
        match self {
            Self::Within100ms => Duration::from_millis(100).mul_f64(share),
            Self::Within1500ms => Duration::from_millis(100) + Duration::from_millis(1400).mul_f64(share),
            _ => Duration::ZERO,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Committed => "before a byte of the answer",
            Self::HalfAnswered => "at half of the answer",
            Self::Answered => "at the answer's end",
            Self::Within100ms => "0-100 ms after the rotation",
            Self::Within1500ms => "100-1500 ms after it",
            Self::Served => "after the new token was served",
        }
    }
}

fn kills_with_grace(report: &mut Report) {
    kills(report, Rules::grace(HOUR, Duration::from_secs(60)));
}

fn kills_at_a_strict_server(report: &mut Report) {
    kills(report, Rules::strict(HOUR));
}

/// One after the other: a second agent would make the first one slower.
fn kills(report: &mut Report, rules: Rules) {
    report.peer(NAME, version());
    let rogue = Rogue::start(rules);
    let home = Home::at(&rogue);
    report.figure(format!("undisturbed, the provider's commit to the answer: {}", undisturbed(&home, &rogue)));
    // By when: lost, rounds.
    let mut lost: BTreeMap<When, (u32, u32)> = BTreeMap::new();
    let mut logged_in = true;
    for number in 0..report.rounds() {
        let when = WHEN[number as usize % WHEN.len()];
        let share = f64::from(number / 6) * 0.618;
        let end = kill_once(&home, &rogue, (when, when.delay(share.fract())), logged_in);
        logged_in = end.is_ok();
        let (so_far, all) = lost.entry(when).or_default();
        *so_far += u32::from(end.is_err());
        *all += 1;
        report.round(|| end.unwrap_or_else(|why| panic!("killed {}: {why}", when.words())));
    }
    let parts: Vec<String> = lost.iter().map(|(when, (lost, all))| format!("{} {lost} of {all}", when.words())).collect();
    report.figure(format!("lost: {}", parts.join(", ")));
}

/// How long new tokens take when nobody kills anything.
fn undisturbed(home: &Home<'_>, rogue: &Rogue) -> String {
    let _agent = home.start();
    home.log_in();
    let mut times: Vec<f64> = (0..10)
        .map(|_| {
            home.can_refresh().unwrap();
            let now = Instant::now();
            rogue.look(|seen| seen.refreshes.last().map(|refresh| now.duration_since(refresh.at))).unwrap().as_secs_f64() * 1000.0
        })
        .collect();
    format!("p50 {:.0} ms, worst of 10 {:.0} ms", quantile(&mut times, 50), quantile(&mut times, 100))
}

/// One life of the agent that ends in a refresh, and the beginning of the next. An error says what became of the login.
fn kill_once(home: &Home<'_>, rogue: &Rogue, (when, delay): (When, Duration), logged_in: bool) -> Result<(), String> {
    let mut agent = home.start();
    if !logged_in || !home.load().is_ok() {
        home.log_in();
    }
    home.can_refresh().unwrap();
    let group = agent.group();
    let kill = move || kill_process_group(group, Signal::KILL).unwrap();
    rogue.on(move |now, path| {
        if Some(now) == when.moment() && path == "/token" {
            if delay.is_zero() {
                kill();
            } else {
                std::thread::spawn(move || {
                    std::thread::sleep(delay);
                    kill();
                });
            }
        }
    });
    // It may or may not come to an answer.
    home.token(&["-f"]);
    if when == When::Served {
        kill();
    }
    wait_until("the death of oidc-agent", Duration::from_secs(20), || (!agent.is_alive()).then_some(()));
    drop(agent);
    rogue.on_nothing();
    let before = rogue.look(|seen| seen.refreshes.len());
    let _agent = home.start();
    let loaded = home.load();
    let usable = if loaded.is_ok() { home.can_refresh() } else { Err(loaded.complaint().to_owned()) };
    let reused = rogue.look(|seen| seen.refreshes[before..].iter().any(|refresh| refresh.verdict == Verdict::Reused));
    usable.map_err(|why| if reused { "after its restart it sent the used token: the login is lost".to_owned() } else { why })
}

fn odd_replies(report: &mut Report) {
    report.peer(NAME, version());
    let kinds = kinds();
    // With fewer rounds, kinds from all over the list.
    let every = kinds.len().div_ceil(report.rounds() as usize);
    let ends: Vec<(&str, Odd)> = kinds.iter().step_by(every).map(|kind| (kind.name, odd_reply(kind))).collect();
    for (name, end) in &ends {
        report.round(|| {
            assert!(end.healed, "{name}: the login is lost: {}", end.said);
            assert!(end.served, "{name}: the valid token is not served any more: {}", end.said);
        });
    }
    let names = |which: fn(&Odd) -> bool| ends.iter().filter(|(_, end)| which(end)).map(|(name, _)| *name).collect::<Vec<_>>();
    let share = |what: &str, without: &[&str]| {
        let list = if without.is_empty() { String::new() } else { format!(" (not after: {})", without.join(", ")) };
        format!("{what} {} of {}{list}", ends.len() - without.len(), ends.len())
    };
    report.figure(share("login kept in", &names(|end| !end.healed)));
    report.figure(share("a valid token served afterwards in", &names(|end| !end.served)));
    report.figure(format!("each question afterwards goes to the provider: {}", names(|end| end.posts >= ASKED).join(", ")));
    report.figure(format!("passed on as if it were a bearer token: {}", names(|end| end.is_passed_on).join(", ")));
}

/// Questions without `-f` after an odd reply.
const ASKED: usize = 5;

/// What one kind of reply did.
struct Odd {
    /// A valid token is served to who asks for any, while the provider goes on as before.
    served: bool,
    /// Once the provider behaves, a new token can be had.
    healed: bool,
    /// How many requests [`ASKED`] questions caused meanwhile.
    posts: usize,
    is_passed_on: bool,
    said: String,
}

/// An account with a token that is valid for an hour, a refresh that gets this reply, and what is left. It refreshes on
/// demand, so a client demands it.
fn odd_reply(kind: &Kind) -> Odd {
    let rogue = Rogue::start(Rules::strict(LIFETIME));
    let home = Home::at(&rogue);
    let mut agent = home.start();
    home.log_in();
    home.token(&[]).ok();
    rogue.rule(|rules| rules.rotate = kind.rotate);
    // Where one of the kinds redirects to.
    rogue.plan(Plan::canned(200, &["content-type: text/html"], "<title>Sign in</title>").path("/portal"));
    rogue.plan(kind.plan.clone());
    let forced = home.token(&["-f"]);
    let before = rogue.look(|seen| seen.refreshes.len());
    let served = (0..ASKED).all(|_| home.token(&[]).token().is_some_and(|token| rogue.is_active(token)));
    let posts = rogue.look(|seen| seen.refreshes.len()) - before;
    rogue.behave();
    rogue.rule(|rules| rules.rotate = true);
    let end = home.can_refresh();
    let alive = if agent.is_alive() { "" } else { " (the agent died)" };
    Odd {
        served,
        healed: end.is_ok(),
        posts,
        is_passed_on: kind.name.contains("DPoP") && forced.token().is_some(),
        said: format!("{}{alive}", end.err().unwrap_or_else(|| forced.complaint().to_owned())),
    }
}

fn short_lifetime(report: &mut Report) {
    const LIFETIME: Duration = Duration::from_secs(60);
    const ROUND: Duration = Duration::from_secs(20);
    report.peer(NAME, version());
    let rogue = Rogue::start(Rules::strict(LIFETIME));
    let home = Home::at(&rogue);
    let _agent = home.start();
    home.log_in();
    let first = rogue.look(|seen| seen.refreshes.len());
    let (mut left, mut took) = (Vec::new(), Vec::new());
    for number in 0..report.rounds() {
        report.round(|| {
            let began = Instant::now();
            while began.elapsed() < ROUND {
                let answer = home.token(&[]);
                let token = answer.token().unwrap_or_else(|| panic!("no token: {}", answer.complaint()));
                let issued = rogue.look(|seen| seen.issued.iter().find(|issued| issued.token == token).map(|issued| issued.at)).unwrap();
                took.push(answer.took.as_secs_f64() * 1000.0);
                left.push(LIFETIME.as_secs_f64() - issued.elapsed().as_secs_f64());
                assert!(rogue.is_active(token), "in the {number}th 20 s a token was served that is not valid any more");
                std::thread::sleep(Duration::from_millis(100));
            }
        });
    }
    let refreshes = rogue.look(|seen| seen.refreshes.len()) - first;
    let lifetimes = f64::from(report.rounds()) * ROUND.as_secs_f64() / LIFETIME.as_secs_f64();
    report.figure(format!("{refreshes} refreshes in {lifetimes:.1} lifetimes, asked ten times a second"));
    let soon = left.iter().filter(|left| **left < 5.0).count();
    report.figure(format!("{} answers, {soon} of them with less than 5 s left; the least: {:.2} s", left.len(), quantile(&mut left, 0)));
    report.figure(format!("answered in p50 {:.1} ms, worst {:.0} ms", quantile(&mut took, 50), quantile(&mut took, 100)));
}

fn stalled_client(report: &mut Report) {
    const HALF: &[u8] = br#"{"request":"access_tok"#;
    const PROMISE: Duration = Duration::from_secs(10);
    const LONG: Duration = Duration::from_secs(60);
    report.peer(NAME, version());
    let rogue = Rogue::start(Rules::strict(HOUR));
    let home = Home::at(&rogue);
    let _agent = home.start();
    home.log_in();
    let mut waits = Vec::new();
    for number in 0..report.rounds() {
        let what = if number % 2 == 0 { "nothing" } else { "half a request" };
        // The last two are left to it for longer.
        let patience = if report.rounds() > 2 && number + 2 >= report.rounds() { LONG } else { PROMISE };
        report.round(|| {
            home.token(&[]).ok();
            let mut stalled = UnixStream::connect(home.socket()).unwrap();
            if number % 2 == 1 {
                stalled.write_all(HALF).unwrap();
            }
            let answer = home.ask(&[], patience);
            drop(stalled);
            let again = home.token(&[]).ok().took.as_secs_f64() * 1000.0;
            let (word, took) = (if answer.is_ok() { "answered" } else { "no answer" }, answer.took.as_secs_f64());
            waits.push(format!("{what}: {word} in {took:.2} s (once it is gone: {again:.1} ms)"));
            assert!(answer.is_ok() && answer.took < PROMISE, "one sent {what}: {word} in {took:.0} s");
        });
    }
    report.figure(waits.join("; "));
}
