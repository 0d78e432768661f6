//! PURE: what a grant at a remote server is called when nobody gave it a name: the server's host.

use mcp_auth_proto::GrantName;

use crate::transport;

/// The longest name of a grant.
const LONGEST: usize = 63;

/// The names that a URL gives its grant, best first: its host (with the port, where one is written), then its host and path.
pub(super) fn names(url: &str) -> Vec<GrantName> {
    let Ok(url) = transport::check_url(url) else { return Vec::new() };
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!("-{port}")).unwrap_or_default();
    let (short, long) = (format!("{host}{port}"), format!("{host}{port}{}", url.path()));
    [short, long].iter().filter_map(|text| plain(text).parse().ok()).collect()
}

/// The characters of a name; what is none becomes a dash.
fn plain(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    let dashed: String = text.to_ascii_lowercase().chars().map(|c| if allowed(c) { c } else { '-' }).collect();
    let begun = dashed.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    begun.chars().take(LONGEST).collect::<String>().trim_end_matches(['-', '.', '_']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_named_after_the_host_and_then_after_the_path() {
        let long = format!("https://{}.example/mcp", "a".repeat(60));
        for (url, expected) in [
            ("https://mcp.notion.com/mcp", vec!["mcp.notion.com", "mcp.notion.com-mcp"]),
            ("https://MCP.example/Team/v2/", vec!["mcp.example", "mcp.example-team-v2"]),
            ("http://localhost:8080/mcp", vec!["localhost-8080", "localhost-8080-mcp"]),
            ("http://[::1]:9/mcp", vec!["1--9", "1--9-mcp"]),
            ("https://bücher.example/mcp", vec!["xn--bcher-kva.example", "xn--bcher-kva.example-mcp"]),
            ("ftp://a", vec![]),
        ] {
            let found: Vec<_> = names(url).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{url}");
        }
        assert!(names(&long).iter().all(|name| name.as_str().len() <= LONGEST));
    }
}
