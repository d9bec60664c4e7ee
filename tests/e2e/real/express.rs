//! Tests with Express: a login and its static files, forms that redirect, and signed links. curl keeps the cookies.

use super::tools::app;
use crate::harness::{Folder, Pillion, Process, run};

struct Site {
    _app: Process,
    address: String,
    pillion: Pillion,
    folder: Folder,
}

fn site(routes: &str) -> Site {
    let folder = Folder::new();
    let (app, address) = app("node", "express.cjs", &[&folder.0.display().to_string()]);
    let pillion = Pillion::with(&format!("[upstream]\nurl = \"http://{address}\"\n{routes}"));
    Site { _app: app, address, pillion, folder }
}

impl Site {
    /// Returns the output of curl for a user with a cookie jar. It follows redirects as a browser does.
    fn curl(&self, user: &str, path: &str, more: &[&str]) -> String {
        let jar = self.folder.path(&format!("{user}.jar")).display().to_string();
        let url = self.pillion.url(path);
        run("curl", &[&["-sS", "-L", "--max-time", "20", "-b", &jar, "-c", &jar, &url], more].concat())
    }

    fn status(&self, user: &str, path: &str, more: &[&str]) -> String {
        let print = ["-o", "/dev/null", "-w", "%{http_code} %{num_redirects}"];
        self.curl(user, path, &[&print, more].concat())
    }

    /// Returns how many requests that match `fits` the app has seen.
    fn seen(&self, fits: impl Fn(&str) -> bool) -> usize {
        let seen = run("curl", &["-sS", &format!("http://{}/seen", self.address)]);
        let seen: Vec<String> = serde_json::from_str(&seen).unwrap();
        seen.iter().filter(|line| fits(line)).count()
    }
}

const BY_USER: &str = "[[routes]]\nmatch = \"GET /account\"\ncache = { ttl = \"10m\", scope = \"user\" }\n\
                       [[routes]]\nmatch = \"GET /members/**\"\ncache = { ttl = \"10m\", scope = \"user\" }\n";
const FOR_ALL: &str = "[[routes]]\nmatch = \"GET /**\"\ncache = { ttl = \"10m\" }\n";

#[test]
fn still_right_express_login_and_static_files() {
    for routes in ["", FOR_ALL, BY_USER] {
        let site = site(routes);
        for (path, what) in [("/account", "the account"), ("/members/page.html", "a file")] {
            assert!(
                site.curl("stranger", path, &[]).contains("<form"),
                "{what} begins with a login: {routes}"
            );
        }
        for user in ["alice", "bob"] {
            let told = site.curl(user, "/login", &["-d", &format!("user={user}")]);
            assert_eq!(told, format!("account of {user}"), "{routes}");
            for _ in 0..2 {
                assert_eq!(site.curl(user, "/account", &[]), format!("account of {user}"), "{routes}");
                assert_eq!(site.curl(user, "/members/page.html", &[]), "<p>A page of the members.</p>");
                assert!(site.curl("stranger", "/account", &[]).contains("<form"), "{routes}");
                assert!(site.curl("stranger", "/members/page.html", &[]).contains("<form"), "{routes}");
            }
            // The file has the validators of Express, and they match.
            let tags = site.folder.path("tags").display().to_string();
            site.curl(user, "/members/page.html", &["--etag-save", &tags, "-o", "/dev/null"]);
            assert_eq!(
                site.status(user, "/members/page.html", &["--etag-compare", &tags]),
                "304 0",
                "{routes}"
            );
            let file = site.folder.path("page.html").display().to_string();
            assert_eq!(site.status(user, "/members/page.html", &["-z", &file]), "304 0", "{routes}");
            // Users without permission do not get it.
            assert_eq!(site.status("stranger", "/members/page.html", &["--etag-compare", &tags]), "200 1");
        }
        // A login on a second day is another session, and the logout invalidates the pages of the first one.
        assert!(site.curl("alice", "/logout", &["-d", ""]).contains("<form"), "{routes}");
        for path in ["/account", "/members/page.html"] {
            assert!(site.curl("alice", path, &[]).contains("<form"), "{path} after the logout: {routes}");
        }
        assert_eq!(site.curl("bob", "/account", &[]), "account of bob", "{routes}");
        assert_eq!(site.curl("alice", "/login", &["-d", "user=carol"]), "account of carol", "{routes}");
        assert_eq!(site.curl("alice", "/account", &[]), "account of carol", "{routes}");
    }
}

#[test]
fn still_right_static_files_of_express_are_stored_for_everybody() {
    let site = site("");
    let whole = std::fs::read_to_string(site.folder.path("large.js")).unwrap();
    for user in ["alice", "bob"] {
        for more in [&[][..], &["--compressed"]] {
            assert_eq!(site.curl(user, "/assets/large.js", more), whole);
        }
        assert_eq!(site.curl(user, "/assets/large.js", &["-r", "0-8"]), "let a = 1");
    }
    assert_eq!(site.seen(|line| line.starts_with("GET /assets/")), 1, "the app was asked once");
}

#[test]
fn still_right_post_redirect_get_shows_what_was_posted() {
    let by_route = "[[routes]]\nmatch = \"GET /board\"\ncache = { ttl = \"10m\", scope = \"shared\" }\n";
    let by_user = "[[routes]]\nmatch = \"GET /board\"\ncache = { ttl = \"10m\", scope = \"user\" }\n";
    for (routes, path) in [("", "/notes"), (by_route, "/board"), (by_user, "/board")] {
        let site = site(routes);
        for user in ["alice", "bob"] {
            site.curl(user, "/login", &["-d", &format!("user={user}")]);
        }
        let mut expected = Vec::new();
        for (number, form) in [path.to_owned(), format!("{path}/new")].iter().cycle().take(4).enumerate() {
            // Stored beforehand: one response for each of the two users, who ask twice.
            for user in ["alice", "bob", "alice", "bob"] {
                assert_eq!(site.curl(user, path, &[]), format!("notes: {}", expected.join(", ")), "{routes}");
            }
            expected.push(number.to_string());
            let user = if number % 2 == 0 { "alice" } else { "bob" };
            let told = site.curl(user, form, &["-d", &format!("note={number}")]);
            assert_eq!(told, format!("notes: {}", expected.join(", ")), "POST {form}, {routes}");
        }
        let asked = site.seen(|line| line.starts_with(&format!("GET {path}")));
        assert!(asked < 4 * 4 + 4, "caching was on: the app was asked {asked} times, {routes}");
    }
}

#[test]
fn still_right_a_signed_link_with_utm_parameters() {
    const LINKS: [&str; 4] = [
        "/file/a.pdf?expires=9&utm_source=mail&utm_medium=x",
        "/file/a.pdf?utm_source=mail",
        "/file/a.pdf",
        "/file/b%20c.pdf?x=%C3%BC+1&gclid=2",
    ];
    for routes in ["", FOR_ALL] {
        let site = site(routes);
        let sign = format!("http://{}/link", site.address);
        let sign = |link| run("curl", &["-sSG", "--data-urlencode", &format!("for={link}"), &sign]);
        let links = LINKS.map(sign);
        // After a change, the app decides, whatever is stored.
        let changed = [
            links[0].replace("signature=", "signature=0"),
            links[0].replace("mail", "post"),
            links[1].replace("utm_source=mail&", ""),
            links[2].replace(".pdf", ".txt"),
        ];
        for _ in 0..2 {
            for (signed, link) in links.iter().zip(LINKS) {
                let name = if link.contains("a.pdf") { "a.pdf" } else { "b c.pdf" };
                assert_eq!(
                    site.curl("anybody", signed, &[]),
                    format!("content of {name}"),
                    "{signed}, {routes}"
                );
            }
            for link in &changed {
                assert_eq!(site.curl("anybody", link, &[]), "Invalid signature.", "{link}, {routes}");
            }
        }
    }
}
