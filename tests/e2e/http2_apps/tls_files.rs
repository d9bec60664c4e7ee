//! Tests of certificates and keys as people have them.

use std::process::Command;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

use super::tools::{serve_all, tls_app};
use crate::harness::{Folder, Pillion, Script, binary, printed, run};

/// Writes a self-signed certificate as `openssl req -x509` makes it, which is one of a CA.
fn self_signed(folder: &Folder, file: &str, host: &str, years: (i32, i32)) {
    let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
    let key = KeyPair::generate().unwrap();
    folder.write(&format!("{file}.crt"), params.self_signed(&key).unwrap().pem());
    folder.write(&format!("{file}.key"), key.serialize_pem());
}

#[tokio::test(flavor = "multi_thread")]
async fn n4_11_a_self_signed_certificate_that_is_named_is_accepted() {
    for (case, host, years, named, expected) in [
        ("its own", "127.0.0.1", (2020, 2200), true, 200),
        ("one of another name", "127.0.0.2", (2020, 2200), true, 502),
        ("one that has expired", "127.0.0.1", (2020, 2021), true, 502),
        ("one that is not valid yet", "127.0.0.1", (2190, 2200), true, 502),
        ("one that is not named", "127.0.0.1", (2020, 2200), false, 502),
    ] {
        let folder = Arc::new(Folder::new());
        self_signed(&folder, "tls", host, years);
        // Another certificate with the same subject.
        self_signed(&folder, "other", host, years);
        let app = tls_app(&folder, serve_all).await;
        let ca = if named { "tls.crt" } else { "other.crt" };
        let config =
            format!("[upstream]\nurl = \"https://{app}\"\nretries = 0\n[upstream.tls]\nca = \"{ca}\"\n");
        tokio::task::block_in_place(|| {
            let pillion = Pillion::in_folder(folder, &config);
            assert_eq!(pillion.get("/").status, expected, "{case}: {}", pillion.log());
        });
    }
}

#[test]
fn n4_11_an_encrypted_key_and_a_byte_order_mark_say_what_they_are() {
    let folder = Folder::new();
    self_signed(&folder, "tls", "127.0.0.1", (2020, 2200));
    let path = |file: &str| folder.path(file).display().to_string();
    let encrypt = |more: &[&str], to: &str| {
        let (key, out) = (path("tls.key"), path(to));
        let fixed = ["pkey", "-in", &key, "-out", &out, "-aes256", "-passout", "pass:secret"];
        run("openssl", &[&fixed, more].concat());
    };
    encrypt(&[], "encrypted.key");
    encrypt(&["-traditional"], "older.key");
    let certificate = std::fs::read(folder.path("tls.crt")).unwrap();
    folder.write("bom.crt", [&b"\xef\xbb\xbf"[..], &certificate].concat());
    folder.write("second.crt", [&certificate[..], b"\xef\xbb\xbf", &certificate].concat());
    folder.write("wide.crt", [&b"\xff\xfe"[..], &certificate].concat());
    let token_key = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
    folder.write("jwt.pem", [&b"\xef\xbb\xbf"[..], token_key.as_bytes()].concat());
    folder.write("secret", [&b"\xef\xbb\xbf"[..], "x".repeat(40).as_bytes()].concat());
    let server = |cert: &str, key: &str| {
        format!(
            "[upstream]\nurl = \"http://127.0.0.1:1\"\n[server.tls]\nlisten = [\"127.0.0.1:0\"]\ncertificates = [{{ cert = \"{cert}\", key = \"{key}\" }}]\n"
        )
    };
    let upstream = |tls: &str| format!("[upstream]\nurl = \"https://127.0.0.1:1\"\n[upstream.tls]\n{tls}\n");
    let jwt = |keys: &str| {
        format!(
            "[upstream]\nurl = \"http://127.0.0.1:1\"\n[identity]\nprincipal = [\"jwt:sub\"]\n[identity.jwt]\nissuer = \"a\"\naudience = \"b\"\n{keys}\n"
        )
    };
    for (config, expected) in [
        (server("tls.crt", "encrypted.key"), "is encrypted"),
        (server("tls.crt", "older.key"), "is encrypted"),
        (server("bom.crt", "tls.key"), "byte order mark"),
        (server("second.crt", "tls.key"), "byte order mark"),
        (server("wide.crt", "tls.key"), "UTF-16"),
        (upstream("cert = \"tls.crt\"\nkey = \"encrypted.key\""), "is encrypted"),
        (upstream("ca = \"bom.crt\""), "byte order mark"),
        (jwt("keys = [\"jwt.pem\"]"), "byte order mark"),
        (jwt("hs256 = \"secret\""), "byte order mark"),
    ] {
        let file = folder.write("pillion.toml", &config);
        let output = Command::new(binary()).arg("check").arg(file).output().unwrap();
        let said = printed(&output.stderr) + &printed(&output.stdout);
        assert!(!output.status.success() && said.contains(expected), "{config}: {said}");
    }
}

/// The same for client certificates, which people make in the same way.
#[test]
fn n4_11_a_client_may_present_the_very_certificate_that_is_named() {
    let folder = Arc::new(Folder::new());
    self_signed(&folder, "tls", "127.0.0.1", (2020, 2200));
    self_signed(&folder, "client", "client.test", (2020, 2200));
    self_signed(&folder, "old", "client.test", (2020, 2021));
    self_signed(&folder, "other", "client.test", (2020, 2200));
    let named = ["client.crt", "old.crt"].map(|file| std::fs::read_to_string(folder.path(file)).unwrap());
    folder.write("clients.pem", named.concat());
    let app = Script::echo();
    let pillion = Pillion::in_folder(
        folder.clone(),
        &format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n[server.tls]\nlisten = [\"127.0.0.1:0\"]\n\
             certificates = [{{ cert = \"tls.crt\", key = \"tls.key\" }}]\nclient_ca = \"clients.pem\"\n[upstream]\nurl = \"http://{}\"\n",
            app.address
        ),
    );
    let url = format!("https://{}/", pillion.https.unwrap());
    let path = |file: &str| folder.path(file).display().to_string();
    for (file, expected) in [("client", true), ("old", false), ("other", false)] {
        let (cert, key) = (path(&format!("{file}.crt")), path(&format!("{file}.key")));
        let args = ["-sk", "--max-time", "10", "-o", "/dev/null", "--cert", &cert, "--key", &key, &url];
        assert_eq!(Command::new("curl").args(args).status().unwrap().success(), expected, "{file}");
    }
}
