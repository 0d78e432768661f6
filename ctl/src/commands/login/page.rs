//! The way to the provider's page: the URL or the code, the browser, and what helps where there is none.

use super::wait;
use crate::browser::{self, Absence};
use crate::failure::Failure;
use crate::output::{self, field};

/// Shows the URL of a login, and opens it where that is wanted.
pub(super) fn show_url(url: &str, host: &str, open: bool) -> Result<(), Failure> {
    if !browser::is_web_address(url) {
        return Err(Failure::OddAddress);
    }
    output::note(&format!("open this URL: (it leads to {})\n{url}", field(host)));
    if open {
        open_browser(url);
    }
    Ok(())
}

/// Where no browser opens here: how the redirect finds back. `reads`: a pasted address is read from stdin.
pub(super) fn tell_the_way_back(absence: Absence, redirect_uri: &str, name: &str, reads: bool) {
    let here = match absence {
        Absence::Ssh => "over SSH",
        Absence::Container => "in a container",
        Absence::NoDisplay => "without a display",
    };
    let by_stdin = format!("`mcp-authctl login {name} --no-browser` takes its address from stdin");
    let paste = if reads { "paste its address here" } else { &by_stdin };
    output::note(&format!("no browser can be opened {here}: open it on your own machine; the page it ends on does not load, {paste}"));
    if let (Absence::Ssh, Some((host, port))) = (absence, host_and_port(redirect_uri)) {
        output::note(&format!("or let it load: before you open it, run there `ssh -N -L {port}:{host}:{port} THIS_MACHINE`"));
    }
}

/// Host and port of a loopback redirect.
fn host_and_port(redirect_uri: &str) -> Option<(&str, u16)> {
    let (host, port) = redirect_uri.strip_prefix("http://")?.split('/').next()?.rsplit_once(':')?;
    matches!(host, "127.0.0.1" | "localhost" | "[::1]").then_some(())?;
    Some((host, port.parse().ok()?))
}

/// Where a device flow sends the person, and what they type there.
pub(super) struct Page<'a> {
    pub(super) user_code: &'a str,
    pub(super) uri: &'a str,
    pub(super) complete: Option<&'a str>,
    pub(super) host: &'a str,
}

impl Page<'_> {
    /// Shows page and code, and opens the page where that is wanted.
    pub(super) fn show(&self, expires_in: u64, open: bool) -> Result<(), Failure> {
        let complete = self.complete.unwrap_or(self.uri);
        if !browser::is_web_address(self.uri) || !browser::is_web_address(complete) {
            return Err(Failure::OddAddress);
        }
        let host = field(self.host);
        output::note(&format!("open this page on any device: (it belongs to {host})\n{}", self.uri));
        output::note(&format!("and type this code: {}   (good for {})", field(self.user_code), output::span(expires_in)));
        // RFC 8628 section 5.4: the person is to know that they started this themselves.
        output::note("type it only if you started this login yourself");
        if output::can_count()
            && let Some(picture) = qr(complete)
        {
            output::note(&picture);
        }
        if open {
            open_browser(complete);
        }
        Ok(())
    }
}

/// The address as a picture of half blocks, dark on light whatever the terminal's colours are; `None` when it is too long.
fn qr(address: &str) -> Option<String> {
    let code = qrcode::QrCode::with_error_correction_level(address, qrcode::EcLevel::L).ok()?;
    (code.width() <= LARGEST_QR).then(|| {
        // Inverted: on a dark terminal the light modules are what is drawn.
        let colours = (qrcode::render::unicode::Dense1x2::Light, qrcode::render::unicode::Dense1x2::Dark);
        code.render().dark_color(colours.0).light_color(colours.1).build()
    })
}

/// The most modules in a row that fit beside each other in a terminal of 80 columns, with the quiet zone.
const LARGEST_QR: usize = 70;

fn open_browser(url: &str) {
    match browser::open(url) {
        Ok(child) => wait::watch(child),
        Err(error) => output::warning(&format!("no browser could be started ({error}), open the URL yourself")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_loopback_redirect_with_a_port_can_be_forwarded() {
        assert_eq!(host_and_port("http://127.0.0.1:8765/callback"), Some(("127.0.0.1", 8765)));
        assert_eq!(host_and_port("http://[::1]:1"), Some(("[::1]", 1)));
        for other in ["http://127.0.0.1/callback", "https://a.example:1/", "http://a.example:1/", "http://localhost:x/", ""] {
            assert_eq!(host_and_port(other), None, "{other}");
        }
    }
}
