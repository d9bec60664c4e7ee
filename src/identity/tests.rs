//! Tests with tokens signed by ring, with the published tokens of RFC 7515 and RFC 8037, and with tokens that must be
//! rejected.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use ring::{hmac, signature};

use super::der::{PublicKey, public_key_info};
use super::jwt::{JwtError, MAX_TOKEN_BYTES, Verifier};
use super::key_error::KeyFault;
use super::keys;
use super::verifying_key::{Algorithm, VerifyingKey};
use super::{fixtures, pem};

mod claims;

const SECRET: &[u8] = b"what only the two of us know, really";
const NOW: u64 = 1_800_000_000;
const ALGORITHMS: [Algorithm; 4] = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa, Algorithm::Hs256];

fn der(text: &str) -> Vec<u8> {
    pem::sections(text).unwrap().remove(0).content.unwrap()
}

fn sign(algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
    let random = SystemRandom::new();
    match algorithm {
        Algorithm::Rs256 => {
            let pair = RsaKeyPair::from_pkcs8(&der(fixtures::RSA_PRIVATE)).unwrap();
            let mut made = vec![0; pair.public().modulus_len()];
            pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut made).unwrap();
            made
        }
        Algorithm::Es256 => {
            let key = der(fixtures::P256_PRIVATE);
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key, &random).unwrap();
            pair.sign(&random, message).unwrap().as_ref().to_vec()
        }
        Algorithm::EdDsa => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der(fixtures::ED25519_PRIVATE)).unwrap();
            pair.sign(message).as_ref().to_vec()
        }
        Algorithm::Hs256 => hmac(SECRET, message),
    }
}

fn hmac(secret: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
}

fn key(algorithm: Algorithm) -> VerifyingKey {
    let file = match algorithm {
        Algorithm::Rs256 => fixtures::RSA_PUBLIC,
        Algorithm::Es256 => fixtures::P256_PUBLIC,
        Algorithm::EdDsa => fixtures::ED25519_PUBLIC,
        Algorithm::Hs256 => return keys::shared_secret(SECRET).unwrap(),
    };
    keys::parse(file.as_bytes()).unwrap().remove(0)
}

/// Builds a token with this header and these claims; `sign` gets the bytes to sign.
fn token_by(header: &str, claims: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let signature = URL_SAFE_NO_PAD.encode(sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn token(algorithm: Algorithm, claims: &str) -> String {
    token_by(&format!(r#"{{"alg":"{algorithm}"}}"#), claims, |message| sign(algorithm, message))
}

/// Verifies a token with these keys and no other requirements.
fn outcome(keys: &[VerifyingKey], token: &str) -> Result<(), JwtError> {
    Verifier::new(keys.to_vec(), None, None).requiring_expiry(false).verify(token.as_bytes(), NOW).map(drop)
}

/// The examples of RFC 7515 A.1 to A.3 and RFC 8037 A.4. The last one signs no claims set, which is detected only after
/// its signature has been verified.
#[test]
fn published_examples() {
    let parsed = |jwk: &str| keys::parse(jwk.as_bytes()).unwrap();
    let secret = URL_SAFE_NO_PAD.decode(fixtures::RFC_7515_A1_SECRET).unwrap();
    for (keys, header, signature) in [
        (
            vec![keys::shared_secret(&secret).unwrap()],
            "{\"typ\":\"JWT\",\r\n \"alg\":\"HS256\"}",
            fixtures::RFC_7515_A1,
        ),
        (parsed(fixtures::RFC_7515_A2_KEY), r#"{"alg":"RS256"}"#, fixtures::RFC_7515_A2),
        (parsed(fixtures::RFC_7515_A3_KEY), r#"{"alg":"ES256"}"#, fixtures::RFC_7515_A3),
    ] {
        let claims = "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}";
        let token = token_by(header, claims, |_| URL_SAFE_NO_PAD.decode(signature).unwrap());
        let verifier = Verifier::new(keys, Some("joe".to_owned()), None);
        let read = verifier.verify(token.as_bytes(), 1_300_819_379).unwrap();
        assert_eq!(read.text("http://example.com/is_root").as_deref(), Some("true"));
        assert_eq!(verifier.verify(token.as_bytes(), NOW).err(), Some(JwtError::Expired));
    }
    let (key, token) = (parsed(fixtures::RFC_8037_A4_KEY), fixtures::RFC_8037_A4);
    assert_eq!(outcome(&key, token), Err(JwtError::Malformed));
    assert_eq!(outcome(&key, &token.replace("hgyY", "hgyX")), Err(JwtError::Signature));
}

#[test]
fn each_algorithm_by_its_own_key_only() {
    for signing in ALGORITHMS {
        for holding in ALGORITHMS {
            let wanted = if signing == holding { Ok(()) } else { Err(JwtError::Algorithm) };
            assert_eq!(outcome(&[key(holding)], &token(signing, "{}")), wanted, "{signing} {holding}");
            // The header names the key's algorithm, but the signature is of another.
            if signing != holding {
                let header = format!(r#"{{"alg":"{holding}"}}"#);
                let lying = token_by(&header, "{}", |message| sign(signing, message));
                assert_eq!(outcome(&[key(holding)], &lying), Err(JwtError::Signature), "{signing} {holding}");
            }
        }
        assert_eq!(outcome(&ALGORITHMS.map(key), &token(signing, "{}")), Ok(()), "{signing}");
        assert_eq!(outcome(&[], &token(signing, "{}")), Err(JwtError::Algorithm));
    }
}

/// RFC 8725 2.1: the public part of an RSA key must not verify an HMAC, in whatever encoding.
#[test]
fn a_public_key_is_no_secret() {
    let spki = der(fixtures::RSA_PUBLIC);
    let pkcs1 = der(fixtures::RSA_PKCS1);
    for public in [
        fixtures::RSA_PUBLIC.as_bytes(),
        fixtures::RSA_PUBLIC.trim_end().as_bytes(),
        fixtures::RSA_PKCS1.as_bytes(),
        fixtures::RSA_CERTIFICATE.as_bytes(),
        &spki,
        &pkcs1,
        b"",
    ] {
        let forged = token_by(r#"{"alg":"HS256"}"#, "{}", |message| hmac(public, message));
        assert_eq!(outcome(&[key(Algorithm::Rs256)], &forged), Err(JwtError::Algorithm));
        let both = [key(Algorithm::Rs256), key(Algorithm::Hs256)];
        assert_eq!(outcome(&both, &forged), Err(JwtError::Signature));
    }
}

#[test]
fn headers() {
    for (header, wanted) in [
        (r#"{"alg":"HS256"}"#, Ok(())),
        (
            r#"{"typ":"JWT","alg":"HS256","cty":"x","jwk":{"kty":"oct"},"jku":"https://x","unheard":[1]}"#,
            Ok(()),
        ),
        (r#"{"alg":"none"}"#, Err(JwtError::Algorithm)),
        (r#"{"alg":"None"}"#, Err(JwtError::Algorithm)),
        (r#"{"alg":""}"#, Err(JwtError::Algorithm)),
        (r#"{"alg":"hs256"}"#, Err(JwtError::Algorithm)),
        (r#"{"alg":"HS256 "}"#, Err(JwtError::Algorithm)),
        (r#"{"alg":"HS512"}"#, Err(JwtError::Algorithm)),
        (r#"{"alg":"PS256"}"#, Err(JwtError::Algorithm)),
        (r#"{"alg":["HS256"]}"#, Err(JwtError::Malformed)),
        (r#"{"alg":null}"#, Err(JwtError::Malformed)),
        (r#"{"typ":"JWT"}"#, Err(JwtError::Malformed)),
        (r#"{"alg":"HS256","kid":"any"}"#, Ok(())),
        (r#"{"alg":"HS256","kid":7}"#, Err(JwtError::Malformed)),
        (r#"{"alg":"HS256","kid":null}"#, Err(JwtError::Malformed)),
        (r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, Err(JwtError::Critical)),
        (r#"{"alg":"HS256","crit":[]}"#, Err(JwtError::Critical)),
        (r#"{"alg":"HS256","crit":null}"#, Err(JwtError::Critical)),
        (r#"{"alg":"none","alg":"HS256"}"#, Err(JwtError::Duplicate)),
        (r#"{"alg":"HS256","\u0061lg":"HS256"}"#, Err(JwtError::Duplicate)),
        (r#"["alg"]"#, Err(JwtError::Malformed)),
        ("", Err(JwtError::Malformed)),
    ] {
        let made = token_by(header, "{}", |message| hmac(SECRET, message));
        assert_eq!(outcome(&[key(Algorithm::Hs256)], &made), wanted, "{header}");
    }
    let unsigned = token_by(r#"{"alg":"none"}"#, "{}", |_| Vec::new());
    assert_eq!(outcome(&ALGORITHMS.map(key), &unsigned), Err(JwtError::Algorithm));
}

#[test]
fn key_ids() {
    let other = || keys::shared_secret(b"another secret of thirty-two bytes, or more").unwrap();
    let named = |key: VerifyingKey, kid: &str| key.named(Some(kid.to_owned()));
    let own = || key(Algorithm::Hs256);
    for (kid, keys, wanted) in [
        ("a", vec![named(own(), "a")], Ok(())),
        ("a", vec![named(own(), "b")], Err(JwtError::UnknownKey)),
        ("A", vec![named(own(), "a")], Err(JwtError::UnknownKey)),
        ("", vec![named(own(), "a")], Err(JwtError::UnknownKey)),
        ("a", vec![named(other(), "a"), named(own(), "b")], Err(JwtError::Signature)),
        ("a", vec![named(other(), "a"), named(own(), "a")], Ok(())),
        ("a", vec![named(other(), "a"), own()], Ok(())),
        ("a", vec![named(key(Algorithm::Rs256), "a")], Err(JwtError::Algorithm)),
        ("a", vec![named(key(Algorithm::Rs256), "a"), named(own(), "b")], Err(JwtError::UnknownKey)),
    ] {
        let header = format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#);
        let made = token_by(&header, "{}", |message| hmac(SECRET, message));
        assert_eq!(outcome(&keys, &made), wanted, "{kid} {keys:?}");
    }
    let many = [named(other(), "a"), other(), named(own(), "b")];
    assert_eq!(outcome(&many, &token(Algorithm::Hs256, "{}")), Ok(()));
    assert_eq!(outcome(&many[..2], &token(Algorithm::Hs256, "{}")), Err(JwtError::Signature));
}

#[test]
fn forms() {
    let keys = [key(Algorithm::EdDsa)];
    let good = token(Algorithm::EdDsa, r#"{"sub":"x"}"#);
    let parts: Vec<&str> = good.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("{good}") };
    assert_eq!(outcome(&keys, &good), Ok(()));
    for form in [
        "".to_owned(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        format!("{header}.{claims}"),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{signature}"),
        format!("{header}..{claims}.{signature}"),
        format!("{good}=="),
        format!("{header}=.{claims}.{signature}"),
        format!("{header}.{claims}=.{signature}"),
        format!("{good}\n"),
        format!(" {good}"),
        format!("{header}.{claims}.{}", signature.replace(['-', '_'], "+")) + "+",
        format!("{header}\r\n.{claims}.{signature}"),
        format!("{header}.{claims}.{signature}AAA"),
    ] {
        assert_eq!(outcome(&keys, &form), Err(JwtError::Malformed), "{form}");
    }
    assert_eq!(outcome(&keys, &format!("{header}.{claims}.")), Err(JwtError::Signature));
    assert_eq!(outcome(&keys, &format!("{header}.{claims}.{}", &signature[..84])), Err(JwtError::Signature));
}

#[test]
fn lengths() {
    let padded = |length: usize| token(Algorithm::Hs256, &format!(r#"{{"a":"{}"}}"#, "x".repeat(length)));
    let frame = padded(0).len();
    // Three bytes become four characters in base64.
    let max_length = padded((MAX_TOKEN_BYTES - frame) / 4 * 3);
    let longer = padded((MAX_TOKEN_BYTES - frame) / 4 * 3 + 3);
    assert!(max_length.len() <= MAX_TOKEN_BYTES && longer.len() > MAX_TOKEN_BYTES);
    assert_eq!(outcome(&[key(Algorithm::Hs256)], &max_length), Ok(()));
    assert_eq!(outcome(&[key(Algorithm::Hs256)], &longer), Err(JwtError::TooLong));
}

/// The last character has unused bits. If they were ignored, up to sixteen texts would be the same token.
#[test]
fn the_last_character_has_one_spelling() {
    for algorithm in ALGORITHMS {
        let good = token(algorithm, "{}");
        let keys = [key(algorithm)];
        let spellings: Vec<u8> = (0..=255)
            .filter(|last| {
                let mut bytes = good.clone().into_bytes();
                *bytes.last_mut().unwrap() = *last;
                Verifier::new(keys.to_vec(), None, None).requiring_expiry(false).verify(&bytes, NOW).is_ok()
            })
            .collect();
        assert_eq!(spellings, good.as_bytes()[good.len() - 1..], "{algorithm}");
    }
}

/// RFC 7518 6.3.1.1 forbids leading zeros but notes that they occur. The key is the same and no longer.
#[test]
fn a_leading_zero_is_no_digit() {
    let info = der(fixtures::RSA_PUBLIC);
    let Some(PublicKey::Rsa { n, e }) = public_key_info(&info) else { panic!("an RSA key") };
    let padded = |number: &[u8]| URL_SAFE_NO_PAD.encode([&[0], number].concat());
    let jwk = |n: &[u8]| format!(r#"{{"kty":"RSA","n":"{}","e":"{}"}}"#, padded(n), padded(e));
    let keys = keys::parse(jwk(n).as_bytes()).unwrap();
    assert_eq!(outcome(&keys, &token(Algorithm::Rs256, "{}")), Ok(()));
    let short = keys::parse(jwk(&n[..255]).as_bytes());
    assert_eq!(short.err(), Some(KeyFault::RsaSize(2040).into()));
}

/// JWS does not allow a DER signature as openssl makes it (RFC 7518 3.4).
#[test]
fn ecdsa_signatures_are_of_fixed_length() {
    let made = token_by(r#"{"alg":"ES256"}"#, "{}", |message| {
        let algorithm = &signature::ECDSA_P256_SHA256_ASN1_SIGNING;
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, &der(fixtures::P256_PRIVATE), &random).unwrap();
        pair.sign(&random, message).unwrap().as_ref().to_vec()
    });
    assert_eq!(outcome(&[key(Algorithm::Es256)], &made), Err(JwtError::Signature));
}

#[test]
fn no_byte_may_be_any_other() {
    let good = token(Algorithm::Hs256, r#"{"sub":"somebody"}"#).into_bytes();
    let verifier = Verifier::new(vec![key(Algorithm::Hs256)], None, None).requiring_expiry(false);
    for at in 0..good.len() {
        for change in 1..=255 {
            let mut bytes = good.clone();
            bytes[at] ^= change;
            assert!(verifier.verify(&bytes, NOW).is_err(), "{at} {change}");
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), now: u64) {
        let verifier = Verifier::new(ALGORITHMS.map(key).to_vec(), None, None).requiring_expiry(false);
        prop_assert!(verifier.verify(&bytes, now).is_err());
    }

    #[test]
    fn any_three_parts_are_refused(
        header in r#"\{("(alg|kid|crit)":("(HS256|ES256|none)"|[0-9]|null),?){0,2}\}"#,
        claims in ".{0,30}",
        signature: Vec<u8>,
    ) {
        let made = token_by(&header, &claims, |_| signature.clone());
        prop_assert!(outcome(&ALGORITHMS.map(key), &made).is_err());
    }

    #[test]
    fn signed_claims_are_read_or_refused(
        claims in r#"\{("([abc.]{1,3}|exp|nbf)":("[^"]?"|-?[0-9.]{1,3}|\{"[ab]":1\}|null),?){0,3}\}?"#,
        now: u64,
        name in "[abc.]{0,6}",
    ) {
        let made = token(Algorithm::Hs256, &claims);
        let verifier = Verifier::new(vec![key(Algorithm::Hs256)], None, None).requiring_expiry(false);
        if let Ok(read) = verifier.verify(made.as_bytes(), now) {
            let _ = read.text(&name);
        }
    }

    #[test]
    fn no_byte_may_be_changed(
        algorithm in prop::sample::select(&ALGORITHMS[..]),
        at in any::<prop::sample::Index>(),
        change in 1..=255u8,
    ) {
        let mut bytes = token(algorithm, r#"{"sub":"somebody","admin":false}"#).into_bytes();
        let verifier = Verifier::new(ALGORITHMS.map(key).to_vec(), None, None).requiring_expiry(false);
        prop_assert!(verifier.verify(&bytes, NOW).is_ok());
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        prop_assert!(verifier.verify(&bytes, NOW).is_err());
    }
}
