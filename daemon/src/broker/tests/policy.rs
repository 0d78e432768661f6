//! Where the policy meets the life of a grant and of the vault: a token that changes while it is waited for, a lock, a disk that
//! refuses, a start.

use super::*;

fn own_program() -> wire::RuleSubject {
    let executable = std::fs::read_link("/proc/self/exe").unwrap().into_os_string().into_string().unwrap();
    wire::RuleSubject::Program(wire::RuleProgram { executable: Some(executable), ..wire::RuleProgram::default() })
}

fn rule(subject: wire::RuleSubject, answer: wire::RuleAnswer) -> wire::NewRule {
    let grant = "corp".parse().unwrap();
    wire::NewRule { grant, subject, answer, scopes: None, resource: None, per_minute: None, expires_at: None, expires_in: None }
}

fn narrow() -> wire::NewRule {
    wire::NewRule { scopes: Some(vec!["read".into()]), ..rule(own_program(), wire::RuleAnswer::Allow) }
}

fn anyone(answer: wire::RuleAnswer) -> wire::NewRule {
    rule(wire::RuleSubject::Anyone, answer)
}

/// A grant whose token allows this and, where it is `valid`, still works.
fn allowing(scope: &str, valid: bool) -> GrantRecord {
    let mut record = expired("corp");
    record.scopes = vec![scope.to_owned()];
    if valid {
        record.token.issued_at = SystemClock.now().wall;
    }
    record
}

async fn house(record: GrantRecord) -> House {
    opened([record]).await
}

async fn opened(records: impl IntoIterator<Item = GrantRecord>) -> House {
    let house = House::with_records(CONFIG, records).await;
    // Then the vault is open.
    house.broker.grants().await.unwrap();
    house
}

/// The other end of a connection that this process made to itself; whoever holds the second part keeps it open.
fn myself() -> (Arc<Caller>, impl Sized) {
    let (near, far) = tokio::net::UnixStream::pair().unwrap();
    let near = Arc::new(std::sync::Mutex::new(near));
    let peer = crate::policy::Peer { uid: crate::platform::own_uid(), pid: Some(std::process::id()) };
    (Caller::of(&near, peer, None), (near, far))
}

async fn asked(broker: Broker) -> Result<String, ErrorCode> {
    let (caller, _open) = myself();
    let answer = broker.token(wire::TokenRequest::for_grant("corp"), caller).await;
    answer.map(|token| token.access_token.expose().to_owned()).map_err(|error| error.error)
}

/// The same by a request that waits for the person's word.
async fn waits(broker: Broker) -> Result<String, ErrorCode> {
    let (caller, _open) = myself();
    let request = wire::TokenRequest { wait: Some(true), ..wire::TokenRequest::for_grant("corp") };
    let answer = broker.token(request, caller).await;
    answer.map(|token| token.access_token.expose().to_owned()).map_err(|error| error.error)
}

async fn id_of_question(house: &House) -> String {
    loop {
        if let Some(consent) = house.broker.consents().await.unwrap().pop() {
            return consent.id;
        }
        tokio::task::yield_now().await;
    }
}

async fn yes(house: &House, id: String) {
    house.broker.decide_consent(id, wire::ConsentDecision { allow: true }, process(1)).await.unwrap();
}

fn widened(scope: &str) -> Result<Response, TransportError> {
    let body = format!(r#"{{"access_token":"at-2","token_type":"Bearer","expires_in":3600,"refresh_token":"rt-2","scope":"{scope}"}}"#);
    Ok(json(200, &body))
}

#[tokio::test]
async fn a_token_that_came_back_wider_than_the_rule_gives_is_not_served() {
    for (scope, expected) in [("read", Ok("at-2")), ("read write", Err(ErrorCode::AccessDenied))] {
        let mut house = house(allowing("read", false)).await;
        house.broker.add_rule(narrow(), process(std::process::id())).await.unwrap();
        let asking = house.aside(asked).await;
        let (_, provider) = house.requests.recv().await.unwrap();
        provider.send(widened(scope)).unwrap();
        assert_eq!(asking.await.unwrap().as_deref().map_err(|error| *error), expected, "{scope}");
    }
}

#[tokio::test]
async fn whoever_waits_for_a_token_when_its_rules_change_is_judged_anew() {
    let mut house = house(allowing("read", false)).await;
    let asking = house.aside(asked).await;
    let (_, provider) = house.requests.recv().await.unwrap();
    house.broker.add_rule(anyone(wire::RuleAnswer::Deny), process(std::process::id())).await.unwrap();
    provider.send(widened("read")).unwrap();
    assert_eq!(asking.await.unwrap(), Err(ErrorCode::Conflict));
    assert_eq!(asked(house.broker.clone()).await, Err(ErrorCode::AccessDenied));
}

#[tokio::test]
async fn whoever_waits_for_a_token_when_the_time_of_its_rule_ends_is_judged_anew() {
    let mut house = house(allowing("read", false)).await;
    let for_a_moment = wire::NewRule { expires_in: Some(1), ..rule(own_program(), wire::RuleAnswer::Allow) };
    house.broker.add_rule(for_a_moment, process(1)).await.unwrap();
    let asking = house.aside(asked).await;
    let (_, _provider) = house.requests.recv().await.unwrap();
    assert_eq!(asking.await.unwrap(), Err(ErrorCode::Conflict), "the provider has not answered yet");
}

#[tokio::test]
async fn a_lock_answers_whoever_waits_for_a_word_and_the_word_comes_to_nothing() {
    let house = house(allowing("read", true)).await;
    house.broker.add_rule(anyone(wire::RuleAnswer::AskAlways), process(std::process::id())).await.unwrap();
    let asking = house.aside(waits).await;
    let id = id_of_question(&house).await;
    house.broker.vault_lock().await.unwrap();
    assert_eq!(asking.await.unwrap(), Err(ErrorCode::VaultLocked));
    house.broker.vault_unlock(unlocking()).await.unwrap();
    let decided = house.broker.decide_consent(id, wire::ConsentDecision { allow: true }, process(1)).await;
    assert_eq!(decided.unwrap_err().error, ErrorCode::NotFound);
    assert_eq!(asked(house.broker.clone()).await, Err(ErrorCode::ConsentRequired));
}

#[tokio::test]
async fn a_rule_counts_once_the_disk_has_it_and_not_before() {
    let house = house(allowing("read", true)).await;
    told(|done| house.vault.lock(done)).await.unwrap();
    assert!(house.broker.add_rule(anyone(wire::RuleAnswer::Deny), process(std::process::id())).await.is_err());
    assert_eq!(asked(house.broker.clone()).await.as_deref(), Ok("at-1"));
    told(|done| house.vault.open(false, None, done)).await.unwrap();
    house.broker.add_rule(anyone(wire::RuleAnswer::Deny), process(std::process::id())).await.unwrap();
    assert_eq!(asked(house.broker.clone()).await, Err(ErrorCode::AccessDenied));
    assert_eq!(house.broker.policy().await.unwrap().rules.len(), 1);
}

#[tokio::test]
async fn a_request_that_comes_while_the_vault_is_being_opened_is_judged_by_what_is_in_it() {
    let house = house(allowing("read", true)).await;
    house.broker.add_rule(anyone(wire::RuleAnswer::Deny), process(std::process::id())).await.unwrap();
    house.broker.vault_lock().await.unwrap();
    let unlocking = house.aside(async |broker| broker.vault_unlock(unlocking()).await).await;
    let asking = house.aside(asked).await;
    unlocking.await.unwrap().unwrap();
    assert!(matches!(asking.await.unwrap(), Err(ErrorCode::AccessDenied | ErrorCode::VaultLocked)));
    assert_eq!(asked(house.broker.clone()).await, Err(ErrorCode::AccessDenied));
}

#[tokio::test]
async fn of_many_rules_that_are_added_at_once_none_is_lost() {
    let house = house(allowing("read", true)).await;
    let mut adding = Vec::new();
    for number in 1..=20_u16 {
        let rule = wire::NewRule { per_minute: Some(number), ..anyone(wire::RuleAnswer::Allow) };
        adding.push(house.aside(move |broker| async move { broker.add_rule(rule, process(std::process::id())).await }).await);
    }
    for adding in adding {
        adding.await.unwrap().unwrap();
    }
    house.broker.vault_lock().await.unwrap();
    house.broker.vault_unlock(unlocking()).await.unwrap();
    let rules = house.broker.policy().await.unwrap().rules;
    let numbers: Vec<_> = rules.iter().map(|rule| (rule.id, rule.per_minute.unwrap())).collect();
    assert_eq!(numbers, (1..=20).map(|number| (u32::from(number), number)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_yes_to_many_who_wait_gives_no_more_tokens_than_the_rules_rate() {
    let house = house(allowing("read", true)).await;
    let one_a_minute = wire::NewRule { per_minute: Some(1), ..anyone(wire::RuleAnswer::AskAlways) };
    house.broker.add_rule(one_a_minute, process(1)).await.unwrap();
    let asking = [house.aside(waits).await, house.aside(waits).await, house.aside(waits).await];
    let id = id_of_question(&house).await;
    while house.core(|core| core.policy.paused.len()).await < asking.len() {
        tokio::task::yield_now().await;
    }
    yes(&house, id).await;
    let mut answers = Vec::new();
    for asking in asking {
        answers.push(asking.await.unwrap());
    }
    assert_eq!(answers.iter().filter(|answer| **answer == Err(ErrorCode::TooManyRequests)).count(), 2, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer.as_deref() == Ok("at-1")).count(), 1, "{answers:?}");
}

#[tokio::test]
async fn a_yes_to_a_token_of_certain_scopes_is_none_to_one_of_unknown_scopes() {
    let house = house(allowing("read", true)).await;
    house.broker.add_rule(anyone(wire::RuleAnswer::AskAlways), process(1)).await.unwrap();
    let asking = house.aside(waits).await;
    let id = id_of_question(&house).await;
    let brought = r#"{"access_token":"whatever","scopes":[],"replace":true}"#;
    house.broker.add_token("corp".parse().unwrap(), serde_json::from_str(brought).unwrap()).await.unwrap();
    yes(&house, id).await;
    assert_eq!(asking.await.unwrap(), Err(ErrorCode::AccessDenied));
}

#[tokio::test]
async fn a_rule_that_is_added_while_a_server_is_looked_at_again_counts() {
    let mut record = allowing("read", true);
    record.definition.server = Some("https://corp.example/mcp".into());
    let mut house = house(record).await;
    let asking = house
        .aside(|broker| async move {
            let (caller, _open) = myself();
            let rejected_token = Some(mcp_auth_proto::Secret::new("at-1"));
            let request = wire::TokenRequest { rejected_token, ..wire::TokenRequest::for_grant("corp") };
            broker.token(request, caller).await.map(|_| ()).map_err(|error| error.error)
        })
        .await;
    let (look, server) = house.requests.recv().await.unwrap();
    assert!(look.url.contains("well-known"), "{}", look.url);
    house.broker.add_rule(anyone(wire::RuleAnswer::Deny), process(1)).await.unwrap();
    let no_answer = TransportError::Lost { host: "corp.example".into(), reason: "reset".into() };
    server.send(Err(no_answer)).unwrap();
    assert_eq!(asking.await.unwrap(), Err(ErrorCode::AccessDenied));
}

#[tokio::test]
async fn a_yes_is_for_the_next_request_too_however_soon_it_comes_until_it_is_taken_back() {
    let house = house(allowing("read", true)).await;
    house.broker.add_rule(anyone(wire::RuleAnswer::AskOnce), process(1)).await.unwrap();
    assert_eq!(asked(house.broker.clone()).await, Err(ErrorCode::ConsentRequired));
    let id = house.broker.consents().await.unwrap().pop().unwrap().id;
    let decided = house.broker.decide_consent(id, wire::ConsentDecision { allow: true }, process(1)).await.unwrap();
    assert!(decided.remember);
    for _ in 0..3 {
        assert_eq!(asked(house.broker.clone()).await.as_deref(), Ok("at-1"));
    }
    let consent = loop {
        if let Some(consent) = house.broker.policy().await.unwrap().consents.pop() {
            break consent.id;
        }
        tokio::task::yield_now().await;
    };
    house.broker.remove_rule(consent, process(1)).await.unwrap();
    assert_eq!(asked(house.broker.clone()).await, Err(ErrorCode::ConsentRequired));
}

#[tokio::test]
async fn a_test_says_that_a_yes_to_an_interpreter_or_to_our_command_line_is_not_remembered() {
    let house = house(allowing("read", true)).await;
    house.broker.add_rule(narrow(), process(1)).await.unwrap();
    for (executable, script, often) in [
        ("/usr/bin/curl", None, "the first time"),
        ("/usr/bin/python3.11", None, "every time"),
        ("/usr/bin/python3.11", Some("/srv/server.py"), "the first time"),
        ("/usr/local/bin/mcp-authctl", None, "every time"),
    ] {
        let program =
            wire::RuleProgram { executable: Some(executable.into()), script: script.map(str::to_owned), ..wire::RuleProgram::default() };
        let question =
            wire::PolicyQuestion { grant: "corp".parse().unwrap(), subject: wire::RuleSubject::Program(program), scopes: Vec::new() };
        let answer = house.broker.test_policy(question).await.unwrap();
        assert!(answer.reason.ends_with(&format!("you are asked {often}")), "{executable}: {}", answer.reason);
    }
}

/// A token for the relay, with its lease.
async fn leased(house: &House, caller: &Arc<Caller>) -> Lease {
    let request = wire::TokenRequest { wait: Some(true), ..wire::TokenRequest::for_grant("corp") };
    house.broker.relayed(request, caller.clone()).await.unwrap().lease.unwrap()
}

#[tokio::test]
async fn a_lease_holds_while_the_rules_would_give_the_token_without_a_question_and_costs_no_rate() {
    let of_another = || wire::NewRule { grant: "corp:b".parse().unwrap(), ..anyone(wire::RuleAnswer::Deny) };
    let one_a_minute = || wire::NewRule { per_minute: Some(1), ..rule(own_program(), wire::RuleAnswer::Allow) };
    for (name, rule, expected) in [
        ("of another grant", of_another(), Ok(())),
        ("as much as the token is", narrow(), Ok(())),
        ("with a rate", one_a_minute(), Ok(())),
        ("less than the token is", wire::NewRule { scopes: Some(vec!["other".into()]), ..narrow() }, Err(ErrorCode::AccessDenied)),
        ("about another program", wire::NewRule { subject: wire::RuleSubject::Capability, ..narrow() }, Err(ErrorCode::AccessDenied)),
        ("that asks", anyone(wire::RuleAnswer::AskAlways), Err(ErrorCode::AccessDenied)),
        ("a no", anyone(wire::RuleAnswer::Deny), Err(ErrorCode::AccessDenied)),
    ] {
        let house = opened([allowing("read", true), expired("corp:b")]).await;
        let (caller, _open) = myself();
        let lease = leased(&house, &caller).await;
        house.broker.add_rule(rule, process(1)).await.unwrap();
        for _ in 0..3 {
            let judged = house.broker.may_go_on(&"corp".parse().unwrap(), &caller).await;
            assert_eq!(judged.map_err(|error| error.error), expected, "{name}");
        }
        assert!(house.broker.consents().await.unwrap().is_empty(), "{name}: nobody is asked");
        if expected.is_err() {
            assert_eq!(Err(house.broker.ended(lease, caller).await.error), expected, "{name}");
        } else {
            assert_eq!(asked(house.broker.clone()).await.as_deref(), Ok("at-1"), "{name}");
        }
    }
}

#[tokio::test]
async fn a_logout_and_a_lock_end_a_lease_and_another_login_does_not_bring_it_back() {
    let house = house(allowing("read", true)).await;
    let (caller, _open) = myself();
    let lease = leased(&house, &caller).await;
    house.broker.logout("corp".parse().unwrap(), wire::LogoutRequest { revoke: Some(false) }).await.unwrap();
    let gone = house.broker.ended(lease.clone(), caller.clone()).await;
    assert!(gone.error == ErrorCode::AccessDenied && gone.to_string().contains("`corp` was logged out"), "{gone}");
    let brought = r#"{"access_token":"whatever","scopes":["read"]}"#;
    house.broker.add_token("corp".parse().unwrap(), serde_json::from_str(brought).unwrap()).await.unwrap();
    assert_eq!(house.broker.ended(lease, caller.clone()).await.error, ErrorCode::AccessDenied);

    let lease = leased(&house, &caller).await;
    house.broker.vault_lock().await.unwrap();
    assert_eq!(house.broker.ended(lease, caller).await.error, ErrorCode::VaultLocked);
}

#[tokio::test]
async fn a_lease_by_a_yes_ends_when_the_yes_is_taken_back() {
    let house = house(allowing("read", true)).await;
    house.broker.add_rule(anyone(wire::RuleAnswer::AskOnce), process(1)).await.unwrap();
    let (caller, _open) = myself();
    let word = async {
        let id = id_of_question(&house).await;
        yes(&house, id).await;
    };
    let (lease, ()) = tokio::join!(leased(&house, &caller), word);
    let consent = loop {
        if let Some(consent) = house.broker.policy().await.unwrap().consents.pop() {
            break consent.id;
        }
        tokio::task::yield_now().await;
    };
    house.broker.may_go_on(&"corp".parse().unwrap(), &caller).await.unwrap();
    house.broker.remove_rule(consent, process(1)).await.unwrap();
    let taken_back = house.broker.ended(lease, caller).await.to_string();
    assert!(taken_back.contains("you must allow") && taken_back.contains("anew"), "{taken_back}");
}

#[tokio::test]
async fn a_lease_by_a_rule_ends_with_the_rules_time() {
    let house = house(allowing("read", true)).await;
    let (caller, _open) = myself();
    let (lease, started) = (leased(&house, &caller).await, std::time::Instant::now());
    let for_a_moment = wire::NewRule { expires_in: Some(1), ..rule(own_program(), wire::RuleAnswer::Allow) };
    house.broker.add_rule(for_a_moment, process(1)).await.unwrap();
    assert_eq!(house.broker.ended(lease, caller).await.error, ErrorCode::AccessDenied);
    assert!(started.elapsed() > Duration::from_millis(900), "and not before: {:?}", started.elapsed());
}
