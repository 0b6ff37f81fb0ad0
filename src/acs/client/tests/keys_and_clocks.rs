//! Refused keys and wrong clocks, told apart and got over.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_refused_key_is_followed_by_the_other_which_is_remembered() {
    let side = Side::new();
    let client = client(&side);
    issue(&client).await.unwrap();
    *lock(&side.key) = SECONDARY;
    let switched = issue(&client).await.unwrap();
    assert_eq!((switched.requests, switched.switched_key), (2, true));
    assert_eq!(
        switched.key,
        AccessKey::new(SECONDARY.to_vec()).fingerprint()
    );
    let next = issue(&client).await.unwrap();
    assert_eq!((next.requests, next.switched_key), (1, false));
    let status = client.key_status();
    assert_eq!(status.in_use, KeyRole::Secondary);
    assert_eq!(status.keys[0].standing, KeyStanding::Denied);
    assert_eq!(status.keys[1].standing, KeyStanding::Accepted);
}

#[tokio::test(start_paused = true)]
async fn when_both_keys_are_refused_two_requests_are_all() {
    let side = Side::new();
    *lock(&side.key) = b"regenerated";
    let client = client(&side);
    let error = issue(&client).await.unwrap_err();
    assert_eq!(
        (error.class(), error.requests),
        (FailureClass::Credentials, 2)
    );
    assert_eq!(client.key_status().in_use, KeyRole::Primary);
    assert!(
        client
            .key_status()
            .keys
            .iter()
            .all(|k| k.standing == KeyStanding::Denied)
    );
    assert_eq!(
        error.to_string(),
        format!(
            "cannot issue a token for {ID}: 401 Denied from {}: Denied by the resource provider. (check the connection strings against the keys that the Azure portal shows)",
            client.endpoint.authority()
        )
    );
}

#[tokio::test(start_paused = true)]
async fn only_denied_tries_the_other_key() {
    let side = Side::new();
    let client = client(&side);
    for (status, code, class) in [
        (401, "Unauthorized", FailureClass::Credentials),
        (403, "Forbidden", FailureClass::Credentials),
        (401, "IdentityNotOwned", FailureClass::Gone),
        (404, "IdentityNotFound", FailureClass::Gone),
        (429, "TooManyRequests", FailureClass::Wait),
        (500, "InternalServerError", FailureClass::Retry),
    ] {
        side.reject(status, code);
        let failure = issue(&client).await.unwrap_err().failure();
        assert_eq!(
            (failure.class, failure.status),
            (class, Some(status)),
            "{code}"
        );
    }
    assert_eq!(side.requests(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_clock_signs_again_with_the_answers_date_and_learns() {
    let side = Side::new();
    let client = client(&side);
    let day = SignedDuration::from_hours(24);
    *lock(&side.ahead) = -day;
    let first = issue(&client).await.unwrap();
    assert_eq!((first.requests, first.switched_key), (2, false));
    assert!((client.skew() + day).abs() <= SignedDuration::from_secs(1));
    assert_eq!(
        issue(&client).await.unwrap().requests,
        1,
        "signed with the skew"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wrong_clock_and_a_wrong_key_are_told_apart() {
    let side = Side::new();
    let client = client(&side);
    *lock(&side.ahead) = SignedDuration::from_hours(1);
    *lock(&side.key) = SECONDARY;
    let answer = issue(&client).await.unwrap();
    assert_eq!((answer.requests, answer.switched_key), (3, true));
}

#[tokio::test(start_paused = true)]
async fn a_refusals_date_teaches_nothing() {
    let side = Side::new();
    let client = client(&side);
    *lock(&side.ahead) = SignedDuration::from_hours(24);
    for _ in 0..2 {
        side.reject(401, "Denied");
    }
    issue(&client).await.unwrap_err();
    assert_eq!(client.measured_skew(), None);
}

#[tokio::test(start_paused = true)]
async fn an_authenticated_date_confirms_a_step_of_our_clock() {
    let side = Side::new();
    let client = client(&side);
    let hour = SignedDuration::from_hours(1);
    *lock(&side.ahead) = hour;
    issue(&client).await.unwrap();
    let before = side.clock.now();
    side.clock.step_wall(hour);
    issue(&client).await.unwrap();
    assert_eq!(side.clock.now(), before + hour);
    assert!(
        client.skew().abs() <= SignedDuration::from_secs(1),
        "{}",
        client.skew()
    );
    *lock(&side.ahead) = SignedDuration::ZERO;
    assert_eq!(
        issue(&client).await.unwrap().requests,
        1,
        "no sample was spoilt"
    );
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_cannot_be_is_not_followed() {
    for days in [8, 3650, -8, -3650, 365 * 7900] {
        let side = Side::new();
        let client = client(&side);
        *lock(&side.ahead) = SignedDuration::from_hours(24 * days);
        let error = issue(&client).await.unwrap_err();
        assert_eq!(
            (client.measured_skew(), error.requests),
            (None, 1),
            "{days}"
        );
        let told = error.to_string();
        assert!(told.contains("set the clock of this machine"), "{told}");
        assert!(!error.blames_key, "{days}");
    }
    // Answers of success with such a date are taken, their date is not.
    let side = Side::new();
    let client = client(&side);
    issue(&client).await.unwrap();
    let before = client.skew();
    side.clock.step_wall(SignedDuration::from_hours(-24 * 3650));
    assert!(
        client.skew().as_hours().abs() <= 7 * 24,
        "{}",
        client.skew()
    );
    assert!((client.skew() - before).as_hours().abs() <= 7 * 24);
}
