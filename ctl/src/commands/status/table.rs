//! The grants as a table of at most 80 columns, counted as a terminal draws them. What to do, and who keeps a token,
//! stands below its row; what to do is never cut.

use mcp_auth_proto::{GrantState, GrantSummary, Holder};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{state, to_do};
use crate::output::{field, span};

const COLUMNS: usize = 80;
const HEADS: [&str; 6] = ["GRANT", "ACCOUNT", "EXPIRES", "REFRESH", "SCOPES", "STATE"];
const GRANT: usize = 0;
const ACCOUNT: usize = 1;
const SCOPES: usize = 4;
const MAX_PROGRAM: usize = 26;
/// Where room is found when there is not enough: the column, and how narrow it may become.
const GIVING: [(usize, usize); 6] = [(SCOPES, 12), (ACCOUNT, 14), (GRANT, 16), (SCOPES, 8), (ACCOUNT, 10), (GRANT, 15)];

/// The table's lines, the heads first.
pub(super) fn lines(grants: &[GrantSummary]) -> Vec<String> {
    let rows: Vec<_> = grants.iter().map(|grant| (cells(grant), to_do(grant), &grant.holders)).collect();
    let mut widths = HEADS.map(str::len);
    for (cells, ..) in &rows {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.width());
        }
    }
    shrink(&mut widths);
    let mut lines = vec![row(&HEADS.map(str::to_owned), &widths)];
    for (cells, to_do, holders) in rows {
        lines.push(row(&cells, &widths));
        if !to_do.is_empty() {
            lines.push(format!("  {to_do}"));
        }
        lines.extend(holders.iter().map(|it| format!("  held by {}", holder(it))));
    }
    lines
}

/// Who keeps a token, and how long it is of use.
pub(super) fn holder(holder: &Holder) -> String {
    let who = format!("{} (process {})", cut(&field(&holder.program), MAX_PROGRAM), holder.pid);
    match holder.expires_in {
        Some(0) => format!("{who}: expired, restart it"),
        Some(seconds) => format!("{who} for {}", span(seconds)),
        None => who,
    }
}

fn cells(grant: &GrantSummary) -> [String; 6] {
    let account = grant.account.as_deref().map_or_else(|| "-".to_owned(), field);
    let scopes = if grant.scopes.is_empty() { "-".to_owned() } else { field(&grant.scopes.join(" ")) };
    let name = format!("{}{}", grant.name, if grant.default { " (default)" } else { "" });
    let state = format!("{}{}", state(grant), if grant.closed { ", closed" } else { "" });
    [name, account, expires(grant), refresh(grant), scopes, state]
}

fn expires(grant: &GrantSummary) -> String {
    match grant.expires_in {
        Some(0) if grant.on_demand && grant.state != GrantState::LoginRequired => "-".to_owned(),
        Some(0) => "expired".to_owned(),
        Some(seconds) => span(seconds),
        None if grant.never_expires => "never".to_owned(),
        None => "unknown".to_owned(),
    }
}

fn refresh(grant: &GrantSummary) -> String {
    match (grant.state, grant.next_refresh_in) {
        (GrantState::LoginRequired, _) => "-".to_owned(),
        (GrantState::Refreshing, _) => "now".to_owned(),
        (_, None) if grant.on_demand => "on demand".to_owned(),
        (_, None) => "-".to_owned(),
        (_, Some(seconds)) => format!("in {}", span(seconds)),
    }
}

fn shrink(widths: &mut [usize; 6]) {
    for (column, least) in GIVING {
        let over = (widths.iter().sum::<usize>() + 2 * (widths.len() - 1)).saturating_sub(COLUMNS);
        widths[column] -= over.min(widths[column].saturating_sub(least));
    }
}

fn row(cells: &[String; 6], widths: &[usize; 6]) -> String {
    let padded = cells.iter().zip(widths).map(|(cell, width)| {
        let cell = cut(cell, *width);
        let room = " ".repeat(width - cell.width());
        cell + &room
    });
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

/// The text in at most `width` columns, `…` where it was cut.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut room = width.saturating_sub(1);
    let fits = text.chars().take_while(|c| {
        let wide = c.width().unwrap_or(0);
        let fits = wide <= room;
        room -= if fits { wide } else { 0 };
        fits
    });
    fits.chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_counts_columns_and_not_characters() {
        for (text, width, expected) in [
            ("repo read:org", 13, "repo read:org"),
            ("repo read:org", 12, "repo read:o…"),
            ("東京都", 6, "東京都"),
            ("東京都", 5, "東京…"),
            ("東京都", 4, "東…"),
            ("e\u{301}e\u{301}", 2, "e\u{301}e\u{301}"),
        ] {
            assert_eq!(cut(text, width), expected);
            assert!(cut(text, width).width() <= width, "{text}");
        }
    }

    #[test]
    fn the_widest_table_fits() {
        for state in [12, "LOGIN NEEDED, closed".len()] {
            let mut widths = [127, 300, 7, 10, 300, state];
            shrink(&mut widths);
            assert_eq!(widths.iter().sum::<usize>() + 10, 80, "{widths:?}");
        }
        let mut widths = [6, 7, 7, 9, 20, 12];
        shrink(&mut widths);
        assert_eq!(widths, [6, 7, 7, 9, 20, 12], "nothing is cut where there is room");
    }
}
