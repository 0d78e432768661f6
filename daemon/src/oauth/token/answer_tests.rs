use proptest::prelude::*;

use super::*;
use crate::oauth::samples::{HOUR, answer, json, quirks};

fn ok(body: &str) -> TokenResponse {
    check(&json(200, body), &quirks()).unwrap_or_else(|error| panic!("{body}: {error}"))
}

#[test]
fn some_answers_name_who_logged_in() {
    let notion = Quirks {
        account_claims: vec!["owner.user.person.email".into(), "workspace_name".into()],
        subject_claims: vec!["owner.user.id".into()],
        ..quirks()
    };
    let named = r#"{"access_token":"at","workspace_name":"Acme","owner":{"user":{"id":"u1","person":{"email":"eve@x"}}}}"#;
    let bot = r#"{"access_token":"at","workspace_name":"Acme","owner":{"workspace":true}}"#;
    for (body, account, subject) in
        [(named, Some("eve@x"), Some("u1")), (bot, Some("Acme"), None), (r#"{"access_token":"at"}"#, None, None)]
    {
        let owner = check(&json(200, body), &notion).unwrap().owner;
        assert_eq!((owner.account.as_deref(), owner.subject.as_deref()), (account, subject), "{body}");
    }
}

fn jwt(claims: &str) -> String {
    format!("{}.{}.sig", URL_SAFE_NO_PAD.encode("{}"), URL_SAFE_NO_PAD.encode(claims))
}

/// The kinds of answers that cost no grant: each is transient.
#[test]
fn nothing_that_a_provider_in_trouble_answers_ends_a_grant_or_asks_for_a_person() {
    let deep = format!("{{\"access_token\":\"at\",\"x\":{}", "[".repeat(100_000));
    for (status, kind, body) in [
        (500, "application/json", "{\"error\":\"server_error\"}"),
        (500, "application/json", "{\"error\":\"invalid_grant\"}"),
        (502, "text/html", "<html>bad gateway</html>"),
        (504, "", ""),
        (408, "application/json", "{\"error\":\"invalid_grant\"}"),
        (404, "application/json", "{\"error\":\"invalid_grant\"}"),
        (403, "text/html", "<html>blocked</html>"),
        (403, "application/json", "{}"),
        (401, "text/html", "<html>log in</html>"),
        (401, "text/html", "{\"error\":\"invalid_grant\"}"),
        (401, "text/plain", "Unauthorized"),
        (400, "application/json", "{\"error\":\"temporarily_unavailable\"}"),
        (400, "application/json", "{\"error\":\"invalid_request\"}"),
        (400, "application/json", "{\"error\":\"something_new\"}"),
        (400, "application/json", "{\"error\":\"invalid_target\"}"),
        (400, "application/json", "{\"error\":\"slow_down\"}"),
        (400, "application/json", "{\"error\":42}"),
        (400, "application/json", "{\"error\":\"Invalid_Grant\"}"),
        (400, "application/json", "{\"error\":\"invalid_grant\",\"error\":\"invalid_grant\"}"),
        (200, "text/html", "<html>welcome to the hotel</html>"),
        (200, "text/html", "\u{feff}<!doctype html>"),
        (302, "text/html", "<a href=portal>"),
        (307, "application/json", "{\"error\":\"invalid_grant\"}"),
        (204, "", ""),
        (200, "application/json", ""),
        (200, "application/json", "null"),
        (200, "application/json", "[]"),
        (200, "application/json", "\"at\""),
        (200, "application/json", "{}"),
        (200, "application/json", "{\"access_token\":\"at\",\"expires"),
        (200, "application/json", "{\"access_token\":\"at\",\"expires_in\":NaN}"),
        (200, "application/json", "\u{1f}\u{fffd}\u{8}garbage"),
        (200, "application/json", "{\"error\":\"temporarily_unavailable\"}"),
        (200, "application/json", "{\"access_token\":null}"),
        (200, "application/json", "{\"access_token\":\"\"}"),
        (200, "application/json", "{\"access_token\":12345}"),
        (200, "application/json", "{\"access_token\":{\"a\":1}}"),
        (200, "application/json", "{\"access_token\":\"at\",\"token_type\":\"DPoP\"}"),
        (200, "application/json", "{\"access_token\":\"at\",\"token_type\":\"mac\"}"),
        (200, "application/json", "{\"access_token\":\"at\",\"token_type\":\"N_A\"}"),
        (200, "application/json", "{\"access_token\":\"a\",\"access_token\":\"b\"}"),
        (200, "application/json", "{\"access_token\":\"at\",\"x\":1,\"x\":2}"),
        (200, "application/json", "{\"access_token\":\"a\\r\\nX-Evil: 1\"}"),
        (200, "application/json", "{\"access_token\":\"a b\"}"),
        (200, "application/json", "{\"access_token\":\"a\\u0000b\"}"),
        (200, "application/json", "{\"access_token\":\"\\ud800\"}"),
        (200, "application/json", "{\"access_token\":\"t\u{f6}ken\"}"),
        (200, "application/json", &deep),
        (200, "application/x-www-form-urlencoded", "token_type=bearer"),
        (200, "application/x-www-form-urlencoded", "access_token=a&access_token=b"),
        (100, "", ""),
    ] {
        let result = check(&answer(status, kind, body), &quirks());
        assert!(matches!(result, Err(TokenError::Unusable(_))), "{status} {kind} {body:.60}: {result:?}");
    }
}

#[test]
fn only_invalid_grant_and_the_presets_own_words_can_end_a_grant() {
    let github = Quirks { invalid_grant_codes: vec!["bad_refresh_token".into()], ..quirks() };
    for (status, kind, body) in [
        (400, "application/json", "{\"error\":\"invalid_grant\"}"),
        (401, "application/json", "{\"error\":\"invalid_grant\",\"error_description\":null}"),
        (403, "application/json", "{\"error\":\"invalid_grant\"}"),
        (400, "application/problem+json", "{\"error\":\"invalid_grant\"}"),
        (400, "", "{\"error\":\"invalid_grant\"}"),
        (200, "application/json", "{\"error\":\"bad_refresh_token\"}"),
        (200, "application/x-www-form-urlencoded", "error=bad_refresh_token&error_uri=x"),
        (200, "application/json", "{\"error\":\"invalid_grant\",\"access_token\":\"at\"}"),
    ] {
        assert_eq!(check(&answer(status, kind, body), &github).unwrap_err(), TokenError::InvalidGrant(None), "{status} {body}");
    }
    let elsewhere = check(&json(200, "{\"error\":\"bad_refresh_token\"}"), &quirks());
    assert_eq!(elsewhere.unwrap_err(), TokenError::Unusable("bad_refresh_token".into()));
}

#[test]
fn refusals_that_a_person_can_mend_keep_the_grant() {
    for code in REFUSALS {
        for status in [200, 400, 401, 403] {
            let error = check(&json(status, &format!("{{\"error\":\"{code}\",\"error_description\":\"why\"}}")), &quirks()).unwrap_err();
            assert_eq!(error, TokenError::Refused { code: code.into(), description: Some("why".into()) });
        }
    }
}

#[test]
fn an_overloaded_provider_is_told_from_a_broken_one_and_its_wait_is_capped() {
    for (status, wait, expected) in [(429, Some(7), Some(7)), (503, None, None), (429, Some(86_400), Some(3600)), (503, Some(0), Some(0))] {
        let mut response = json(status, "{\"error\":\"invalid_grant\"}");
        response.retry_after = wait.map(Duration::from_secs);
        let expected = TokenError::Overloaded { status, retry_after: expected.map(Duration::from_secs) };
        assert_eq!(check(&response, &quirks()).unwrap_err(), expected);
    }
}

#[test]
fn lifetimes_come_as_providers_write_them() {
    let cap = Some(LONGEST_LIFETIME);
    for (member, expected) in [
        ("3600", Some(HOUR)),
        ("3600.0", Some(HOUR)),
        ("\"3600\"", Some(HOUR)),
        ("\" 3600 \"", Some(HOUR)),
        ("\"3600.5\"", Some(Duration::from_millis(3_600_500))),
        ("3.6e3", Some(HOUR)),
        ("0", Some(Duration::ZERO)),
        ("-0.0", Some(Duration::ZERO)),
        ("-5", Some(Duration::ZERO)),
        ("\"-5\"", Some(Duration::ZERO)),
        ("-1e300", Some(Duration::ZERO)),
        ("\"NaN\"", Some(Duration::ZERO)),
        ("1e300", cap),
        ("18446744073709551615", cap),
        ("\"inf\"", cap),
        ("315360000", cap),
        ("null", None),
        ("\"\"", None),
        ("\"soon\"", None),
        ("true", None),
        ("[3600]", None),
        ("{}", None),
    ] {
        assert_eq!(ok(&format!("{{\"access_token\":\"at\",\"expires_in\":{member}}}")).lifetime, expected, "{member}");
    }
    assert_eq!(ok("{\"access_token\":\"at\"}").lifetime, None);
}

#[test]
fn the_life_of_a_refresh_token_is_read_as_github_google_and_keycloak_tell_it() {
    let lasts = |seconds| Some(RefreshTokenLifetime::Lasts(Duration::from_secs_f64(seconds)));
    for (told, expected) in [
        ("", None),
        (",\"refresh_token_expires_in\":15897600", lasts(15_897_600.0)),
        (",\"refresh_token_expires_in\":\"15897600\"", lasts(15_897_600.0)),
        (",\"refresh_token_expires_in\":1800.5", lasts(1800.5)),
        (",\"refresh_expires_in\":1800", lasts(1800.0)),
        (",\"refresh_expires_in\":1800,\"refresh_token_expires_in\":60", lasts(60.0)),
        (",\"refresh_expires_in\":0", Some(RefreshTokenLifetime::Endless)),
        (",\"refresh_token_expires_in\":-1", Some(RefreshTokenLifetime::Endless)),
        (",\"refresh_token_expires_in\":null", None),
        (",\"refresh_token_expires_in\":\"soon\"", None),
        (",\"refresh_token_expires_in\":\"nan\"", None),
        (",\"refresh_token_expires_in\":1e300", lasts(315_360_000.0)),
    ] {
        assert_eq!(ok(&format!("{{\"access_token\":\"at\"{told}}}")).refresh_token_lifetime, expected, "{told}");
    }
}

#[test]
fn a_preset_that_says_never_leaves_the_lifetime_open_unless_the_answer_tells_one() {
    let never = Quirks { default_lifetime: Some(DefaultLifetime::Never), ..quirks() };
    for (body, expected) in [("{\"access_token\":\"at\"}", None), ("{\"access_token\":\"at\",\"expires_in\":3600}", Some(HOUR))] {
        assert_eq!(check(&json(200, body), &never).unwrap().lifetime, expected);
    }
}

#[test]
fn a_missing_lifetime_comes_from_the_preset_else_from_the_jwt_which_may_only_shorten() {
    let of = |minutes: u64| Some(Duration::from_secs(60 * minutes));
    for (claims, told, preset, expected) in [
        ("{\"iat\":1000,\"exp\":1600}", None, None, of(10)),
        ("{\"iat\":1000,\"exp\":1600}", Some(3600), None, of(10)),
        ("{\"iat\":1000,\"exp\":1600}", None, of(60), of(10)),
        ("{\"iat\":1000,\"exp\":9000}", Some(600), None, of(10)),
        ("{\"iat\":1000,\"exp\":9000}", None, of(5), of(5)),
        ("{\"iat\":1000,\"exp\":9000}", Some(0), of(5), of(0)),
        ("{\"iat\":1000,\"exp\":500}", Some(600), None, of(10)),
        ("{\"exp\":1600}", None, of(7), of(7)),
        ("not json", None, of(7), of(7)),
        ("{\"iat\":\"x\",\"exp\":[]}", None, None, None),
    ] {
        let quirks = Quirks { default_lifetime: preset.map(DefaultLifetime::Of), ..quirks() };
        let told = told.map_or(String::new(), |seconds: u64| format!(",\"expires_in\":{seconds}"));
        let body = format!("{{\"access_token\":\"{}\"{told}}}", jwt(claims));
        assert_eq!(check(&json(200, &body), &quirks).unwrap().lifetime, expected, "{claims} {told} {preset:?}");
    }
}

#[test]
fn token_types_are_compared_in_any_case_and_kept_as_sent() {
    for (member, expected) in [
        ("", "Bearer"),
        (",\"token_type\":null", "Bearer"),
        (",\"token_type\":\"\"", "Bearer"),
        (",\"token_type\":\"bearer\"", "bearer"),
        (",\"token_type\":\"BEARER\"", "BEARER"),
        (",\"token_type\":\"Bearer\"", "Bearer"),
    ] {
        assert_eq!(ok(&format!("{{\"access_token\":\"at\"{member}}}")).token_type, expected, "{member}");
    }
}

#[test]
fn an_empty_refresh_token_keeps_the_old_one() {
    for member in ["", ",\"refresh_token\":null", ",\"refresh_token\":\"\"", ",\"refresh_token\":7"] {
        assert_eq!(ok(&format!("{{\"access_token\":\"at\"{member}}}")).refresh_token, None, "{member}");
    }
    let response = ok("{\"access_token\":\"at\",\"refresh_token\":\"rt\",\"id_token\":\"id\"}");
    assert_eq!((response.refresh_token.unwrap().expose().as_str(), response.id_token.unwrap().expose()), ("rt", "id"));
}

#[test]
fn scopes_are_split_at_spaces_and_at_the_presets_own_separator() {
    let github = Quirks { scope_separator: ',', ..quirks() };
    for (member, expected) in [
        ("\"repo,read:org gist\"", Some(&["repo", "read:org", "gist"][..])),
        ("\"\"", Some(&[])),
        ("\" a  a \"", Some(&["a"])),
        ("[\"a\",\"b c\"]", Some(&["a", "b", "c"])),
        ("\"a\\u001b[2Jb\"", Some(&["a[2Jb"])),
        ("\"a\\nb\\tc\\r\"", Some(&["a", "b", "c"])),
        ("null", None),
        ("7", None),
    ] {
        let response = check(&json(200, &format!("{{\"access_token\":\"at\",\"scope\":{member}}}")), &github).unwrap();
        assert_eq!(response.scopes.as_deref().map(|s| s.iter().map(String::as_str).collect::<Vec<_>>()).as_deref(), expected, "{member}");
    }
    assert_eq!(ok("{\"access_token\":\"at\",\"scope\":\"a,b\"}").scopes.unwrap(), ["a,b"]);
}

#[test]
fn answers_in_a_form_or_under_a_wrong_type_are_read() {
    for (kind, body) in [
        ("application/x-www-form-urlencoded", "access_token=gho_1&scope=repo%2Cgist&token_type=bearer"),
        ("text/plain", "access_token=gho_1&scope=repo%2Cgist&token_type=bearer"),
        ("text/html", "{\"access_token\":\"gho_1\",\"scope\":\"repo,gist\"}"),
        ("", "\u{feff} {\"access_token\":\"gho_1\",\"scope\":\"repo,gist\"}\n"),
    ] {
        let response = check(&answer(200, kind, body), &Quirks { scope_separator: ',', ..quirks() }).unwrap();
        assert_eq!((response.access_token.expose(), response.scopes.unwrap()), ("gho_1", vec!["repo".to_owned(), "gist".into()]), "{kind}");
    }
    assert_eq!(check(&json(201, "{\"access_token\":\"at\"}"), &quirks()).unwrap().access_token.expose(), "at");
}

#[test]
fn a_providers_words_are_made_safe_and_short() {
    let long = "x".repeat(5000);
    let body = format!("{{\"error\":\"invalid_grant\",\"error_description\":\"\\u001b]0;evil\\u0007\\u202e{long}\"}}");
    let TokenError::InvalidGrant(Some(text)) = check(&json(400, &body), &quirks()).unwrap_err() else { panic!("a description") };
    assert!(text.starts_with("]0;evilxxx") && text.chars().count() == 300);
    let odd = check(&json(400, "{\"error\":\"\\u001b[31m<script>\\n\"}"), &quirks()).unwrap_err();
    assert_eq!(odd, TokenError::Unusable("31mscript".into()));
    let kind = check(&json(200, "{\"access_token\":\"at\",\"token_type\":\"\\u001bX\"}"), &quirks()).unwrap_err();
    assert_eq!(kind.to_string(), "the provider's answer is not usable: its token is of type X, not Bearer");
}

proptest! {
    #[test]
    fn no_answer_panics_and_none_shows_its_body(status in 0_u16..600, body in ".*", json_kind: bool) {
        let body = format!("{{\"access_token\":\"top-secret\\n\",\"refresh_token\":\"top-secret\",\"error_description\":{body:?}}}");
        let kind = if json_kind { "application/json" } else { "text/plain" };
        if let Err(error) = check(&answer(status, kind, &body), &quirks()) {
            let shown = format!("{error} {error:?}");
            prop_assert!(!shown.contains("top-secret"));
        }
    }

    #[test]
    fn any_bytes_get_an_answer(status in prop::sample::select(vec![200_u16, 400, 401, 403]), body: Vec<u8>) {
        let mut response = json(status, "");
        response.body = zeroize::Zeroizing::new(body);
        prop_assert!(!matches!(check(&response, &quirks()), Err(TokenError::InvalidGrant(_))));
    }
}

#[test]
fn tokens_may_lie_in_a_member_of_the_answer() {
    let quirks = Quirks { token_answer_member: Some("authed_user".into()), scope_separator: ',', ..quirks() };
    let check = |body: &str| check(&json(200, body), &quirks);
    let nested = r#"{"ok":true,"access_token":"bot-1","token_type":"bot","scope":"chat","authed_user":
        {"id":"U1","scope":"a,b","access_token":"user-1","token_type":"user","refresh_token":"rt-1","expires_in":43200}}"#;
    let response = check(nested).unwrap();
    assert_eq!((response.access_token.expose(), response.token_type.as_str()), ("user-1", "Bearer"));
    assert_eq!((response.scopes, response.lifetime), (Some(vec!["a".into(), "b".into()]), Some(12 * HOUR)));
    assert_eq!(*response.refresh_token.unwrap().expose(), "rt-1");
    let flat = check(r#"{"ok":true,"access_token":"user-2","token_type":"user"}"#).unwrap();
    assert_eq!(flat.access_token.expose(), "user-2", "an answer to a refresh may lack the member");
    let somebody_elses = check(r#"{"ok":true,"access_token":"bot-1","authed_user":{"id":"U1"}}"#);
    assert!(matches!(somebody_elses, Err(TokenError::Unusable(_))), "{somebody_elses:?}");
}

#[test]
fn an_error_may_lie_one_level_below() {
    for (body, expected) in [
        (r#"{"error":{"code":"invalid_grant","message":"gone"}}"#, TokenError::InvalidGrant(Some("gone".into()))),
        (
            r#"{"error":{"type":"invalid_client","message":"who?"}}"#,
            TokenError::Refused { code: "invalid_client".into(), description: Some("who?".into()) },
        ),
        (r#"{"error":{"code":400,"status":"INVALID_ARGUMENT"}}"#, TokenError::Unusable("INVALID_ARGUMENT".into())),
        (r#"{"ok":false,"error":"token_revoked"}"#, TokenError::Unusable("token_revoked".into())),
        (r#"{"ok":false}"#, TokenError::Unusable("it holds no access token".into())),
    ] {
        assert_eq!(check(&json(200, body), &quirks()).unwrap_err(), expected, "{body}");
    }
}

#[test]
fn a_token_that_never_expires_has_no_lifetime_unless_it_says_one() {
    let quirks = Quirks { default_lifetime: Some(DefaultLifetime::Never), ..quirks() };
    assert_eq!(check(&json(200, r#"{"access_token":"at"}"#), &quirks).unwrap().lifetime, None);
    assert_eq!(check(&json(200, r#"{"access_token":"at","expires_in":3600}"#), &quirks).unwrap().lifetime, Some(HOUR));
}
