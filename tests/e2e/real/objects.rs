//! Tests with S3 through boto3: signed requests, `Expect: 100-continue`, and checksums in trailers.

use serde_json::Value;

use super::tools::{app, printed, script, with_tls};
use crate::harness::{Folder, run};

#[test]
fn still_right_s3_by_boto3() {
    let (_app, line) = app("s3", "store.py", &[]);
    let [address, key, secret] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
    // The store builds addresses from Host. A cache that stores everything would expose a wrong response.
    let pillion = with_tls(&format!(
        "[upstream]\nurl = \"http://{address}\"\n[[routes]]\nmatch = \"GET /**\"\ncache = {{ ttl = \"10m\" }}\n"
    ));
    let certificate = pillion.folder.path("tls.crt").display().to_string();
    for (endpoint, authority) in
        [(pillion.url(""), ""), (format!("https://{}", pillion.https.unwrap()), certificate.as_str())]
    {
        let folder = Folder::new();
        let mut client = script("s3", "objects.py", &[&endpoint, authority, &folder.0.display().to_string()]);
        client.env("AWS_ACCESS_KEY_ID", key).env("AWS_SECRET_ACCESS_KEY", secret);
        let told: Value = serde_json::from_str(&printed(client)).unwrap();
        // Four objects and three parts. A request that declares no content needs no 100 (Continue).
        let continued = if authority.is_empty() { 6 } else { 7 };
        assert_eq!(
            (&told["continued"], &told["waited"]),
            (&continued.into(), &0.into()),
            "{endpoint}: {told}"
        );
        if !authority.is_empty() {
            assert_eq!(told["trailers"], 4, "{told}");
            assert_eq!(told["signatures"], serde_json::json!(["STREAMING-UNSIGNED-P"]), "{told}");
        }
        let link = told["link"].as_str().unwrap();
        assert!(link.contains("utm_source=mail"), "{link}");
        for _ in 0..3 {
            for (link, answer) in [
                (link.to_owned(), "the signature holds"),
                (link.replace("utm_source=mail", "utm_source=post"), "SignatureDoesNotMatch"),
                (link.replace("utm_source=mail&", ""), "SignatureDoesNotMatch"),
            ] {
                assert_eq!(run("curl", &["-sS", "--insecure", &link]), answer, "{link}");
            }
        }
    }
}
