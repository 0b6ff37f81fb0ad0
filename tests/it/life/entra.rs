//! A resource without access keys over days: what becomes of its tokens while Entra ID fails, refuses, or is slow.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use http::Response;
use renewd::{
    config::{CredentialSettings, EntraKind, EntraSettings, LoadedSecret, SecretRef},
    model::{BearerCause, Record, Secret},
    schedule::{Action, HeldBy},
    transport::{Transport, TransportError},
};
use renewd_emulator::{Challenge, Emulator, EmulatorOptions, EntraControls, EntraPart, TokenAlg};

use super::{
    HOUR, MINUTE, SECOND,
    service::Fault,
    world::{Setting, World},
};

/// Who gives bearers, and who takes them.
#[derive(Clone)]
pub(super) enum Giver {
    /// Stands before the service.
    Own(Authority),
    /// Answers in the place of both, and judges each bearer.
    Emulator(Arc<Emulator>),
}

impl Giver {
    /// What a client sends its requests to.
    pub(super) fn transport(&self, service: Transport) -> Transport {
        match self {
            Self::Own(authority) => authority.before(service),
            Self::Emulator(emulator) => {
                let broken = |why: &str| TransportError::Broken(why.to_owned());
                Transport::InProcess(emulator.as_handler(broken))
            }
        }
    }
}

/// Gives bearers of an hour, and fails as it is told; stands before the service.
#[derive(Clone)]
pub(super) struct Authority(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// What it does instead of giving one.
    fault: Option<AuthorityFault>,
    asked: u64,
}

#[derive(Debug, Clone, Copy)]
enum AuthorityFault {
    /// Nothing listens.
    Silent,
    Answers(u16, &'static str),
}

impl Authority {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    fn fail(&self, fault: AuthorityFault) {
        self.inner().fault = Some(fault);
    }

    fn mend(&self) {
        self.inner().fault = None;
    }

    fn asked(&self) -> u64 {
        self.inner().asked
    }

    /// The same service behind it.
    fn before(&self, service: Transport) -> Transport {
        let Transport::InProcess(service) = service else {
            panic!("the service answers in this process")
        };
        let authority = self.clone();
        Transport::InProcess(Arc::new(move |request| {
            if !request.uri().path().contains("/oauth2/") {
                return service(request);
            }
            let answer = authority.answer();
            Box::pin(async move {
                // Others ask meanwhile.
                tokio::time::sleep(std::time::Duration::from_millis(30)).await;
                answer
            })
        }))
    }

    fn answer(&self) -> Result<Response<Bytes>, TransportError> {
        let mut inner = self.inner();
        inner.asked += 1;
        let (status, body) = match inner.fault {
            Some(AuthorityFault::Silent) => {
                return Err(TransportError::Connect("refused".to_owned()));
            }
            Some(AuthorityFault::Answers(status, body)) => (status, body.to_owned()),
            None => {
                let number = inner.asked;
                let body = format!(r#"{{"expires_in":"3600","access_token":"bearer.{number}"}}"#);
                (200, body)
            }
        };
        let answer = Response::builder().status(status);
        Ok(answer.body(Bytes::from(body)).unwrap())
    }
}

fn credential(kind: EntraKind) -> CredentialSettings {
    CredentialSettings::Entra(EntraSettings {
        endpoint: "https://contoso.example".to_owned(),
        kind,
        authority: "https://login.example".to_owned(),
        scope: "https://communication.azure.com//.default".to_owned(),
    })
}

fn by_secret() -> EntraKind {
    EntraKind::ClientSecret {
        tenant: "tenant".to_owned(),
        client_id: "me".to_owned(),
        secret: LoadedSecret {
            from: SecretRef::Env("SECRET".to_owned()),
            secret: Secret::new("secret".to_owned()),
        },
    }
}

fn setting(count: usize, kind: EntraKind) -> (Setting, Authority) {
    let authority = Authority::new();
    let mut setting = Setting::of(count);
    setting.resource.credential = credential(kind);
    setting.giver = Some(Giver::Own(authority.clone()));
    (setting, authority)
}

async fn world(count: usize) -> (World, Authority) {
    let (setting, authority) = setting(count, by_secret());
    (World::start(setting).await, authority)
}

/// Everything that calls came to since the start.
fn results(world: &World) -> Vec<String> {
    world.view().calls.into_keys().collect()
}

/// Nobody was ever blamed for anything.
async fn nobody_failed(world: &World) {
    for record in world.records().await {
        assert_eq!(
            (record.failures, record.failing_since),
            (0, None),
            "{record:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn bearers_are_renewed_for_days_and_a_short_outage_costs_nothing() {
    let (world, authority) = world(200).await;
    for hour in 0..72 {
        match hour {
            // Begins just before a renewal is due.
            30 => {
                world.pass(MINUTE * 29).await;
                let before = authority.asked();
                authority.fail(AuthorityFault::Silent);
                world.pass(MINUTE * 25).await;
                authority.mend();
                assert!(authority.asked() > before + 30, "{}", authority.asked());
                world.pass(MINUTE * 6).await;
            }
            _ => world.pass(HOUR).await,
        }
        assert_eq!(world.service.without_live_token(), 0, "in hour {hour}");
    }
    assert_eq!(results(&world), ["ok"], "no call failed");
    let bearers = 72 * 2;
    let asked = authority.asked();
    assert!(
        (bearers..bearers + 65).contains(&asked),
        "{asked} token requests"
    );
    assert_eq!(world.view().bearer.unwrap().requests, asked);
    let news = world.news().await;
    assert_eq!(news, ["entra.unreachable", "entra.recovered"]);
    nobody_failed(&world).await;
    let minted = world.record("bot-0007").await.token.unwrap().minted_by;
    assert_eq!(minted, "entra:me");
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_is_due_at_once_asks_for_one_bearer() {
    let (world, authority) = world(2000).await;
    world.pass(MINUTE * 3).await;
    assert_eq!(authority.asked(), 1);
    assert_eq!(world.view().calls.get("ok"), Some(&2000));
}

#[tokio::test(start_paused = true)]
async fn an_outage_longer_than_a_bearer_holds_everything_and_blames_nobody() {
    let (mut world, authority) = world(100).await;
    world.pass(HOUR * 11).await;
    authority.fail(AuthorityFault::Silent);
    world.service.forget_calls();
    world.pass(HOUR * 2).await;
    // Many are due by now, none is late yet.
    let calls = world.service.calls().len();
    let now = world.clock.now();
    let records = world.records().await;
    let is_due = |one: &&Record| one.due.is_some_and(|due| due.at <= now);
    let due = records.iter().find(is_due).expect("some are due");
    let explanation = world.why(due.spec.name.as_str()).await;
    let Action::HeldBack { by, because, .. } = &explanation.action else {
        panic!("{explanation:?}")
    };
    assert_eq!(*by, HeldBy::Bearer);
    assert!(because.contains("login.example"), "{because}");
    assert!(
        explanation.sentence.contains("no bearer"),
        "{}",
        explanation.sentence
    );
    assert_eq!(world.news().await, ["entra.unreachable"]);
    let notices = world.notices().await;
    let told = &notices.last().unwrap().message;
    assert!(told.contains("lasts until"), "{told}");
    assert_eq!(world.service.without_live_token(), 0);
    let view = world.view().bearer.unwrap();
    assert_eq!(
        (view.ends, view.trouble.unwrap().cause),
        (None, BearerCause::Unanswered)
    );
    // The next process tells nothing anew.
    world.kill().await;
    world.up().await;
    world.pass(HOUR).await;
    assert_eq!(
        world.service.calls().len(),
        calls,
        "nothing went out without a bearer"
    );
    assert_eq!(world.news().await, ["entra.unreachable"]);
    authority.mend();
    world.pass(MINUTE).await;
    assert_eq!(world.news().await, ["entra.unreachable", "entra.recovered"]);
    let now = world.clock.now();
    let due = world
        .records()
        .await
        .into_iter()
        .filter(|one| one.due.unwrap().at <= now);
    assert_eq!(due.count(), 0, "all are renewed");
    nobody_failed(&world).await;
    let failed = ["retry", "credentials", "wait", "refuse", "gone"];
    let results = results(&world);
    assert!(
        !results
            .iter()
            .any(|result| failed.contains(&result.as_str())),
        "{results:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_metadata_service_that_restarts_at_the_start_is_waited_for() {
    let machine = EntraKind::ManagedIdentity { selector: None };
    let (setting, authority) = setting(20, machine);
    authority.fail(AuthorityFault::Answers(410, ""));
    let world = World::start(setting).await;
    world.pass(MINUTE).await;
    assert!(
        (5..=7).contains(&authority.asked()),
        "{}",
        authority.asked()
    );
    assert!(world.service.calls().is_empty());
    authority.mend();
    world.pass(SECOND * 32).await;
    assert_eq!(world.service.calls().len(), 20);
    assert_eq!(world.news().await, ["entra.unreachable", "entra.recovered"]);
    nobody_failed(&world).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_person_has_to_mend_is_told_once_for_each_cause() {
    let (world, authority) = world(20).await;
    world.pass(HOUR * 11).await;
    let wrong =
        r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret."}"#;
    authority.fail(AuthorityFault::Answers(401, wrong));
    let before = authority.asked();
    world.pass(HOUR * 2).await;
    assert!(
        authority.asked() <= before + 13,
        "{}",
        authority.asked() - before
    );
    assert_eq!(world.news().await, ["entra.refused"]);
    let told = world.notices().await.last().unwrap().message.clone();
    for part in [
        "invalid_client",
        "new client secret",
        "renewd key set contoso --entra",
        "lasts until",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    authority.fail(AuthorityFault::Answers(
        400,
        r#"{"error":"unauthorized_client"}"#,
    ));
    world.pass(HOUR).await;
    assert_eq!(world.news().await, ["entra.refused", "entra.refused"]);
    authority.mend();
    world.pass(MINUTE * 12).await;
    let news = world.news().await;
    assert_eq!(news, ["entra.refused", "entra.refused", "entra.recovered"]);
    assert_eq!(world.service.without_live_token(), 0);
    nobody_failed(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_role_holds_the_resource_and_is_nobodys_fault() {
    for (status, code) in [(401, "Denied"), (403, "Forbidden")] {
        for count in [1, 50] {
            let told = format!("{status} for {count}");
            let (world, authority) = world(count).await;
            world.service.tokens_live(HOUR);
            world.pass(MINUTE * 20).await;
            world.service.fail(move |_| {
                Some(Fault::Status(
                    status,
                    code,
                    "Denied by the resource provider.",
                ))
            });
            world.service.forget_calls();
            world.pass(MINUTE * 30).await;
            assert_eq!(world.news().await, ["entra.refused"], "{told}");
            let message = world.notices().await.last().unwrap().message.clone();
            assert!(
                message.contains("Give this identity a role"),
                "{told}: {message}"
            );
            assert!(
                world.service.calls().len() < 150,
                "{told}: {}",
                world.service.calls().len()
            );
            assert!(authority.asked() <= 6, "{told}: {}", authority.asked());
            nobody_failed(&world).await;
            world.service.mend();
            world.pass(MINUTE * 6).await;
            assert_eq!(
                world.news().await,
                ["entra.refused", "entra.recovered"],
                "{told}"
            );
            assert_eq!(world.service.without_live_token(), 0, "{told}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_of_keys_that_a_resource_had_are_minted_anew_with_a_bearer() {
    let mut world = World::start(Setting::of(30)).await;
    world.pass(MINUTE).await;
    let by_key = world.record("bot-0000").await.token.unwrap().minted_by;
    let (with_bearer, _) = setting(30, by_secret());
    let with_keys = std::mem::replace(&mut world.setting, with_bearer);
    world.down().await.unwrap();
    world.up().await;
    world.watch_keys().await;
    world.pass(MINUTE).await;
    let minters = async |world: &World| -> std::collections::BTreeSet<String> {
        let records = world.records().await.into_iter();
        records
            .map(|record| record.token.unwrap().minted_by)
            .collect()
    };
    assert_eq!(minters(&world).await, ["entra:me".to_owned()].into());
    assert_eq!(world.news().await, ["tokens.doubtful", "tokens.replaced"]);
    // And back to keys, all of which are refused: what the bearer minted is as good as it was.
    world.down().await.unwrap();
    world.setting = with_keys;
    world.up().await;
    let denied = Fault::Status(401, "Denied", "Denied by the resource provider.");
    world.service.fail(move |_| Some(denied.clone()));
    world.watch_keys().await;
    world.pass(HOUR).await;
    assert_eq!(world.view().doubted.since("entra:me"), None);
    assert!(world.view().doubted.since(&by_key).is_some());
    assert_eq!(minters(&world).await, ["entra:me".to_owned()].into());
    let explanation = world.why("bot-0000").await;
    assert_eq!(explanation.standing, "good");
}

#[tokio::test(start_paused = true)]
async fn what_was_told_of_keys_or_bearers_ends_where_the_other_takes_their_place() {
    let (setting, authority) = setting(5, by_secret());
    let mut world = World::start(setting).await;
    world.service.tokens_live(HOUR);
    world.pass(MINUTE * 10).await;
    authority.fail(AuthorityFault::Silent);
    world.pass(HOUR * 2).await;
    let told = world.news().await.len();
    world.down().await.unwrap();
    let keys = Setting::of(5).resource.credential;
    let entra = std::mem::replace(&mut world.setting.resource.credential, keys);
    let giver = world.setting.giver.take();
    world.up().await;
    world.pass(MINUTE).await;
    let news = world.news().await;
    assert_eq!(news[told..], ["entra.recovered"], "{news:?}");
    let message = world.notices().await.last().unwrap().message.clone();
    assert!(message.contains("access keys"), "{message}");
    let denied = Fault::Status(401, "Denied", "Denied by the resource provider.");
    world.service.fail(move |_| Some(denied.clone()));
    world.pass(HOUR).await;
    let told = world.news().await.len();
    world.down().await.unwrap();
    world.setting.resource.credential = entra;
    world.setting.giver = giver;
    authority.mend();
    world.service.mend();
    world.up().await;
    world.pass(MINUTE * 6).await;
    let news = world.news().await;
    assert!(
        news[told..].contains(&"resource.recovered".to_owned()),
        "{news:?}"
    );
    assert_eq!(world.service.without_live_token(), 0);
}

/// The kinds as the emulator knows them, each with what it counts requests by.
fn kinds(emulator: &Emulator, token_file: &Path) -> Vec<(EntraKind, EntraPart)> {
    let known = emulator.registration();
    let (tenant, client_id) = (known.tenant.clone(), known.client_id.clone());
    let loaded = |secret: Secret| LoadedSecret {
        from: SecretRef::Env("SECRET".to_owned()),
        secret,
    };
    let year = emulator.now() + HOUR * 24 * 365;
    let token = emulator.federated_token(HOUR * 24 * 9).unwrap();
    std::fs::write(token_file, token.expose()).unwrap();
    vec![
        (
            EntraKind::ManagedIdentity { selector: None },
            EntraPart::Imds,
        ),
        (
            EntraKind::WorkloadIdentity {
                tenant: tenant.clone(),
                client_id: client_id.clone(),
                token_file: token_file.to_owned(),
            },
            EntraPart::WorkloadIdentity,
        ),
        (
            EntraKind::ClientSecret {
                tenant: tenant.clone(),
                client_id: client_id.clone(),
                secret: loaded(known.client_secret),
            },
            EntraPart::ClientSecret,
        ),
        (
            EntraKind::ClientCertificate {
                tenant,
                client_id,
                certificate: loaded(emulator.client_certificate(year).unwrap()),
            },
            EntraPart::ClientCertificate,
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn each_kind_lives_for_days_by_bearers_that_are_judged() {
    let dir = tempfile::tempdir().unwrap();
    for at in 0..4 {
        let mut world = World::start(Setting::of(0)).await;
        let options = EmulatorOptions {
            token_alg: TokenAlg::Filler,
            ..EmulatorOptions::default()
        };
        let emulator = Arc::new(Emulator::new(options, world.clock.clone()).unwrap());
        let hour = |controls: &mut EntraControls| controls.lifetime = Some(HOUR);
        emulator.steer_entra(hour);
        let (kind, part) = kinds(&emulator, &dir.path().join("token")).remove(at);
        world.down().await.unwrap();
        let count = 20;
        world.setting = Setting::of(count);
        for spec in &mut world.setting.specs {
            spec.declared.lifetime = HOUR;
        }
        world.setting.resource.credential = credential(kind);
        world.setting.giver = Some(Giver::Emulator(emulator.clone()));
        world.up().await;
        world.pass(HOUR * 24).await;
        // Once a challenge in between, which is answered without anybody's noticing.
        emulator.steer_entra(|controls| controls.challenge = Challenge::UntilAnswered);
        world.pass(HOUR * 12).await;
        let word = part.as_str();
        // A machine's bearers claim nothing, so a challenge to one stands.
        if part != EntraPart::Imds {
            assert_eq!(results(&world), ["ok"], "{word}");
            assert_eq!(world.news().await, Vec::<String>::new(), "{word}");
            // Two an hour; while it is challenged, each is followed by one with the claims.
            let bearers = emulator.bearers();
            let expected = 2 * 36 + 2 * 12;
            assert!(
                (2 * 36..=expected + 4).contains(&bearers),
                "{word}: {bearers} bearers in 36 h"
            );
        }
        let asked = emulator.entra_requests(part);
        assert_eq!(asked.succeeded, emulator.bearers(), "{word}: {asked:?}");
        let minted = world.record("bot-0007").await.token.unwrap().minted_by;
        let known = emulator.registration();
        let client = match part {
            EntraPart::Imds => known.system.client_id,
            _ => known.client_id,
        };
        assert_eq!(minted, format!("entra:{client}"));
        nobody_failed(&world).await;
    }
}
