//! Tests of users whom signed tokens name: keys in a file and at a URL.

use std::sync::Arc;

use crate::harness::origin::*;
use crate::harness::*;

#[test]
fn users_told_apart_by_a_claim() {
    let origin = Origin::new();
    let folder = Arc::new(Folder::new());
    folder.write("secret", "0123456789abcdef0123456789abcdef\n");
    let config = format!(
        "[upstream]\nurl = \"http://{}\"\n[identity]\nprincipal = [\"jwt:sub\"]\n[identity.jwt]\nhs256 = \"secret\"\naudience = \"app\"\n\
         [[routes]]\nmatch = \"GET /me\"\ncache = {{ ttl = \"1m\", scope = \"user\" }}\n[[routes]]\nmatch = \"GET /all\"\ncache = {{ ttl = \"1m\", scope = \"shared\" }}\n",
        origin.script.address
    );
    let pillion = Pillion::in_folder(folder, &config);
    let token = |claims: &str, secret: &str| {
        let encode = |text: &str| base64_url(text.as_bytes());
        let signed = format!("{}.{}", encode("{\"alg\":\"HS256\"}"), encode(claims));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
        let tag = ring::hmac::sign(&key, signed.as_bytes());
        format!("authorization: Bearer {signed}.{}", base64_url(tag.as_ref()))
    };
    let secret = "0123456789abcdef0123456789abcdef";
    let of = |path: &str, token: &str| ask(&pillion, &format!("GET {path}"), &[token]);
    let ann = token("{\"sub\":\"ann\",\"aud\":\"app\",\"exp\":4000000000,\"iat\":1}", secret);
    let ann_again = token("{\"sub\":\"ann\",\"aud\":\"app\",\"exp\":4000000000,\"iat\":2}", secret);
    let bob = token("{\"sub\":\"bob\",\"aud\":\"app\",\"exp\":4000000000}", secret);
    let first = of("/me", &ann).text();
    assert_eq!(of("/me", &ann_again).text(), first, "another token of the same user");
    assert_ne!(of("/me", &bob).text(), first);
    let shared = of("/all", &ann).text();
    assert_eq!(of("/all", &bob).text(), shared);
    for wrong in [
        token("{\"sub\":\"ann\",\"aud\":\"app\",\"exp\":4000000000}", "0123456789abcdef0123456789abcdeX"),
        token("{\"sub\":\"ann\",\"aud\":\"other\",\"exp\":4000000000}", secret),
        token("{\"sub\":\"ann\",\"aud\":\"app\"}", secret),
        token("{\"sub\":\"ann\",\"aud\":\"app\",\"exp\":1}", secret),
        "authorization: Bearer nonsense".to_owned(),
    ] {
        for (path, known) in [("/me", &first), ("/all", &shared)] {
            let answer = of(path, &wrong);
            assert_ne!(answer.text(), *known, "{wrong}");
            assert!(answer.field("cache-status").unwrap().contains("fwd=bypass"));
        }
    }
    let nobody = of("/me", "x-none: 1");
    assert!(nobody.field("cache-status").unwrap().contains("fwd=bypass"));
}

fn base64_url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

#[test]
fn keys_at_a_url() {
    use ring::signature::{Ed25519KeyPair, KeyPair as _};
    let random = ring::rand::SystemRandom::new();
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let jwks = format!(
        "{{\"keys\":[{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"{}\"}}]}}",
        base64_url(pair.public_key().as_ref())
    );
    let keys = Script::answering(move |_| ok(&jwks));
    let origin = Origin::new();
    let pillion = pillion(
        &origin,
        &format!(
            "[identity]\nprincipal = [\"jwt:sub\"]\n[identity.jwt]\njwks_url = \"http://{}/keys.json\"\n[[routes]]\nmatch = \"GET /me\"\ncache = {{ ttl = \"1m\", scope = \"user\" }}\n",
            keys.address
        ),
    );
    let signed = format!(
        "{}.{}",
        base64_url(b"{\"alg\":\"EdDSA\"}"),
        base64_url(b"{\"sub\":\"ann\",\"exp\":4000000000}")
    );
    let token =
        format!("authorization: Bearer {signed}.{}", base64_url(pair.sign(signed.as_bytes()).as_ref()));
    eventually("the keys", || {
        let answer = ask(&pillion, "GET /me", &[&token]);
        answer.field("cache-status").unwrap().contains("hit").then_some(())
    });
}
