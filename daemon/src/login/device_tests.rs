//! The device flow against a scripted provider, on tokio's paused clock.

use super::*;

const CODE: &str =
    r#"{"device_code":"dc-1","user_code":"WDJB-MJHT","verification_uri":"https://as.example/device","expires_in":900,"interval":5}"#;

fn device() -> Plan {
    let mut plan = fixed();
    plan.provider.endpoints.device = Some("https://as.example/device/code".into());
    plan.flow = Some(LoginFlow::Device);
    plan
}

/// Polls are answered in this order, the last one again and again.
fn polls(answers: &'static [&'static str]) -> impl Fn(&Request, usize) -> Answer + Send + Sync + 'static {
    move |request, seen| match request.url.strip_prefix(ISSUER) {
        Some("/device/code") => Ok(json(200, CODE)),
        Some("/token") => match answers[(seen - 1).min(answers.len() - 1)] {
            "ok" => tokens(),
            "lost" => Err(TransportError::Lost { host: "as.example".into(), reason: "reset".into() }),
            "not sent" => Err(TransportError::NotSent { host: "as.example".into(), reason: "refused".into() }),
            "503" => Ok(json(503, "{}")),
            error => Ok(json(400, &format!(r#"{{"error":"{error}"}}"#))),
        },
        _ => Ok(json(404, "{}")),
    }
}

async fn seconds_until_the_end(mut login: Underway) -> (u64, usize, Result<Outcome, ErrorBody>) {
    assert!(matches!(login.progress.recv().await, Some(Progress::EnterCode { .. })));
    let (began, provider) = (tokio::time::Instant::now(), login.provider.clone());
    let end = login.end().await;
    let polls = provider.seen.lock().unwrap().len() - 1;
    (began.elapsed().as_secs(), polls, end)
}

#[tokio::test(start_paused = true)]
async fn a_device_login_shows_the_code_polls_in_the_servers_pace_and_brings_tokens_home() {
    let login = start(device(), polls(&["authorization_pending", "authorization_pending", "slow_down", "ok"]));
    let (seconds, polls, end) = seconds_until_the_end(login).await;
    assert_eq!((seconds, polls), (5 + 5 + 5 + 10, 4), "slow_down adds 5 s");
    let outcome = end.unwrap();
    assert_eq!(outcome.response.access_token.expose(), "at-1");
    assert_eq!((outcome.definition.redirect_uri, outcome.definition.client_id.as_deref()), (None, Some("client-1")));
}

#[tokio::test(start_paused = true)]
async fn ten_requests_to_slow_down_are_obeyed_one_by_one() {
    let login = start(device(), polls([&["slow_down"; 10][..], &["ok"]].concat().leak()));
    let (seconds, polls, end) = seconds_until_the_end(login).await;
    assert_eq!((seconds, polls), ((0..=10).map(|asked| 5 + 5 * asked).sum(), 11));
    assert!(end.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_the_person_decides_ends_it_at_once_and_what_the_network_does_is_asked_again() {
    for (answers, polls, code) in [
        (&["access_denied"][..], 1, Some(ErrorCode::LoginRequired)),
        (&["authorization_pending", "expired_token"], 2, Some(ErrorCode::LoginRequired)),
        (&["invalid_grant"], 1, Some(ErrorCode::LoginRequired)),
        (&["invalid_client"], 1, Some(ErrorCode::Conflict)),
        (&["not sent", "lost", "503", "server_error", "ok"], 5, None),
    ] {
        let answers: &'static [&'static str] = Vec::leak(answers.to_vec());
        let (_, asked, end) = seconds_until_the_end(start(device(), self::polls(answers))).await;
        assert_eq!((asked, end.err().map(|error| error.error)), (polls, code), "{answers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_code_that_nobody_types_ends_with_its_life() {
    let (seconds, polls, end) = seconds_until_the_end(start(device(), polls(&["authorization_pending"]))).await;
    assert_eq!((seconds, end.unwrap_err().error), (900, ErrorCode::LoginRequired));
    assert!(polls <= 180, "{polls}");
}

#[tokio::test(start_paused = true)]
async fn the_flow_is_the_one_that_suits() {
    let confidential = || {
        let mut plan = device();
        plan.flow = None;
        plan.provider.quirks.needs_client_secret = true;
        plan
    };
    let with_secret = || Plan { client_secret: Some(ClientSecret::new("s".into())), ..confidential() };
    let public = || Plan { flow: None, ..device() };
    let usually = |flow, mut plan: Plan| {
        plan.provider.quirks.flow = Some(flow);
        plan
    };
    for (plan, by_code) in [
        (confidential(), false),
        (with_secret(), true),
        (Plan { headless: true, ..with_secret() }, false),
        (public(), true),
        (Plan { headless: true, ..public() }, false),
        (Plan { flow: Some(LoginFlow::Code), headless: true, ..public() }, true),
        (Plan { headless: true, ..fixed() }, true),
        (usually(Flow::DeviceCode, with_secret()), false),
        (usually(Flow::DeviceCode, Plan { flow: Some(LoginFlow::Code), ..public() }), true),
        (usually(Flow::AuthorizationCode, Plan { headless: true, ..public() }), true),
        (usually(Flow::AuthorizationCode, device()), false),
    ] {
        let shown = format!("{:?} {:?} {} {}", plan.provider.quirks.flow, plan.flow, plan.headless, plan.client_secret.is_some());
        let mut login = start(plan, polls(&["authorization_pending"]));
        assert_eq!(matches!(login.progress.recv().await, Some(Progress::OpenUrl { .. })), by_code, "{shown}");
        login.end.abort();
    }
    // Its device flow wants the secret as well, or is for clients of another kind.
    let whole = || Plan {
        provider: Provider { quirks: Quirks { client_auth: Some(ClientAuth::ClientSecretPost), ..quirks() }, ..device().provider },
        ..device()
    };
    for plan in [usually(Flow::AuthorizationCode, confidential()), Plan { flow: None, headless: true, ..whole() }, whole()] {
        let error = start(plan, good).end().await.unwrap_err();
        assert!(error.error_description.contains("wants a client secret"), "{error}");
        assert!(error.hint.unwrap().starts_with("`mcp-authctl provider set-secret example`"));
    }
    let none = start(Plan { flow: Some(LoginFlow::Device), ..fixed() }, good).end().await.unwrap_err();
    assert!(none.hint.unwrap().contains("--no-browser"));
    let disabled = start(device(), |_, _| Ok(json(200, r#"{"error":"device_flow_disabled"}"#))).end().await.unwrap_err();
    assert!(disabled.hint.unwrap().contains("enable the device flow"));
}
