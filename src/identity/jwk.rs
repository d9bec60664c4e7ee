//! Public keys as JSON: a JWKS (RFC 7517 5) or a JWK (RFC 7517 4, RFC 7518 6, RFC 8037 2). Keys of another use, kind,
//! curve or algorithm are skipped. A usable but broken key rejects the file, although RFC 7517 5 would skip it:
//! otherwise only users whose tokens do not verify would notice. A private or symmetric key rejects the file too,
//! whatever its use. `x5c` and the other certificate members are ignored.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::json;
use super::key_error::{KeyError, KeyFault};
use super::verifying_key::{Algorithm, VerifyingKey};

type Jwk = Map<String, Value>;
type Reader = fn(&Jwk) -> Result<VerifyingKey, KeyFault>;

/// Length of a P-256 coordinate in bytes (RFC 7518 6.2.1.2).
const COORDINATE: usize = 32;

/// Parses the usable keys of a file. The result may be empty.
pub(crate) fn keys(content: &[u8]) -> Result<Vec<VerifyingKey>, KeyError> {
    let file = json::object(content).map_err(|fault| match fault {
        json::Fault::NoObject => KeyFault::Json,
        json::Fault::Duplicate => KeyFault::JsonDuplicate,
    })?;
    let Some(set) = file.get("keys") else {
        if !file.contains_key("kty") {
            return Err(KeyFault::JsonShape.into());
        }
        return Ok(key(&file)?.into_iter().collect());
    };
    let mut keys = Vec::new();
    for (index, member) in set.as_array().ok_or(KeyFault::JsonShape)?.iter().enumerate() {
        let read = member.as_object().ok_or(KeyFault::JsonShape).and_then(key);
        keys.extend(read.map_err(|fault| KeyError::at(index, fault))?);
    }
    Ok(keys)
}

/// Parses one key; `None` if it is not usable here.
fn key(jwk: &Jwk) -> Result<Option<VerifyingKey>, KeyFault> {
    let kind = text(jwk, "kty")?.ok_or(KeyFault::JwkMember("kty"))?;
    // Members with private material (RFC 7518 6.2.2, 6.3.2, 6.4; RFC 8037 2).
    if kind == "oct" {
        return Err(KeyFault::Symmetric);
    }
    if jwk.contains_key("d") {
        return Err(KeyFault::Private);
    }
    if !verifies(jwk)? {
        return Ok(None);
    }
    let (algorithm, read): (_, Reader) = match (kind, text(jwk, "crv")?) {
        ("RSA", _) => (Algorithm::Rs256, |jwk| VerifyingKey::rsa(&bytes(jwk, "n")?, &bytes(jwk, "e")?)),
        ("EC", Some("P-256")) => (Algorithm::Es256, |jwk| VerifyingKey::p256(&point(jwk)?)),
        ("OKP", Some("Ed25519")) => (Algorithm::EdDsa, |jwk| VerifyingKey::ed25519(&bytes(jwk, "x")?)),
        _ => return Ok(None),
    };
    if text(jwk, "alg")?.is_some_and(|alg| alg != algorithm.as_str()) {
        return Ok(None);
    }
    Ok(Some(read(jwk)?.named(text(jwk, "kid")?.map(str::to_owned))))
}

/// Returns whether `use` (RFC 7517 4.2) and `key_ops` (4.3) allow the key to verify signatures.
fn verifies(jwk: &Jwk) -> Result<bool, KeyFault> {
    let operations = match jwk.get("key_ops") {
        None => None,
        Some(value) => Some(value.as_array().ok_or(KeyFault::JwkMember("key_ops"))?),
    };
    let by_use = text(jwk, "use")?.is_none_or(|purpose| purpose == "sig");
    Ok(by_use && operations.is_none_or(|operations| operations.iter().any(|operation| operation == "verify")))
}

fn text<'a>(jwk: &'a Jwk, name: &'static str) -> Result<Option<&'a str>, KeyFault> {
    match jwk.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(KeyFault::JwkMember(name)),
    }
}

fn bytes(jwk: &Jwk, name: &'static str) -> Result<Vec<u8>, KeyFault> {
    let text = text(jwk, name)?.ok_or(KeyFault::JwkMember(name))?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyFault::JwkMember(name))
}

/// Builds an uncompressed point from its two coordinates (SEC 1, 2.3.3).
fn point(jwk: &Jwk) -> Result<Vec<u8>, KeyFault> {
    let mut point = vec![0x04];
    for name in ["x", "y"] {
        let coordinate = bytes(jwk, name)?;
        if coordinate.len() != COORDINATE {
            return Err(KeyFault::JwkMember(name));
        }
        point.extend(coordinate);
    }
    Ok(point)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::keys;

    /// The coordinates of RFC 7515 A.3.1; the other key is that of RFC 8037 A.2.
    const POINT: &str = "\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\
        \"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"";
    const ED25519: &str = r#""kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;

    fn rsa(bytes: usize, e: &str) -> String {
        format!(r#""kty":"RSA","n":"{}","e":"{e}""#, URL_SAFE_NO_PAD.encode(vec![0xc1; bytes]))
    }

    fn read(file: &str) -> Result<Vec<(&'static str, Option<String>)>, KeyError> {
        let keys = keys::parse(file.as_bytes())?;
        Ok(keys.iter().map(|key| (key.algorithm().as_str(), key.kid().map(str::to_owned))).collect())
    }

    #[test]
    fn files() {
        let set = format!(
            r#"{{"keys": [
                {{"kty":"EC","crv":"P-256",{POINT},"use":"sig","kid":"a","alg":"ES256"}},
                {{"kty":"EC","crv":"P-384","x":"AA","y":"AA"}},
                {{"kty":"EC","x":"AA","y":"AA"}},
                {{"kty":"EC","crv":"P-256",{POINT},"use":"enc"}},
                {{"kty":"EC","crv":"P-256",{POINT},"alg":"ECDH-ES"}},
                {{"kty":"OKP","crv":"X25519","x":"AA"}},
                {{"kty":"AKP","alg":"ML-DSA-44","pub":"AA"}},
                {{{rsa},"alg":"RS512"}},
                {{{rsa},"key_ops":["wrapKey"]}},
                {{{rsa},"key_ops":["verify"],"x5c":["damaged"],"unheard":{{}}}},
                {{{ED25519},"kid":""}}
            ]}}"#,
            rsa = rsa(256, "AQAB"),
        );
        let some = |kid: &str| Some(kid.to_owned());
        assert_eq!(read(&set), Ok(vec![("ES256", some("a")), ("RS256", None), ("EdDSA", some(""))]));
        assert_eq!(read(&format!("\n {{{ED25519},\"kid\":\"b\"}}")), Ok(vec![("EdDSA", some("b"))]));
        for (file, fault) in [
            ("{", KeyFault::Json),
            ("{}", KeyFault::JsonShape),
            (r#"{"keys": {}}"#, KeyFault::JsonShape),
            (r#"{"keys": []}"#, KeyFault::NoKeys),
            (r#"{"keys": [{"kty":"RSA","use":"enc"}]}"#, KeyFault::NoKeys),
            (r#"{"kty":"AKP"}"#, KeyFault::NoKeys),
            (r#"{"keys": [], "keys": []}"#, KeyFault::JsonDuplicate),
            (r#"{"kty":"EC","kty":"RSA"}"#, KeyFault::JsonDuplicate),
        ] {
            assert_eq!(read(file), Err(fault.into()), "{file}");
        }
        let many = vec![format!("{{{ED25519}}}"); crate::identity::key_error::MAX_KEYS + 1];
        assert_eq!(read(&format!(r#"{{"keys": [{}]}}"#, many[1..].join(","))).map(|keys| keys.len()), Ok(64));
        assert_eq!(read(&format!(r#"{{"keys": [{}]}}"#, many.join(","))), Err(KeyFault::TooMany(65).into()));
    }

    #[test]
    fn keys_that_refuse_the_file() {
        let private = format!(r#"{{{ED25519},"d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}}"#);
        let off_curve = POINT.replace("x_FE", "x_FF");
        for (key, fault) in [
            (private.as_str(), KeyFault::Private),
            (r#"{"kty":"RSA","use":"enc","d":"AA"}"#, KeyFault::Private),
            (r#"{"kty":"oct","k":"AA","use":"enc"}"#, KeyFault::Symmetric),
            ("7", KeyFault::JsonShape),
            (r#"{"kid":"a"}"#, KeyFault::JwkMember("kty")),
            (r#"{"kty":1}"#, KeyFault::JwkMember("kty")),
            (&format!(r#"{{{ED25519},"use":7}}"#), KeyFault::JwkMember("use")),
            (&format!(r#"{{{ED25519},"alg":null}}"#), KeyFault::JwkMember("alg")),
            (&format!(r#"{{{ED25519},"kid":7}}"#), KeyFault::JwkMember("kid")),
            (&format!(r#"{{{ED25519},"key_ops":"verify"}}"#), KeyFault::JwkMember("key_ops")),
            (r#"{"kty":"RSA","e":"AQAB"}"#, KeyFault::JwkMember("n")),
            (r#"{"kty":"RSA","n":"AA==","e":"AQAB"}"#, KeyFault::JwkMember("n")),
            (&format!("{{{}}}", rsa(255, "AQAB")), KeyFault::RsaSize(2040)),
            (&format!("{{{}}}", rsa(1025, "AQAB")), KeyFault::RsaSize(8200)),
            (&format!("{{{}}}", rsa(256, "AQ")), KeyFault::RsaNumbers),
            (&format!("{{{}}}", rsa(256, "AQAA")), KeyFault::RsaNumbers),
            (&format!("{{{}}}", rsa(256, "AgAAAAE")), KeyFault::RsaNumbers),
            (&format!("{{{}}}", rsa(256, "AQAAAAAAAQ")), KeyFault::RsaNumbers),
            (&format!("{{{}}}", rsa(256, "")), KeyFault::RsaNumbers),
            (&format!(r#"{{"kty":"EC","crv":"P-256",{off_curve}}}"#), KeyFault::Point),
            (r#"{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA"}"#, KeyFault::JwkMember("x")),
            (r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#, KeyFault::Ed25519Size(3)),
        ] {
            let good = format!("{{{ED25519}}}");
            assert_eq!(
                read(&format!(r#"{{"keys": [{good}, {key}]}}"#)),
                Err(KeyError::at(1, fault)),
                "{key}"
            );
        }
    }
}
