//! Who keeps a token, with a real process.

use std::process::{Child, Command, Stdio};

use super::*;

/// Corp's refreshes end the token before them.
fn ending() -> String {
    format!("{CONFIG}refresh_invalidates_access_token = true\n")
}

/// A program that lives until it is killed.
fn program() -> Child {
    Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

async fn holders(house: &House) -> Vec<wire::Holder> {
    house.broker.grant("corp".parse().unwrap()).await.unwrap().holders
}

async fn take(house: &mut House, pid: u32) {
    let asking = house.aside(move |broker| async move {
        let request = wire::TokenRequest { holder: Some("a\u{1b}[31m server".into()), ..wire::TokenRequest::for_grant("corp") };
        broker.token(request, process(pid)).await.unwrap()
    });
    let asking = asking.await;
    house.requests.recv().await.unwrap().1.send(tokens("at-2", "rt-2")).unwrap();
    assert_eq!(asking.await.unwrap().access_token.expose(), "at-2");
}

fn refresh(force: bool) -> impl FnOnce(Broker) -> std::pin::Pin<Box<dyn Future<Output = Result<wire::GrantSummary, ErrorBody>> + Send>> {
    move |broker| Box::pin(async move { broker.refresh("corp".parse().unwrap(), wire::RefreshRequest { force }).await })
}

#[tokio::test]
async fn a_refresh_by_hand_needs_force_while_a_program_keeps_the_token_that_it_would_end() {
    let mut house = House::with_config(&ending(), &["corp"]).await;
    let mut child = program();
    take(&mut house, child.id()).await;
    let [holder] = <[_; 1]>::try_from(holders(&house).await).unwrap();
    assert_eq!((holder.program.as_str(), holder.pid, holder.current), ("a[31m server", child.id(), true));
    assert!(holder.expires_in.is_some_and(|seconds| (3500..=3576).contains(&seconds)), "until the planned refresh: {holder:?}");

    let refused = refresh(false)(house.broker.clone()).await.unwrap_err();
    assert_eq!(refused.error, ErrorCode::Conflict);
    assert!(refused.error_description.ends_with(&format!("a[31m server (process {})", child.id())), "{refused}");
    assert!(refused.hint.unwrap().starts_with("mcp-authctl refresh corp --force"));
    assert!(house.requests.try_recv().is_err(), "nothing was sent");

    let forced = house.aside(refresh(true)).await;
    house.requests.recv().await.unwrap().1.send(tokens("at-3", "rt-3")).unwrap();
    assert_eq!(forced.await.unwrap().unwrap().holders[0].expires_in, Some(0), "its token has ended");
    assert!(!holders(&house).await[0].current);

    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(holders(&house).await, []);
}

#[tokio::test]
async fn who_keeps_a_token_is_forgotten_with_the_process_and_with_the_login_and_not_by_a_lock() {
    let mut house = House::with_config(&ending(), &["corp"]).await;
    let mut child = program();
    take(&mut house, child.id()).await;
    house.broker.vault_lock().await.unwrap();
    house.broker.vault_unlock(unlocking()).await.unwrap();
    assert!(holders(&house).await[0].current);

    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(holders(&house).await, []);
    let sent = house.aside(refresh(false)).await;
    house.requests.recv().await.unwrap().1.send(tokens("at-3", "rt-3")).unwrap();
    sent.await.unwrap().unwrap();

    let mut child = program();
    let request = wire::TokenRequest { holder: Some(String::new()), ..wire::TokenRequest::for_grant("corp") };
    house.broker.token(request, process(child.id())).await.unwrap();
    assert_eq!(holders(&house).await[0].program, "a program");
    let leaving = house.aside(async |broker| broker.logout("corp".parse().unwrap(), wire::LogoutRequest::default()).await).await;
    assert!(leaving.await.unwrap().is_ok());
    assert!(house.core(|core| format!("{:?}", core.holders)).await.ends_with("({})"), "nothing of it is left");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn a_token_that_no_refresh_ends_is_kept_by_nobody_against_a_refresh() {
    let mut house = House::with(&["corp"]).await;
    let mut child = program();
    take(&mut house, child.id()).await;
    let sent = house.aside(refresh(false)).await;
    house.requests.recv().await.unwrap().1.send(tokens("at-3", "rt-3")).unwrap();
    let holder = sent.await.unwrap().unwrap().holders.remove(0);
    assert!(!holder.current && holder.expires_in.is_some_and(|seconds| seconds > 3500), "it still works: {holder:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}
