//! What is answered and how it is sent: the honest answer, or a planned one.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use url::Url;

/// How the next answers at a path differ from honest ones.
#[derive(Clone)]
pub struct Plan {
    /// The path; `*` for every path.
    pub path: String,
    /// Whether the request takes effect: for a refresh, whether the tokens rotate.
    pub commit: bool,
    /// What is answered.
    pub content: Content,
    /// How it is sent.
    pub delivery: Delivery,
    /// How long the answer waits, after the commit.
    pub delay: Duration,
    /// For how many requests.
    pub times: usize,
}

/// What is answered.
#[derive(Clone)]
pub enum Content {
    /// What an honest server answers.
    Honest,
    /// That, with its JSON body changed.
    Edited(Arc<dyn Fn(&mut Value) + Send + Sync>),
    /// Status, header lines (`name: value`) and body; `content-length` and `connection: close` are added.
    Canned(u16, Vec<String>, Vec<u8>),
    /// These bytes, head and all.
    Raw(Vec<u8>),
}

/// How an answer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// As it is.
    Whole,
    /// This many bytes, then an orderly end.
    Cut(usize),
    /// This many bytes, then a reset (RST).
    Reset(usize),
    /// Not at all: the connection stays open.
    Hang,
    /// Byte by byte, with this pause.
    Drip(Duration),
    /// As it is, and then from this byte on again and again, for ever.
    Endless(usize),
}

impl Plan {
    /// An honest answer at this path, to change from.
    pub fn honest(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            commit: true,
            content: Content::Honest,
            delivery: Delivery::Whole,
            delay: Duration::ZERO,
            times: usize::MAX,
        }
    }

    /// The token endpoint answers this, and nothing takes effect.
    pub fn canned(status: u16, headers: &[&str], body: impl Into<Vec<u8>>) -> Self {
        let headers = headers.iter().map(|line| (*line).to_owned()).collect();
        Self { commit: false, content: Content::Canned(status, headers, body.into()), ..Self::honest("/token") }
    }

    /// The token endpoint answers this JSON, and nothing takes effect.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::canned(status, &["content-type: application/json"], body.to_string())
    }

    /// The token endpoint answers these bytes, head and all, and nothing takes effect.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { commit: false, content: Content::Raw(bytes.into()), ..Self::honest("/token") }
    }

    /// The token endpoint grants, with a changed answer.
    pub fn edited(edit: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        Self { content: Content::Edited(Arc::new(edit)), ..Self::honest("/token") }
    }

    /// The token endpoint grants, and the answer is sent so.
    pub fn delivered(delivery: Delivery) -> Self {
        Self { delivery, ..Self::honest("/token") }
    }

    /// The token endpoint grants, and answers late.
    pub fn late(delay: Duration) -> Self {
        Self { delay, ..Self::honest("/token") }
    }

    /// Only for so many requests.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Sent so.
    #[must_use]
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// At another path.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        self.path = path.to_owned();
        self
    }

    /// Without any effect.
    #[must_use]
    pub fn without_effect(mut self) -> Self {
        self.commit = false;
        self
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan")
            .field("path", &self.path)
            .field("delivery", &self.delivery)
            .field("times", &self.times)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Content")
    }
}

/// What an honest server answers.
pub(super) struct Honest {
    status: u16,
    headers: Vec<String>,
    body: Value,
    /// The body as it is written, where that is not JSON.
    form: Option<String>,
}

impl Honest {
    pub(super) fn json(status: u16, body: Value) -> Self {
        Self { status, headers: vec!["content-type: application/json".into(), "cache-control: no-store".into()], body, form: None }
    }

    /// The members of an object as a form, as GitHub writes them.
    pub(super) fn form(status: u16, body: &Value) -> Self {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in body.as_object().into_iter().flatten() {
            form.append_pair(name, &value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
        let headers = vec!["content-type: application/x-www-form-urlencoded; charset=utf-8".into()];
        Self { status, headers, body: Value::Null, form: Some(form.finish()) }
    }

    pub(super) fn redirect(to: &Url) -> Self {
        Self { status: 302, headers: vec![format!("location: {to}")], body: Value::Null, form: None }
    }

    fn text(&self) -> String {
        self.form.clone().unwrap_or_else(|| self.body.to_string())
    }
}

impl Content {
    pub(super) fn bytes(&self, honest: &Honest) -> Vec<u8> {
        match self {
            Self::Honest => http(honest.status, &honest.headers, honest.text().as_bytes()),
            Self::Edited(edit) => {
                let mut body = honest.body.clone();
                edit(&mut body);
                http(honest.status, &honest.headers, body.to_string().as_bytes())
            }
            Self::Canned(status, headers, body) => http(*status, headers, body),
            Self::Raw(bytes) => bytes.clone(),
        }
    }
}

fn http(status: u16, headers: &[String], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status} Status\r\n").into_bytes();
    for line in headers {
        bytes.extend(format!("{line}\r\n").bytes());
    }
    bytes.extend(format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len()).bytes());
    bytes.extend(body);
    bytes
}

/// What a delivery tells and asks meanwhile.
pub(super) struct Wire<'a> {
    /// Half of the answer is sent.
    pub(super) half: &'a dyn Fn(),
    /// Waits for a long time, or until the server ends.
    pub(super) hold: &'a dyn Fn(),
    /// Whether the server has ended.
    pub(super) ended: &'a dyn Fn() -> bool,
}

impl Delivery {
    pub(super) fn deliver(self, mut stream: TcpStream, bytes: &[u8], wire: &Wire<'_>) -> io::Result<()> {
        match self {
            Self::Whole => {
                let (first, second) = bytes.split_at(bytes.len() / 2);
                stream.write_all(first)?;
                (wire.half)();
                stream.write_all(second)
            }
            Self::Cut(length) => stream.write_all(&bytes[..length.min(bytes.len())]),
            Self::Reset(length) => {
                stream.write_all(&bytes[..length.min(bytes.len())])?;
                rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
                Ok(())
            }
            Self::Hang => {
                (wire.hold)();
                Ok(())
            }
            Self::Drip(pause) => {
                stream.set_nodelay(true)?;
                for byte in bytes {
                    if (wire.ended)() {
                        return Ok(());
                    }
                    stream.write_all(&[*byte])?;
                    std::thread::sleep(pause);
                }
                Ok(())
            }
            Self::Endless(from) => {
                stream.write_all(bytes)?;
                while !(wire.ended)() {
                    stream.write_all(&bytes[from..])?;
                }
                Ok(())
            }
        }
    }
}
