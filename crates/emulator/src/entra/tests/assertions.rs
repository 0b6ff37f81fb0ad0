//! Assertions in every form that the SDKs send, and those that must not be taken.

use super::*;

/// What an assertion is made of; the default is ours: PS256, `x5t#S256`, whole seconds.
struct Assertion {
    header: Value,
    claims: Value,
}

fn key() -> RsaKeyPair {
    let der = PrivateKeyDer::from_pem_slice(CLIENT_KEY.as_bytes()).unwrap();
    RsaKeyPair::from_pkcs8(der.secret_der()).unwrap()
}

fn sign(text: &str, padding: &'static dyn RsaEncoding) -> Vec<u8> {
    let (key, random) = (key(), SystemRandom::new());
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(padding, &random, text.as_bytes(), &mut signature)
        .unwrap();
    signature
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

impl Assertion {
    fn of(place: &Place, jti: &str) -> Self {
        let now = place.emulator.now().as_second();
        let certificate = place.certificate();
        Self {
            header: json!({"alg": "PS256", "typ": "JWT", "x5t#S256": encode(certificate.sha256)}),
            claims: json!({
                "aud": place.endpoint(),
                "iss": place.registration.client_id,
                "sub": place.registration.client_id,
                "jti": jti,
                "nbf": now, "iat": now, "exp": now + 600,
            }),
        }
    }

    fn header(mut self, name: &str, value: Value) -> Self {
        self.header[name] = value;
        self
    }

    fn claim(mut self, name: &str, value: Value) -> Self {
        self.claims[name] = value;
        self
    }

    fn without(mut self, name: &str) -> Self {
        for object in [&mut self.header, &mut self.claims] {
            object.as_object_mut().unwrap().remove(name);
        }
        self
    }

    fn text(&self) -> String {
        format!(
            "{}.{}",
            encode(self.header.to_string()),
            encode(self.claims.to_string())
        )
    }

    /// RS256 over parts that are all padded.
    fn padded(&self) -> String {
        let encode = |value: &Value| BASE64_URL_SAFE.encode(value.to_string());
        let text = format!("{}.{}", encode(&self.header), encode(&self.claims));
        format!(
            "{text}.{}",
            BASE64_URL_SAFE.encode(sign(&text, &RSA_PKCS1_SHA256))
        )
    }

    fn signed_by(&self, padding: &'static dyn RsaEncoding) -> String {
        let text = self.text();
        format!("{text}.{}", encode(sign(&text, padding)))
    }

    fn ps256(&self) -> String {
        self.signed_by(&RSA_PSS_SHA256)
    }
}

impl Place {
    /// The certificate that the application was registered with last.
    fn certificate(&self) -> Registered {
        self.emulator
            .world()
            .entra
            .certificates
            .last()
            .unwrap()
            .clone()
    }

    /// With a certificate that lives a year.
    fn certified() -> Self {
        let place = place();
        place.control(Method::POST, "entra/certificates", json!({}));
        place
    }

    async fn refused(&self, assertion: &str, why: &str) {
        let said = self.by_assertion(assertion).await;
        let (status, error, reason) = said.refusal();
        assert_eq!((status, error), (401, "invalid_client"), "{reason}");
        assert!(reason.contains(why), "{reason:?} should hold {why:?}");
        assert_eq!(self.emulator.bearers(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn every_form_that_the_sdks_send_is_taken() {
    let place = Place::certified();
    let certificate = place.certificate();
    let ours = Assertion::of(&place, "1");
    // Python: RS256, SHA-1 with padding, fractions of seconds, no nbf.
    let (iat, exp) = (1_795_348_800.25, 1_795_349_400.25);
    let padded = BASE64_URL_SAFE.encode(&certificate.sha1);
    assert!(padded.ends_with('='));
    let python = Assertion::of(&place, "2")
        .without("x5t#S256")
        .without("nbf")
        .header("alg", json!("RS256"))
        .header("x5t", json!(padded))
        .claim("iat", json!(iat))
        .claim("exp", json!(exp));
    // Python's asynchronous client: as that, and every part is padded.
    let aio = Assertion::of(&place, "5")
        .without("x5t#S256")
        .header("alg", json!("RS256"))
        .header("x5t", json!(padded))
        .padded();
    assert!(aio.contains('='));
    let by_kid = Assertion::of(&place, "3")
        .without("x5t#S256")
        .header("kid", json!(hex(&certificate.sha1).to_uppercase()));
    let by_all = Assertion::of(&place, "4")
        .header("x5t", json!(encode(&certificate.sha1)))
        .header("kid", json!(encode(&certificate.sha1)))
        .claim("aud", json!([place.endpoint()]));
    for (name, text) in [
        ("ours", ours.ps256()),
        ("python", python.signed_by(&RSA_PKCS1_SHA256)),
        ("python aio", aio),
        ("kid", by_kid.ps256()),
        ("all names", by_all.ps256()),
    ] {
        let said = place.by_assertion(&text).await;
        assert_eq!(
            said.status,
            200,
            "{name}: {:?}",
            said.headers.get(REASON_HEADER)
        );
        assert_eq!(place.create(said.bearer()).await.status, 201, "{name}");
    }
    assert_eq!(
        place
            .emulator
            .entra_requests(EntraPart::ClientCertificate)
            .succeeded,
        5
    );
}

#[tokio::test(start_paused = true)]
async fn no_two_assertions_have_one_id_and_where_asked_none_comes_twice() {
    let place = Place::certified();
    let text = Assertion::of(&place, "1").ps256();
    assert_eq!(place.by_assertion(&text).await.status, 200);
    assert_eq!(place.by_assertion(&text).await.status, 200);
    place.control(Method::POST, "entra", json!({"assertion_once": true}));
    let again = place.by_assertion(&text).await;
    assert!(again.refusal().2.contains("used before"));
    let other = Assertion::of(&place, "1").claim("nonce", json!(2)).ps256();
    assert!(
        place
            .by_assertion(&other)
            .await
            .refusal()
            .2
            .contains("used before")
    );
    for bad in [
        Assertion::of(&place, ""),
        Assertion::of(&place, "x").without("jti"),
    ] {
        assert!(
            place
                .by_assertion(&bad.ps256())
                .await
                .refusal()
                .2
                .contains("no `jti`")
        );
    }
    pass(1000).await;
    assert!(
        place
            .by_assertion(&text)
            .await
            .refusal()
            .2
            .contains("ended")
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_hold_the_key_is_refused() {
    let place = Place::certified();
    let good = Assertion::of(&place, "1");
    let none = Assertion::of(&place, "1").header("alg", json!("none"));
    place
        .refused(&format!("{}.", none.text()), "`alg` is \"none\"")
        .await;
    // The public key as the secret of an HMAC.
    let confused = Assertion::of(&place, "1").header("alg", json!("HS256"));
    let secret = hmac::Key::new(hmac::HMAC_SHA256, &place.certificate().key);
    let tag = hmac::sign(&secret, confused.text().as_bytes());
    let text = format!("{}.{}", confused.text(), encode(tag));
    place.refused(&text, "`alg` is \"HS256\"").await;
    // One padding named, the other used.
    place
        .refused(
            &good.signed_by(&RSA_PKCS1_SHA256),
            "not by the certificate's key",
        )
        .await;
    let renamed = Assertion::of(&place, "1").header("alg", json!("RS256"));
    place
        .refused(&renamed.ps256(), "not by the certificate's key")
        .await;
    // What is signed is what is sent.
    let signature = good.ps256().rsplit_once('.').unwrap().1.to_owned();
    let longer = Assertion::of(&place, "1").claim("exp", json!(1_795_350_000));
    place
        .refused(
            &format!("{}.{signature}", longer.text()),
            "not by the certificate's key",
        )
        .await;
    place
        .refused(&format!("{}.", good.text()), "not by the certificate's key")
        .await;
    // A key of its own, brought along.
    let own = Assertion::of(&place, "1")
        .without("x5t#S256")
        .header("jwk", json!({"kty": "RSA"}));
    place.refused(&own.ps256(), "none of x5t#S256").await;
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_not_named_right_is_refused() {
    let place = Place::certified();
    let unknown = "names no certificate";
    let zeros = |length| json!(encode(vec![0; length]));
    for (name, value) in [
        ("x5t#S256", zeros(32)),
        ("x5t#S256", zeros(0)),
        ("x5t", zeros(20)),
        ("kid", json!("../../etc/passwd")),
        ("kid", json!("")),
    ] {
        let text = Assertion::of(&place, "1").header(name, value).ps256();
        place.refused(&text, unknown).await;
    }
    let text = Assertion::of(&place, "1").ps256();
    place.control(
        Method::POST,
        "entra/certificates",
        json!({"lives_seconds": 60}),
    );
    place.control(Method::DELETE, "entra/certificates", Value::Null);
    place.refused(&text, unknown).await;
    pass(60).await;
    place
        .refused(&Assertion::of(&place, "1").ps256(), "the certificate ended")
        .await;
}

#[tokio::test(start_paused = true)]
async fn parties_and_times_that_are_wrong_are_refused() {
    let place = Place::certified();
    let now = place.emulator.now().as_second();
    let endpoint = place.endpoint();
    for (name, value, why) in [
        ("sub", json!("somebody"), "`sub`"),
        ("aud", json!(endpoint.replace("https", "http")), "`aud`"),
        ("aud", json!(format!("{endpoint}/")), "`aud`"),
        ("aud", json!([]), "`aud`"),
        (
            "aud",
            json!(endpoint.replace(&place.registration.tenant, "other")),
            "`aud`",
        ),
        ("exp", json!(now - 301), "ended"),
        ("exp", json!(now + 86_402), "ends in"),
        ("exp", json!(1e300), "ends in"),
        ("exp", json!("2099-01-01"), "its payload"),
        ("exp", Value::Null, "its payload"),
        ("nbf", json!(now + 302), "begins in"),
        ("nbf", json!(-1e300), ""),
    ] {
        let text = Assertion::of(&place, "1")
            .claim(name, value.clone())
            .ps256();
        if why.is_empty() {
            assert_eq!(
                place.by_assertion(&text).await.status,
                200,
                "{name} {value}"
            );
        } else {
            place.refused(&text, why).await;
        }
    }
    let other = Assertion::of(&place, "2")
        .claim("iss", json!("somebody"))
        .ps256();
    let said = place.by_assertion(&other).await;
    assert!(said.refusal().2.starts_with("the federated token"));
}

#[tokio::test(start_paused = true)]
async fn what_is_huge_nested_or_no_jwt_is_refused_at_once() {
    let place = Place::certified();
    let good = Assertion::of(&place, "1").ps256();
    let (head, rest) = good.split_once('.').unwrap();
    let nested = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let nested = format!(r#"{{"alg":"PS256","jwk":{nested}}}"#);
    let twice = r#"{"alg":"PS256","alg":"none"}"#;
    let huge = Assertion::of(&place, "1")
        .claim("more", json!("x".repeat(70_000)))
        .ps256();
    let padded = good.clone() + "=";
    #[rustfmt::skip]
    let cases = [
        (huge, ""),
        (format!("{}.{rest}", encode(nested)), "its header"),
        (format!("{}.{rest}", encode(twice)), "its header"),
        (format!("{}.{rest}", encode("[]")), "its header"),
        (format!("{}.{rest}", encode([0xff, 0xfe])), "its header"),
        (format!("{head}?.{rest}"), "its header is not base64url"),
        (padded, "its signature is not base64url"),
        (Assertion::of(&place, "1").header("crit", json!(["b64"])).ps256(), "`crit`"),
        (Assertion::of(&place, "1").header("typ", json!("JOSE")).ps256(), "`typ`"),
        (format!("{good}.{rest}"), "three parts"),
        ("..".to_owned(), ""),
        ("\u{0}".to_owned(), ""),
    ];
    for (text, why) in cases {
        place.refused(&text, why).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_federated_token_is_taken_while_it_lives_as_often_as_it_comes() {
    let place = place();
    let hour = std::time::Duration::from_secs(3600);
    let token = place.emulator.federated_token(hour).unwrap();
    for _ in 0..2 {
        assert_eq!(place.by_assertion(token.expose()).await.status, 200);
    }
    pass(3600 + 301).await;
    let late = place.by_assertion(token.expose()).await;
    assert!(late.refusal().2.contains("ended"));
    let counts = place.emulator.entra_requests(EntraPart::WorkloadIdentity);
    assert_eq!((counts.calls, counts.denied), (3, 1));
    let elsewhere =
        place_with(|options| options.entra.subject = "system:serviceaccount:other:x".to_owned());
    let token = place.emulator.federated_token(hour).unwrap();
    elsewhere
        .refused(token.expose(), "system:serviceaccount:default:renewd")
        .await;
    // A bearer is signed with the same key, and is none.
    let bearer = place.by_secret().await.bearer().to_owned();
    elsewhere.refused(&bearer, "it is of").await;
    let changed = token.expose().replacen("ey", "eY", 2);
    elsewhere.refused(&changed, "").await;
}

#[tokio::test(start_paused = true)]
async fn a_text_that_was_given_is_taken_for_a_federated_token() {
    let text = Secret::new("not a JWT at all".to_owned());
    let place = place_with(|options| options.entra.federated_token = Some(text));
    for text in ["not a JWT at all", "not a JWT at all\n"] {
        assert_eq!(place.by_assertion(text).await.status, 200);
    }
    let said = place.by_assertion("not a JWT at all ").await;
    assert_eq!(said.refusal().0, 401);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_somebody_elses_is_registered() {
    let (one, other) = (Place::certified(), place_with(|options| options.seed = 7));
    let pem = one
        .emulator
        .client_certificate(one.emulator.now() + jiff::Span::new().hours(1));
    let pem = pem.unwrap().expose().to_owned();
    let shown = other.control(Method::POST, "entra/certificates", json!({"pem": pem}));
    let thumbprint = shown["certificates"][0]["thumbprint"].as_str().unwrap();
    assert_eq!(thumbprint, hex(&one.certificate().sha1).to_uppercase());
    assert_eq!(
        other
            .by_assertion(&Assertion::of(&other, "1").ps256())
            .await
            .status,
        200
    );
}
