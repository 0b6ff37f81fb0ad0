//! Tokens: minted, and remembered.
//!
//! Makes tokens: compact JWS with the claims of the real ones, in their order.
//!
//! They are signed with keys that everybody can read in this very folder: a signature proves that
//! an emulator made the token, nothing else.
//!
//! Every token that was issued, by its hash: the emulator knows which are live without a signature.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use jiff::Timestamp;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use ring::{
    digest,
    rand::SystemRandom,
    rsa::PublicKeyComponents,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::access_keys::KeyStamp;
use renewd_acs_wire::{Secret, hex};

const RS256_KEY: &str = include_str!("test_keys/rs256.pem");
const ES256_KEY: &str = include_str!("test_keys/es256.pem");
/// The key of the certificates that are made for clients, PKCS #8.
pub(super) const CLIENT_KEY: &str = include_str!("test_keys/client.pem");
/// The size of an RS256 signature with 2048 bits, which a filler has too.
const FILLER: usize = 256;

/// How tokens are signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TokenAlg {
    /// As the service does; one signature costs about 0.7 ms of CPU.
    #[default]
    Rs256,
    /// Much cheaper, and verifiable.
    Es256,
    /// Random bytes of the size of an RS256 signature: for load, known only by the emulator's
    /// state.
    Filler,
}

impl std::str::FromStr for TokenAlg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "rs256" => Ok(Self::Rs256),
            "es256" => Ok(Self::Es256),
            "filler" => Ok(Self::Filler),
            other => Err(format!("{other:?} is none of rs256, es256, filler")),
        }
    }
}

/// The built-in test key cannot be used; a defect of the build.
#[derive(Debug, thiserror::Error)]
#[error("the emulator's built-in test key for {0} cannot be used")]
pub struct KeyError(&'static str);

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    /// The id without its `8:`.
    pub(super) skypeid: String,
    /// A constant of the service.
    scp: u32,
    /// `iat` as text.
    csi: String,
    pub(super) exp: i64,
    rgn: String,
    #[serde(rename = "acsScope")]
    acs_scope: String,
    #[serde(rename = "resourceId")]
    pub(super) resource_id: String,
    #[serde(rename = "resourceLocation")]
    resource_location: String,
    pub(super) iat: i64,
    /// Not a claim of the service: only on a second token of the same second, which would otherwise
    /// be the same text as the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
}

impl Claims {
    pub(super) fn new(id: &str, resource: &str, scopes: &[String], iat: i64, exp: i64) -> Self {
        Self {
            skypeid: id.strip_prefix("8:").unwrap_or(id).to_owned(),
            scp: 1792,
            csi: iat.to_string(),
            exp,
            rgn: "amer".to_owned(),
            acs_scope: scopes.join(","),
            resource_id: resource.to_owned(),
            resource_location: "unitedstates".to_owned(),
            iat,
            seq: None,
        }
    }

    /// Told apart from another token with the same claims.
    pub(super) fn numbered(mut self, seq: Option<u64>) -> Self {
        self.seq = seq;
        self
    }
}

#[derive(Debug)]
pub(super) struct Mint {
    key: SigningKey,
    /// The encoded header and the dot after it.
    head: String,
}

#[derive(Debug)]
enum SigningKey {
    Rs256(Box<RsaKeyPair>),
    Es256(Box<EcdsaKeyPair>),
    Filler,
}

impl Mint {
    pub(super) fn new(alg: TokenAlg) -> Result<Self, KeyError> {
        let (key, word, thumbprint) = match alg {
            TokenAlg::Rs256 => {
                let pair = rsa()?;
                let thumbprint = thumbprint(pair.public_key().as_ref());
                (SigningKey::Rs256(Box::new(pair)), "RS256", thumbprint)
            }
            TokenAlg::Es256 => {
                let pair = ecdsa()?;
                let thumbprint = thumbprint(pair.public_key().as_ref());
                (SigningKey::Es256(Box::new(pair)), "ES256", thumbprint)
            }
            TokenAlg::Filler => (SigningKey::Filler, "RS256", vec![0; 20]),
        };
        let header = format!(
            r#"{{"alg":"{word}","kid":"{}","x5t":"{}","typ":"JWT"}}"#,
            upper_hex(&thumbprint),
            BASE64_URL_SAFE_NO_PAD.encode(&thumbprint)
        );
        let head = format!("{}.", BASE64_URL_SAFE_NO_PAD.encode(header));
        Ok(Self { key, head })
    }

    /// A token; `nonce` is what a filler is made of.
    pub(super) fn sign(
        &self,
        claims: &impl Serialize,
        nonce: [u8; 32],
    ) -> Result<Secret, KeyError> {
        let mut text = String::with_capacity(1024);
        text.push_str(&self.head);
        let payload = serde_json::to_string(claims).map_err(|_| KeyError("claims"))?;
        BASE64_URL_SAFE_NO_PAD.encode_string(payload, &mut text);
        let signature = match &self.key {
            SigningKey::Rs256(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(
                    &RSA_PKCS1_SHA256,
                    &SystemRandom::new(),
                    text.as_bytes(),
                    &mut signature,
                )
                .map_err(|_| KeyError("RS256"))?;
                signature
            }
            SigningKey::Es256(pair) => pair
                .sign(&SystemRandom::new(), text.as_bytes())
                .map_err(|_| KeyError("ES256"))?
                .as_ref()
                .to_vec(),
            SigningKey::Filler => {
                let mut rng = ChaCha8Rng::from_seed(nonce);
                (0..FILLER).map(|_| rng.random::<u8>()).collect()
            }
        };
        text.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut text);
        Ok(Secret::new(text))
    }

    /// The claims of a token that an emulator like this one made; `None` where the signature is not
    /// that of the test key. A filler's signature proves nothing and is not looked at.
    pub(super) fn read<T: DeserializeOwned>(&self, token: &str) -> Option<T> {
        let (signed, signature) = token.rsplit_once('.')?;
        let payload = signed.strip_prefix(&self.head)?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        match &self.key {
            SigningKey::Rs256(pair) => {
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key())
                    .verify(signed.as_bytes(), &signature)
                    .ok()?;
            }
            SigningKey::Es256(pair) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key())
                    .verify(signed.as_bytes(), &signature)
                    .ok()?;
            }
            SigningKey::Filler => {}
        }
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }
}

/// Both public test keys as a JSON Web Key Set.
pub(super) fn jwks() -> Result<Value, KeyError> {
    let rsa = rsa()?;
    let ecdsa = ecdsa()?;
    let url = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let numbers: PublicKeyComponents<Vec<u8>> = rsa.public().into();
    let print = thumbprint(rsa.public_key().as_ref());
    let point = ecdsa.public_key().as_ref();
    let ec_print = thumbprint(point);
    Ok(json!({"keys": [
        {
            "kty": "RSA", "use": "sig", "alg": "RS256",
            "kid": upper_hex(&print), "x5t": url(&print),
            "n": url(&numbers.n),
            "e": url(&numbers.e),
        },
        {
            "kty": "EC", "use": "sig", "alg": "ES256", "crv": "P-256",
            "kid": upper_hex(&ec_print), "x5t": url(&ec_print),
            // The point is 0x04, x, y.
            "x": url(&point[1..33]), "y": url(&point[33..65]),
        },
    ]}))
}

fn rsa() -> Result<RsaKeyPair, KeyError> {
    RsaKeyPair::from_pkcs8(&der(RS256_KEY)).map_err(|_| KeyError("RS256"))
}

fn ecdsa() -> Result<EcdsaKeyPair, KeyError> {
    EcdsaKeyPair::from_pkcs8(
        &ECDSA_P256_SHA256_FIXED_SIGNING,
        &der(ES256_KEY),
        &SystemRandom::new(),
    )
    .map_err(|_| KeyError("ES256"))
}

/// What stands between the lines of a PEM file.
fn der(pem: &str) -> Vec<u8> {
    let body: String = pem
        .lines()
        .skip_while(|line| !line.starts_with("-----BEGIN"))
        .filter(|line| !line.starts_with("-----"))
        .collect();
    BASE64_STANDARD.decode(body).unwrap_or_default()
}

/// The service names its keys by the SHA-1 of their certificate; ours have none, so it is that of
/// the public key.
fn thumbprint(public_key: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, public_key)
        .as_ref()
        .to_vec()
}

fn upper_hex(bytes: &[u8]) -> String {
    hex(bytes).to_uppercase()
}

/// What is known of one token.
#[derive(Debug, Clone)]
pub(super) struct TokenFacts {
    pub(super) owner: Arc<str>,
    pub(super) expires_at: Timestamp,
    /// The key that asked for it; none where a bearer did.
    pub(super) key: Option<KeyStamp>,
    /// Its place in the order of everything that happened, finer than any clock.
    pub(super) sequence: u64,
}

/// Tokens that are remembered; the oldest are forgotten first.
const REMEMBERED: usize = 500_000;

type Fingerprint = [u8; 16];

#[derive(Debug, Default)]
pub(super) struct TokenBook {
    facts: HashMap<Fingerprint, TokenFacts>,
    order: VecDeque<Fingerprint>,
}

impl TokenBook {
    pub(super) fn record(&mut self, token: &str, facts: TokenFacts) {
        let fingerprint = fingerprint(token);
        if self.facts.insert(fingerprint, facts).is_none() {
            self.order.push_back(fingerprint);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.facts.remove(&oldest);
        }
    }

    pub(super) fn find(&self, token: &str) -> Option<&TokenFacts> {
        self.facts.get(&fingerprint(token))
    }
}

fn fingerprint(token: &str) -> Fingerprint {
    let digest = Sha256::digest(token.as_bytes());
    let mut short = Fingerprint::default();
    short.copy_from_slice(&digest[..16]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        let scopes = ["chat".to_owned(), "voip".to_owned()];
        Claims::new("8:acs:r_u", "r", &scopes, 1_755_818_174, 1_755_821_774)
    }

    fn payload(token: &Secret) -> String {
        let part = token.expose().split('.').nth(1).unwrap();
        String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    #[test]
    fn claims_are_the_services_in_its_order() {
        let token = Mint::new(TokenAlg::Rs256)
            .unwrap()
            .sign(&claims(), [0; 32])
            .unwrap();
        assert_eq!(
            payload(&token),
            r#"{"skypeid":"acs:r_u","scp":1792,"csi":"1755818174","exp":1755821774,"rgn":"amer","acsScope":"chat,voip","resourceId":"r","resourceLocation":"unitedstates","iat":1755818174}"#
        );
    }

    #[test]
    fn every_algorithm_makes_what_it_can_read() {
        for alg in [TokenAlg::Rs256, TokenAlg::Es256, TokenAlg::Filler] {
            let mint = Mint::new(alg).unwrap();
            let token = mint.sign(&claims(), [7; 32]).unwrap();
            assert_eq!(mint.read(token.expose()), Some(claims()), "{alg:?}");
        }
    }

    #[test]
    fn a_changed_token_is_not_read() {
        for alg in [TokenAlg::Rs256, TokenAlg::Es256] {
            let mint = Mint::new(alg).unwrap();
            let token = mint.sign(&claims(), [7; 32]).unwrap();
            let other = mint.sign(&claims().numbered(Some(1)), [7; 32]).unwrap();
            let signature = token.expose().rsplit_once('.').unwrap().1;
            let signed = other.expose().rsplit_once('.').unwrap().0;
            assert_eq!(
                mint.read::<Claims>(&format!("{signed}.{signature}")),
                None,
                "{alg:?}"
            );
        }
    }

    #[test]
    fn a_filler_has_the_size_of_the_real_thing() {
        let size = |alg| {
            let token = Mint::new(alg).unwrap().sign(&claims(), [7; 32]).unwrap();
            token.expose().len()
        };
        assert_eq!(size(TokenAlg::Filler), size(TokenAlg::Rs256));
    }

    #[test]
    fn the_payload_can_be_read_with_the_standard_alphabet() {
        let mint = Mint::new(TokenAlg::Filler).unwrap();
        for n in 0..200 {
            let claims = claims().numbered(Some(n));
            let token = mint.sign(&claims, [7; 32]).unwrap();
            let part = token.expose().split('.').nth(1).unwrap().to_owned();
            assert!(!part.contains(['-', '_']), "{part}");
        }
    }
}
