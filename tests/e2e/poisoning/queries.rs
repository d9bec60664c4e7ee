//! Tests of query parameters that are not part of the cache key.

use super::{is_bypass, is_hit};
use crate::harness::origin::{Origin, ask, get, pillion, status_of};
use crate::harness::{Script, eventually, exchange, ok, run};

fn targets(origin: &Origin) -> Vec<String> {
    let seen = origin.seen.lock().unwrap();
    seen.iter().map(|request| request.line.split(' ').nth(1).unwrap().to_owned()).collect()
}

#[test]
fn n2_1_what_comes_of_an_ignored_parameter_is_nobody_elses() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    origin.says("/a", &["cache-control: max-age=60"]);
    let poisoned = get(&pillion, "/a?utm_content=%3Cscript%3E");
    assert!(poisoned.text().starts_with("/a?utm_content=%3Cscript%3E #"), "it goes on as it came");
    assert!(!status_of(&poisoned).contains("stored"), "{}", status_of(&poisoned));
    // The URL without the parameter is fetched in the background, once.
    eventually("the fetch without it", || is_hit(&get(&pillion, "/a")).then_some(()));
    assert!(get(&pillion, "/a").text().starts_with("/a #"), "{}", get(&pillion, "/a").text());
    let before = origin.count();
    for query in ["utm_source=x", "fbclid=1&gclid=2", "utm_a=1&utm_b=2"] {
        let hit = get(&pillion, &format!("/a?{query}"));
        assert!(is_hit(&hit) && hit.text().starts_with("/a #"), "{query}: {}", status_of(&hit));
    }
    assert_eq!(origin.count(), before, "what is stored is used for all of them");
    assert!(targets(&origin).iter().filter(|target| *target == "/a").count() <= 2, "{:?}", targets(&origin));
}

#[test]
fn n2_1_other_parameters_keep_their_place_and_http_2_has_the_same_rule() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    origin.says("/b", &["cache-control: max-age=60"]);
    let url = pillion.url("/b?x=1&utm_source=evil&y=2");
    let h2 = || run("curl", &["-sS", "--http2-prior-knowledge", "-H", "host: a.example", &url]);
    assert!(h2().starts_with("/b?x=1&utm_source=evil&y=2 #"));
    let hit = eventually("the fetch without it", || {
        let hit = get(&pillion, "/b?x=1&y=2");
        is_hit(&hit).then_some(hit)
    });
    assert!(hit.text().starts_with("/b?x=1&y=2 #"), "{}", hit.text());
    assert_eq!(get(&pillion, "/b?y=2&x=1&utm_medium=z").text(), hit.text());
}

#[test]
fn n2_1_where_nothing_can_be_stored_nothing_more_is_asked() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    for (path, said) in [
        ("/none", "x-a: 1"),
        ("/no-store", "cache-control: no-store"),
        ("/private", "cache-control: private, max-age=60"),
        ("/cookie", "set-cookie: a=1"),
    ] {
        origin.says(path, &[said, "etag: \"1\""]);
        let before = origin.count();
        for number in 0..5 {
            get(&pillion, &format!("{path}?utm_id={number}"));
        }
        assert_eq!(origin.count(), before + 5, "{path}");
    }
    // The same for requests whose responses are not stored.
    origin.says("/c", &["cache-control: max-age=60"]);
    let before = origin.count();
    ask(&pillion, "HEAD /c?utm_id=1", &[]);
    ask(&pillion, "GET /c?utm_id=1", &["cache-control: no-store"]);
    ask(&pillion, "GET /c?utm_id=1", &["authorization: Bearer a"]);
    assert_eq!(origin.count(), before + 3);
}

#[test]
fn n2_1_key_query_does_not_see_the_others_either() {
    let origin = Origin::new();
    let pillion = pillion(
        &origin,
        "[[routes]]\nmatch = \"GET /q\"\ncache = { ttl = \"1h\", scope = \"shared\", key_query = [\"page\"] }\n\
         [[routes]]\nmatch = \"GET /s\"\ncache = { ttl = \"1h\", scope = \"shared\", key_query = [\"page\"], strip_query = true }\n\
         [[routes]]\nmatch = \"GET /u\"\ncache = { ttl = \"1h\", scope = \"shared\", strip_query = true }\n",
    );
    assert!(get(&pillion, "/q?page=1&callback=evil").text().starts_with("/q?page=1&callback=evil #"));
    let hit = eventually("the fetch without it", || {
        let hit = get(&pillion, "/q?page=1");
        is_hit(&hit).then_some(hit)
    });
    assert!(hit.text().starts_with("/q?page=1 #"), "{}", hit.text());
    assert_eq!(get(&pillion, "/q?z=1&page=1").text(), hit.text());
    // With `strip_query`, the app gets only the parameters in the cache key, and its response is stored.
    for (asked, sent) in [("/s?page=1&x=2", "/s?page=1"), ("/s?x=2", "/s"), ("/u?a=1&utm_x=2&b", "/u?a=1&b")]
    {
        let first = get(&pillion, asked);
        assert!(first.text().starts_with(&format!("{sent} #")), "{asked}: {}", first.text());
        let again = get(&pillion, sent);
        assert!(is_hit(&again) && again.text() == first.text(), "{asked}");
    }
}

#[test]
fn n2_1_stale_responses_are_renewed_without_the_parameters() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    origin.says("/swr", &["cache-control: max-age=0, stale-while-revalidate=60", "etag: \"1\""]);
    assert_eq!(get(&pillion, "/swr").text(), "/swr #1");
    origin.says("/swr", &["cache-control: max-age=60", "etag: \"2\""]);
    assert_eq!(get(&pillion, "/swr?utm_x=1").text(), "/swr #1");
    eventually("the new one", || (get(&pillion, "/swr?utm_x=2").text() == "/swr #2").then_some(()));
    assert_eq!(targets(&origin), ["/swr", "/swr"]);
    // A stale response without `stale-while-revalidate`: one request with all parameters, and one without the ignored
    // ones.
    origin.says("/old", &["cache-control: max-age=0", "etag: \"1\""]);
    let old = get(&pillion, "/old").text();
    origin.says("/old", &["cache-control: max-age=60", "etag: \"2\""]);
    assert!(get(&pillion, "/old?utm_x=1").text().starts_with("/old?utm_x=1 #"));
    eventually("the new one", || is_hit(&get(&pillion, "/old")).then_some(()));
    assert_ne!(get(&pillion, "/old").text(), old);
}

#[test]
fn n2_1_many_at_once_start_one_fetch() {
    let script = Script::answering(|request| {
        std::thread::sleep(std::time::Duration::from_millis(300));
        let target = request.line.split(' ').nth(1).unwrap().to_owned();
        let mut answer = ok(&target);
        let at = answer.windows(2).position(|two| two == b"\r\n").unwrap() + 2;
        answer.splice(at..at, *b"cache-control: max-age=60\r\n");
        answer
    });
    let pillion = crate::harness::Pillion::in_front_of(script.address);
    let clients: Vec<_> = (0..8)
        .map(|number| {
            let http = pillion.http;
            std::thread::spawn(move || {
                let line =
                    format!("GET /l?utm_n={number} HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n");
                exchange(http, &line).text()
            })
        })
        .collect();
    let texts: Vec<String> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert!(
        texts.iter().enumerate().all(|(at, text)| *text == format!("/l?utm_n={at}") || text == "/l"),
        "{texts:?}"
    );
    eventually("the fetch without them", || is_hit(&get(&pillion, "/l")).then_some(()));
    assert_eq!(pillion.metric("pillion_cache_background_fetches_total"), 1.0);
}

#[test]
fn n2_2_parameters_that_apps_read_as_ones_that_count() {
    let origin = Origin::new();
    let pillion = pillion(
        &origin,
        "[[routes]]\nmatch = \"GET /q\"\ncache = { ttl = \"1h\", scope = \"shared\", key_query = [\"page\", \"my_id\", \"f_*\"] }\n",
    );
    let first = get(&pillion, "/q?page=1");
    for query in [
        "page=1&page[]=2",
        "page=1&page[0]=2",
        "page=1&page.x=2",
        "page=1&PAGE=2",
        "page=1&my.id=2",
        "page=1&my[id=2",
        "page=1&f.x=2",
        "page=1&F_Y=2",
        "page=1&page%5B%5D=2",
        "page=1&%50age=2",
        "page=1&page%00x=2",
        "page=1&+page=2",
        "page=1&p%2561ge=2",
    ] {
        let path = format!("/q?{query}");
        let answer = get(&pillion, &path);
        assert!(is_bypass(&answer), "{query}: {}", status_of(&answer));
        assert!(answer.text().starts_with(&format!("{path} #")), "{query}");
    }
    for query in ["page=1&p%61ge=2", "page=1&x=1;page=2"] {
        assert_ne!(get(&pillion, &format!("/q?{query}")).text(), first.text(), "{query}");
    }
    for query in ["page=1", "page=1&x=2", "pages=3&page=1", "page=1&my=2"] {
        assert_eq!(get(&pillion, &format!("/q?{query}")).text(), first.text(), "{query}");
    }
}
