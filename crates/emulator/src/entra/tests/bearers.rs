//! Bearers at ACS, and the controls that change them.

use super::*;

fn denied(said: &Said, status: u16, why: &str) {
    let reason = said.headers.get(REASON_HEADER).unwrap().to_str().unwrap();
    assert_eq!(said.status, status, "{reason}");
    assert_eq!(said.body["error"]["code"], "Denied");
    assert_eq!(
        said.body["error"]["message"],
        "Denied by the resource provider."
    );
    assert!(reason.contains(why), "{reason:?} should hold {why:?}");
}

fn steer(place: &Place, change: impl FnOnce(&mut EntraControls)) {
    place.emulator.steer_entra(change);
}

#[tokio::test(start_paused = true)]
async fn a_bearer_carries_every_operation_until_its_end() {
    let place = place();
    let bearer = place.by_secret().await.bearer().to_owned();
    let call = async |method: &str, target: String, body: &'static str| {
        let request = request(method, &format!("{target}?api-version=2023-10-01"))
            .header(AUTHORIZATION, format!("bearer {bearer}"))
            .header("content-type", "application/json")
            .body(Bytes::from_static(body.as_bytes()))
            .unwrap();
        place.send(request).await
    };
    let with_token = r#"{"createTokenWithScopes":["chat"]}"#;
    let made = call("POST", "/identities".to_owned(), with_token).await;
    let (id, token) = (
        &made.body["identity"]["id"],
        &made.body["accessToken"]["token"],
    );
    let id = id.as_str().unwrap();
    let issue = format!("/identities/{id}/:issueAccessToken");
    assert_eq!(
        call("POST", issue.clone(), r#"{"scopes":["chat"]}"#)
            .await
            .status,
        200
    );
    let judge = |token: &Value| place.control(Method::POST, "tokens", json!({"token": token}));
    place.control(Method::POST, "keys", json!({"regenerate": "primary"}));
    assert_eq!(judge(token)["live"], true, "no access key asked for it");
    let revoke = format!("/identities/{id}/:revokeAccessTokens");
    assert_eq!(call("POST", revoke, "").await.status, 204);
    assert_eq!(judge(token)["reason"], "revoked");
    assert_eq!(
        call("DELETE", format!("/identities/{id}"), "").await.status,
        204
    );
    assert_eq!(
        call("POST", issue, r#"{"scopes":["chat"]}"#).await.status,
        404
    );
    pass(3598).await;
    assert_eq!(place.create(&bearer).await.status, 201);
    pass(2).await;
    denied(
        &place.create(&bearer).await,
        401,
        "expired at 2026-11-22T13:00:00Z",
    );
}

#[tokio::test(start_paused = true)]
async fn bearers_of_others_and_no_bearers_are_refused() {
    let place = place();
    let other = place_with(|options| options.seed = 1);
    let foreign = other.by_secret().await.bearer().to_owned();
    denied(&place.create(&foreign).await, 401, "is of the tenant");
    let own = place.by_secret().await.bearer().to_owned();
    let (head, rest) = own.split_once('.').unwrap();
    let (payload, signature) = rest.split_once('.').unwrap();
    let none = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
    let unknown = "none that an emulator made";
    for bad in [
        "",
        "x",
        "a.b.c",
        &format!("{none}.{payload}."),
        &format!("{none}.{payload}.{signature}"),
        &format!("{head}.{payload}."),
        &format!("{head}.{}.{signature}", payload.replacen('e', "f", 1)),
        &format!("{own}.{own}"),
        &"x".repeat(1 << 20),
    ] {
        denied(&place.create(bad).await, 401, unknown);
    }
    // What stands in for a person at the Teams exchange, and a federated token, are no bearers either.
    let federated = place
        .emulator
        .federated_token(std::time::Duration::from_secs(60))
        .unwrap();
    denied(&place.create(federated.expose()).await, 401, unknown);
    assert_eq!(place.create(&own).await.status, 201);
}

#[tokio::test(start_paused = true)]
async fn a_bearer_for_another_resource_is_refused() {
    let place = place();
    let secret = place.registration.client_secret.expose().to_owned();
    let vault = [
        ("client_secret", secret.as_str()),
        ("scope", "https://vault.azure.net/.default"),
    ];
    let bearer = place.token(&vault).await.bearer().to_owned();
    denied(
        &place.create(&bearer).await,
        401,
        "audience of the bearer is https://vault.azure.net",
    );
    steer(&place, |controls| {
        controls.audience = Some("https://graph.microsoft.com".to_owned())
    });
    let bearer = place.by_secret().await.bearer().to_owned();
    denied(&place.create(&bearer).await, 401, "graph");
}

#[tokio::test(start_paused = true)]
async fn a_missing_role_and_keys_that_are_switched_off_are_refused_as_chosen() {
    let place = place();
    let bearer = place.by_secret().await.bearer().to_owned();
    for status in [401, 403] {
        place.control(
            Method::POST,
            "entra",
            json!({"role": false, "role_status": status}),
        );
        denied(
            &place.create(&bearer).await,
            status,
            "has no role at the resource",
        );
        let off = json!({"access_keys": false, "access_keys_status": status});
        place.control(Method::POST, "entra", off);
        let by_key = request("POST", "/identities?api-version=2023-10-01")
            .header(AUTHORIZATION, "HMAC-SHA256 SignedHeaders=x&Signature=y")
            .body(Bytes::new())
            .unwrap();
        denied(&place.send(by_key).await, status, "takes no access keys");
    }
    place.control(Method::POST, "entra", json!({"role": true}));
    assert_eq!(place.create(&bearer).await.status, 201);
}

#[tokio::test(start_paused = true)]
async fn a_challenge_lasts_until_a_bearer_was_asked_for_with_its_claims() {
    let place = place();
    let old = place.by_secret().await.bearer().to_owned();
    steer(&place, |controls| {
        controls.challenge = Challenge::UntilAnswered
    });
    let said = place.create(&old).await;
    denied(&said, 401, "does not answer the claims");
    let challenge = said.headers[WWW_AUTHENTICATE].to_str().unwrap();
    assert!(
        challenge.contains(r#"error="insufficient_claims""#),
        "{challenge}"
    );
    let claims = challenge
        .split(" claims=\"")
        .nth(1)
        .unwrap()
        .trim_end_matches('"');
    let claims = String::from_utf8(BASE64_STANDARD.decode(claims).unwrap()).unwrap();
    let without = place.by_secret().await.bearer().to_owned();
    assert_eq!(place.create(&without).await.status, 401);

    let secret = place.registration.client_secret.expose().to_owned();
    // As an SDK hands them on, with its own beside them.
    let mut merged: Value = serde_json::from_str(&claims).unwrap();
    merged["access_token"]["xms_cc"] = json!({"values": ["cp1"]});
    let fields = [
        ("client_secret", secret.as_str()),
        ("claims", &merged.to_string()),
    ];
    let answered = place.token(&fields).await.bearer().to_owned();
    assert_eq!(place.create(&answered).await.status, 201);
    assert_eq!(place.create(&old).await.status, 401, "it is not forgotten");

    steer(&place, |controls| controls.challenge = Challenge::Always);
    let answered = place.token(&fields).await.bearer().to_owned();
    assert_eq!(place.create(&answered).await.status, 401);
    steer(&place, |controls| controls.challenge = Challenge::Off);
    assert_eq!(place.create(&old).await.status, 201);
}

#[tokio::test(start_paused = true)]
async fn a_challenge_is_answered_by_whatever_a_machine_gets_afterwards() {
    let place = place();
    steer(&place, |controls| controls.cached = true);
    let old = place.imds("").await.bearer().to_owned();
    steer(&place, |controls| {
        controls.challenge = Challenge::UntilAnswered
    });
    assert_eq!(place.create(&old).await.status, 401);
    assert_eq!(place.imds("").await.bearer(), old);
    steer(&place, |controls| controls.cached = false);
    let new = place.imds("").await.bearer().to_owned();
    assert_eq!(place.create(&new).await.status, 201);
}

#[tokio::test(start_paused = true)]
async fn lives_and_refreshes_are_as_chosen_and_a_cache_gives_the_same_again() {
    let place = place();
    place.control(
        Method::POST,
        "entra",
        json!({"lifetime_seconds": 100, "refresh_in_seconds": 40, "cached": true}),
    );
    let first = place.imds("").await;
    assert_eq!(
        (&first.body["expires_in"], &first.body["refresh_in"]),
        (&json!("100"), &json!("40"))
    );
    let by_secret = place.by_secret().await;
    assert_eq!(by_secret.body["refresh_in"], 40);
    pass(60).await;
    let again = place.imds("").await;
    assert_eq!(again.bearer(), first.bearer());
    assert_eq!(again.body["expires_in"], "40");
    assert_eq!(again.body["expires_on"], first.body["expires_on"]);
    let assigned = format!("&client_id={}", place.registration.assigned.client_id);
    assert_ne!(place.imds(&assigned).await.bearer(), first.bearer());
    pass(40).await;
    let new = place.imds("").await;
    assert_ne!(new.bearer(), first.bearer());
    denied(&place.create(first.bearer()).await, 401, "expired");
    assert_eq!(place.emulator.bearers(), 4);
    steer(&place, |controls| controls.cached = false);
    assert_ne!(place.imds("").await.bearer(), new.bearer());
}
