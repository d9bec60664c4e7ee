//! Tests of the requirements on signed claims, and of reading claims.

use super::{NOW, key, token};
use crate::identity::jwt::{JwtError, Verifier};
use crate::identity::verifying_key::Algorithm;

/// Verifies a correctly signed token with these claims.
fn claims_outcome(issuer: Option<&str>, audience: Option<&str>, claims: &str) -> Result<(), JwtError> {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let verifier =
        Verifier::new(vec![key(Algorithm::Hs256)], owned(issuer), owned(audience)).requiring_expiry(false);
    verifier.verify(token(Algorithm::Hs256, claims).as_bytes(), NOW).map(drop)
}

/// RFC 7519 4.1.4: not "on or after" exp; 4.1.5: not "before" nbf; each with 30 seconds of leeway.
#[test]
fn dates() {
    let at = |offset: i64| (NOW as i64 + offset).to_string();
    for (claim, date, wanted) in [
        ("exp", at(1), Ok(())),
        ("exp", at(0), Ok(())),
        ("exp", at(-29), Ok(())),
        ("exp", at(-30), Err(JwtError::Expired)),
        ("exp", at(-31), Err(JwtError::Expired)),
        ("exp", format!("{}.5", at(-30)), Ok(())),
        ("exp", format!("{}.5", at(-31)), Err(JwtError::Expired)),
        ("exp", "0".to_owned(), Err(JwtError::Expired)),
        ("exp", "-1".to_owned(), Err(JwtError::Expired)),
        ("exp", "18446744073709551615".to_owned(), Ok(())),
        ("exp", "1e300".to_owned(), Ok(())),
        ("exp", format!("\"{}\"", at(100)), Err(JwtError::Malformed)),
        ("exp", "null".to_owned(), Err(JwtError::Malformed)),
        ("exp", "true".to_owned(), Err(JwtError::Malformed)),
        ("nbf", at(-1), Ok(())),
        ("nbf", at(0), Ok(())),
        ("nbf", at(30), Ok(())),
        ("nbf", at(31), Err(JwtError::NotYetValid)),
        ("nbf", format!("{}.5", at(30)), Err(JwtError::NotYetValid)),
        ("nbf", "1e300".to_owned(), Err(JwtError::NotYetValid)),
        ("nbf", "-1".to_owned(), Ok(())),
        ("nbf", "{}".to_owned(), Err(JwtError::Malformed)),
        ("iat", at(1_000_000), Ok(())),
        ("iat", "\"whenever\"".to_owned(), Ok(())),
    ] {
        let claims = format!(r#"{{"{claim}":{date}}}"#);
        assert_eq!(claims_outcome(None, None, &claims), wanted, "{claims}");
    }
    let verifier = Verifier::new(vec![key(Algorithm::Hs256)], None, None).requiring_expiry(false);
    let dated = token(Algorithm::Hs256, r#"{"exp":100,"nbf":50}"#);
    assert_eq!(verifier.verify(dated.as_bytes(), u64::MAX).err(), Some(JwtError::Expired));
    assert_eq!(verifier.verify(dated.as_bytes(), 0).err(), Some(JwtError::NotYetValid));
}

#[test]
fn issuers_and_audiences() {
    let (issuer, audience) = (Some("https://id"), Some("app"));
    for (issuer, audience, claims, wanted) in [
        (issuer, None, r#"{"iss":"https://id"}"#, Ok(())),
        (issuer, None, r#"{"iss":"https://id/"}"#, Err(JwtError::Issuer)),
        (issuer, None, r#"{"iss":"HTTPS://ID"}"#, Err(JwtError::Issuer)),
        (issuer, None, r#"{"iss":["https://id"]}"#, Err(JwtError::Issuer)),
        (issuer, None, r#"{"iss":null}"#, Err(JwtError::Issuer)),
        (issuer, None, "{}", Err(JwtError::Issuer)),
        (None, None, r#"{"iss":7,"aud":7}"#, Ok(())),
        (None, audience, r#"{"aud":"app"}"#, Ok(())),
        (None, audience, r#"{"aud":["other","app"]}"#, Ok(())),
        (None, audience, r#"{"aud":"App"}"#, Err(JwtError::Audience)),
        (None, audience, r#"{"aud":"app other"}"#, Err(JwtError::Audience)),
        (None, audience, r#"{"aud":["other"]}"#, Err(JwtError::Audience)),
        (None, audience, r#"{"aud":[["app"]]}"#, Err(JwtError::Audience)),
        (None, audience, r#"{"aud":{"app":true}}"#, Err(JwtError::Audience)),
        (None, audience, r#"{"aud":[]}"#, Err(JwtError::Audience)),
        (None, audience, r#"{"aud":null}"#, Err(JwtError::Audience)),
        (None, audience, "{}", Err(JwtError::Audience)),
        (issuer, audience, r#"{"iss":"https://id","aud":"app"}"#, Ok(())),
        (issuer, audience, r#"{"iss":"app","aud":"https://id"}"#, Err(JwtError::Issuer)),
    ] {
        assert_eq!(claims_outcome(issuer, audience, claims), wanted, "{claims}");
    }
}

#[test]
fn claims_that_are_none() {
    for (claims, wanted) in [
        (r#"{"a":1,"a":1}"#, Err(JwtError::Duplicate)),
        (r#"{"exp":1,"\u0065xp":9999999999}"#, Err(JwtError::Duplicate)),
        (r#"{"a":[{"b":{"c":1,"c":2}}]}"#, Err(JwtError::Duplicate)),
        ("[]", Err(JwtError::Malformed)),
        ("null", Err(JwtError::Malformed)),
        ("", Err(JwtError::Malformed)),
        ("{}{}", Err(JwtError::Malformed)),
        (" {} ", Ok(())),
    ] {
        assert_eq!(claims_outcome(None, None, claims), wanted, "{claims}");
    }
}

#[test]
fn claims_as_text() {
    let claims = r#"{"s":"héllo\n","e":"","i":-7,"u":18446744073709551615,"f":1.0,"t":true,"n":null,
        "a":["x"],"o":{"s":"in","p":{"q":1},"x.y":"dotted","n":null},"o.p":"literal",
        "https://x.y/role":"admin","l.m":{},"l":{"m":1}}"#;
    let verifier = Verifier::new(vec![key(Algorithm::Hs256)], None, None).requiring_expiry(false);
    let claims = verifier.verify(token(Algorithm::Hs256, claims).as_bytes(), NOW).unwrap();
    for (name, wanted) in [
        ("s", Some("héllo\n")),
        ("e", Some("")),
        ("i", Some("-7")),
        ("u", Some("18446744073709551615")),
        ("t", Some("true")),
        ("f", None),
        ("n", None),
        ("a", None),
        ("o", None),
        ("missing", None),
        ("", None),
        (".", None),
        ("s.", None),
        ("o.s", Some("in")),
        ("o.n", None),
        ("o.p", Some("literal")),
        ("o.p.q", Some("1")),
        ("o.p.q.r", None),
        ("o.x.y", Some("dotted")),
        ("a.0", None),
        ("https://x.y/role", Some("admin")),
        ("l.m", None),
    ] {
        assert_eq!(claims.text(name).as_deref(), wanted, "{name}");
    }
    assert_eq!(format!("{claims:?}"), "Claims { .. }");
}
