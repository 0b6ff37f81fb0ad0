//! The metadata services as programs on the machine meet them.

use super::*;

const ACS: &str = "https://communication.azure.com/";

impl Place {
    async fn get(&self, target: &str, headers: &[(&str, &str)]) -> Said {
        let mut request = request("GET", target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Bytes::new()).unwrap()).await
    }

    /// IMDS with one more piece of query.
    pub(super) async fn imds(&self, more: &str) -> Said {
        let target =
            format!("/metadata/identity/oauth2/token?api-version=2018-02-01&resource={ACS}{more}");
        self.get(&target, &[("Metadata", "true")]).await
    }

    async fn arc(&self, headers: &[(&str, &str)]) -> Said {
        let target =
            format!("/metadata/identity/oauth2/token?api-version=2020-06-01&resource={ACS}");
        let headers = [&[("Metadata", "true")], headers].concat();
        self.get(&target, &headers).await
    }
}

#[tokio::test(start_paused = true)]
async fn imds_answers_with_and_without_a_slash_and_writes_numbers_as_strings() {
    let place = place();
    for (path, version) in [
        ("/metadata/identity/oauth2/token", "2018-02-01"),
        ("/metadata/identity/oauth2/token/", "2019-08-01"),
    ] {
        let target = format!(
            "{path}?resource=https%3A%2F%2Fcommunication.azure.com%2F&api-version={version}"
        );
        let said = place.get(&target, &[("metadata", "True")]).await;
        assert_eq!(place.create(said.bearer()).await.status, 201, "{path}");
        assert_eq!(said.body["expires_in"], "86400");
        assert_eq!(
            said.body["expires_on"],
            (1_795_348_800 + 86_400).to_string()
        );
        assert_eq!(said.body["not_before"], 1_795_348_800.to_string());
        assert_eq!(said.body["resource"], ACS);
        assert_eq!(said.body["client_id"], place.registration.system.client_id);
    }
    let entry = place.control(
        Method::GET,
        "requests?limit=1&operation=create",
        Value::Null,
    );
    let caller = format!("entra:{}", place.registration.system.client_id);
    assert_eq!(entry["requests"][0]["key"], caller);
}

#[tokio::test(start_paused = true)]
async fn imds_refuses_what_is_asked_wrongly() {
    let place = place();
    let path = "/metadata/identity/oauth2/token";
    let good = format!("{path}?api-version=2018-02-01&resource={ACS}");
    let metadata = ("metadata", "true");
    let forwarded = ("x-forwarded-for", "10.0.0.1");
    #[rustfmt::skip]
    let cases: [(String, &[(&str, &str)]); 8] = [
        (good.clone(), &[]),
        (good.clone(), &[("metadata", "yes")]),
        (good.clone(), &[metadata, forwarded]),
        (format!("{path}?resource={ACS}"), &[metadata]),
        (format!("{path}?api-version=2017-01-01&resource={ACS}"), &[metadata]),
        (format!("{path}?api-version=2018-02-01"), &[metadata]),
        (format!("{good}&resource={ACS}"), &[metadata]),
        (format!("{good}&client_id=a&object_id=b"), &[metadata]),
    ];
    for (target, headers) in cases {
        let said = place.get(&target, headers).await;
        assert_eq!(
            (said.refusal().0, said.refusal().1),
            (400, "invalid_request"),
            "{target}"
        );
    }
    let said = place.imds(".evil.example").await;
    assert_eq!(
        (said.refusal().0, said.refusal().1),
        (400, "invalid_resource")
    );
    for method in ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"] {
        let request = request(method, &good).header("metadata", "true");
        let said = place.send(request.body(Bytes::new()).unwrap()).await;
        assert_eq!(said.status, 405, "{method}");
    }
    assert_eq!(place.emulator.bearers(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_identity_is_picked_by_client_object_or_resource() {
    let place = place();
    let assigned = place.registration.assigned.clone();
    let resource_id = assigned.resource_id.as_deref().unwrap();
    let upper = assigned.client_id.to_uppercase();
    for selector in [
        format!("&client_id={}", assigned.client_id),
        format!("&client_id={upper}"),
        format!("&object_id={}", assigned.object_id),
        format!("&msi_res_id={resource_id}"),
        format!("&mi_res_id={}", resource_id.to_uppercase()),
    ] {
        let said = place.imds(&selector).await;
        assert_eq!(said.body["client_id"], assigned.client_id, "{selector}");
    }
    let unknown = |said: &Said| {
        assert_eq!(said.refusal().0, 400);
        assert_eq!(said.body["error"], "invalid_request");
        assert_eq!(said.body["error_description"], "Identity not found");
    };
    unknown(
        &place
            .imds("&client_id=00000000-0000-0000-0000-000000000000")
            .await,
    );
    let steer = |machine| {
        place
            .emulator
            .steer_entra(|controls| controls.machine = machine)
    };
    steer(Machine::None);
    unknown(&place.imds("").await);
    steer(Machine::System);
    unknown(
        &place
            .imds(&format!("&client_id={}", assigned.client_id))
            .await,
    );
    steer(Machine::Assigned);
    assert_eq!(
        place.imds("").await.body["client_id"],
        assigned.client_id,
        "the only one"
    );
    unknown(
        &place
            .imds(&format!(
                "&client_id={}",
                place.registration.system.client_id
            ))
            .await,
    );
}

/// With the key files of Arc in a folder of its own.
fn arc(name: &str) -> (Place, PathBuf) {
    let folder = std::env::temp_dir().join(format!("renewd-arc-{name}-{}", std::process::id()));
    let place = place_with(|options| options.entra.arc_folder.clone_from(&folder));
    (place, folder)
}

#[tokio::test(start_paused = true)]
async fn arc_gives_a_bearer_to_whoever_reads_the_file_that_it_names() {
    let (place, folder) = arc("reads");
    let said = place.arc(&[]).await;
    assert_eq!(said.status, 401);
    let realm = said.headers[WWW_AUTHENTICATE].to_str().unwrap().to_owned();
    let file = PathBuf::from(realm.strip_prefix("Basic realm=").unwrap());
    assert_eq!(file.parent(), Some(folder.as_path()));
    assert_eq!(file.extension().unwrap(), "key");
    let key = std::fs::read_to_string(&file).unwrap();
    let said = place
        .arc(&[("authorization", &format!("Basic {key}"))])
        .await;
    assert_eq!(place.create(said.bearer()).await.status, 201);
    assert_eq!(said.body["expires_in"], "86400");
    for wrong in [
        "Basic x".to_owned(),
        format!("Bearer {key}"),
        key.clone(),
        "Basic ".to_owned(),
    ] {
        let said = place.arc(&[("authorization", &wrong)]).await;
        assert_eq!(said.refusal().0, 401, "{wrong}");
        assert!(!said.headers.contains_key(WWW_AUTHENTICATE));
    }
    for _ in 0..20 {
        place.arc(&[]).await;
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 8);
    let said = place
        .arc(&[("authorization", &format!("Basic {key}"))])
        .await;
    assert_eq!(said.status, 401, "its file is gone");
    assert_eq!(place.emulator.entra_requests(EntraPart::Arc).succeeded, 1);
    drop(place);
    assert!(!folder.exists(), "what it made goes with it");
}

#[tokio::test(start_paused = true)]
async fn arc_names_another_file_where_it_is_told_to_and_says_where_it_cannot_write() {
    let (place, folder) = arc("names");
    place.control(Method::POST, "entra", json!({"realm": "/etc/shadow"}));
    let said = place.arc(&[]).await;
    assert_eq!(said.headers[WWW_AUTHENTICATE], "Basic realm=/etc/shadow");
    assert!(!folder.exists());
    let inside_a_file = PathBuf::from("/proc/version/tokens");
    let place = place_with(|options| options.entra.arc_folder = inside_a_file);
    let said = place.arc(&[]).await;
    assert_eq!(said.refusal().0, 500);
    assert!(
        said.refusal()
            .2
            .contains("cannot write /proc/version/tokens")
    );
}

#[tokio::test(start_paused = true)]
async fn app_service_wants_its_header() {
    let place = place();
    let target = format!("/msi/token?api-version=2019-08-01&resource={ACS}");
    let header = place.registration.identity_header.clone();
    let header = ("x-identity-header", header.expose());
    let said = place.get(&target, &[header]).await;
    assert_eq!(place.create(said.bearer()).await.status, 201);
    assert_eq!(
        said.body["expires_on"],
        (1_795_348_800 + 86_400).to_string()
    );
    assert_eq!(said.body.get("expires_in"), None);
    assert_eq!(place.get(&target, &[]).await.status, 401);
    assert_eq!(
        place
            .get(&target, &[("x-identity-header", "x")])
            .await
            .status,
        401
    );
    let other = target.replace("2019-08-01", "2017-09-01");
    let said = place.get(&other, &[header]).await;
    assert_eq!((said.status, &said.body["statusCode"]), (400, &json!(400)));
}
