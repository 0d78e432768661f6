//! A person at the authorization server's pages, without a browser: cookies, two forms, a redirect.

use std::collections::BTreeMap;

use url::Url;

use crate::http::{HttpAnswer, get, post_form};

/// What the person says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Logs in and consents.
    Yes,
    /// Presses "Cancel".
    No,
}

/// A person with a cookie jar.
#[derive(Debug)]
pub struct Person {
    login: String,
    cookies: BTreeMap<String, String>,
}

impl Person {
    /// Somebody who logs in by that name.
    pub fn named(login: &str) -> Self {
        Self { login: login.to_owned(), cookies: BTreeMap::new() }
    }

    /// Opens the authorization URL, answers the pages, and gives the loopback redirect URL, not yet followed.
    #[track_caller]
    pub fn browse(&mut self, url: &str, answer: Answer) -> Url {
        let mut here = Url::parse(url).unwrap_or_else(|error| panic!("not a URL ({error}): {url}"));
        for _ in 0..20 {
            let page = self.open(&here);
            let next = match page.header("location") {
                Some(location) => here.join(location).unwrap(),
                None => self.answer_page(&here, &page, answer),
            };
            if next.path() != here.path() && next.origin() != here.origin() {
                return next;
            }
            here = next;
        }
        panic!("the login pages do not end, at {here}");
    }

    /// The same, and follows the redirect: what the browser shows at the end.
    #[track_caller]
    pub fn browse_to_the_end(&mut self, url: &str, answer: Answer) -> HttpAnswer {
        let redirect = self.browse(url, answer);
        get(&redirect, &[])
    }

    /// Opens the page of a device flow with the code in its address, and answers the pages to their end.
    #[track_caller]
    pub fn enter_code(&mut self, address: &str) {
        let mut here = Url::parse(address).unwrap_or_else(|error| panic!("not a URL ({error}): {address}"));
        let mut page = self.open(&here);
        for _ in 0..20 {
            if page.body.contains("Sign-in Success") {
                return;
            }
            if let Some(location) = page.header("location") {
                here = here.join(location).unwrap();
                page = self.open(&here);
            } else if here.path().starts_with("/interaction") {
                here = self.answer_page(&here, &page, Answer::Yes);
                page = self.open(&here);
            } else {
                // A form with nothing to fill in: the code, and whether it is ours.
                let action = attribute(&page.body, "action").unwrap_or_else(|| panic!("no form at {here}: {}", page.body));
                let hidden = hidden_fields(&page.body);
                let fields: Vec<(&str, &str)> = hidden.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                page = self.submit(&here.join(&action).unwrap(), &fields);
                self.keep_cookies(&page);
            }
        }
        panic!("the device pages do not end, at {here}: {}", page.body);
    }

    fn answer_page(&mut self, here: &Url, page: &HttpAnswer, answer: Answer) -> Url {
        let action = attribute(&page.body, "action").unwrap_or_else(|| panic!("no form at {here}, status {}: {}", page.status, page.body));
        let action = here.join(&action).unwrap();
        let answered = if answer == Answer::No {
            let abort = here.join(&format!("{}/abort", here.path())).unwrap();
            let cookies = self.cookies();
            get(&abort, &[("cookie", &cookies)])
        } else if page.body.contains("name=\"login\"") {
            let login = self.login.clone();
            self.submit(&action, &[("prompt", "login"), ("login", &login), ("password", "any password will do")])
        } else {
            self.submit(&action, &[("prompt", "consent")])
        };
        self.keep_cookies(&answered);
        let location = answered.header("location").unwrap_or_else(|| panic!("no redirect from {action}: {}", answered.body));
        action.join(location).unwrap()
    }

    fn open(&mut self, url: &Url) -> HttpAnswer {
        let cookies = self.cookies();
        let page = get(url, &[("cookie", &cookies)]);
        self.keep_cookies(&page);
        page
    }

    fn submit(&self, url: &Url, fields: &[(&str, &str)]) -> HttpAnswer {
        post_form(url, &[("cookie", &self.cookies())], fields)
    }

    fn cookies(&self) -> String {
        self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    fn keep_cookies(&mut self, answer: &HttpAnswer) {
        for (_, line) in answer.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let pair = line.split(';').next().unwrap_or("");
            if let Some((name, value)) = pair.split_once('=') {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}

/// The hidden fields of the first form.
fn hidden_fields(html: &str) -> Vec<(String, String)> {
    let form = html.split("</form>").next().unwrap_or_default();
    let inputs = form.split("<input ").skip(1).filter(|input| input.contains("type=\"hidden\""));
    inputs.filter_map(|input| Some((attribute(input, "name")?, attribute(input, "value")?))).collect()
}

fn attribute(html: &str, name: &str) -> Option<String> {
    let start = html.find(&format!("{name}=\""))? + name.len() + 2;
    let length = html[start..].find('"')?;
    Some(html[start..start + length].replace("&amp;", "&"))
}
