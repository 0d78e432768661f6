//! Whom the daemon asks for `GET /v1/doctor`, and how often.

use super::*;

#[tokio::test]
async fn the_doctor_asks_known_providers_only_and_once_for_all_who_want_to_know() {
    let mut house = House::with(&[]).await;
    let asking = [house.aside(async |broker| broker.doctor().await).await, house.aside(async |broker| broker.doctor().await).await];
    let (request, provider) = house.requests.recv().await.unwrap();
    assert_eq!(request.url, "https://corp.example/token");
    provider.send(tokens("at-1", "rt-1")).unwrap();
    for asking in asking {
        let reaches = asking.await.unwrap().unwrap();
        assert_eq!(reaches.iter().map(|reach| &*reach.provider).collect::<Vec<_>>(), ["corp"], "presets that nobody uses are let be");
        assert_eq!((reaches[0].host.as_deref(), reaches[0].builtin, &reaches[0].error), (Some("corp.example"), false, &None));
    }
    let fresh = tokio::time::timeout(Duration::from_secs(10), house.broker.doctor()).await;
    assert!(fresh.is_ok() && house.requests.try_recv().is_err(), "a client can make the daemon ask again and again");
    std::fs::write(house.folder.path().join("config.toml"), CONFIG).unwrap();
    house.broker.reload().await.unwrap();
    let again = house.aside(async |broker| broker.doctor().await).await;
    let refused = TransportError::NotSent { host: "corp.example".into(), reason: "no route".into() };
    house.requests.recv().await.unwrap().1.send(Err(refused)).unwrap();
    let reaches = again.await.unwrap().unwrap();
    assert_eq!((reaches[0].milliseconds, reaches[0].error.as_deref()), (None, Some("cannot connect to corp.example: no route")));
}
