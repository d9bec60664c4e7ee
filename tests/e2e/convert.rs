//! Tests of `pillion convert`: what it prints is kept beside what it reads, and `pillion check` takes it.

use std::path::PathBuf;
use std::process::Command;

use crate::harness::*;

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/convert/nginx"))
}

fn convert(file: &std::path::Path) -> std::process::Output {
    Command::new(binary()).args(["convert", "nginx"]).arg(file).output().unwrap()
}

#[test]
fn nginx_configurations_are_converted_as_they_are_kept() {
    for name in ["app", "shop", "sites"] {
        let output = convert(&folder().join(name).join("nginx.conf"));
        // The first denies files by a regular expression that is no path.
        assert_eq!(output.status.code(), Some(i32::from(name == "app")), "{}", printed(&output.stderr));
        let kept = folder().join(format!("{name}.toml"));
        let made = printed(&output.stdout);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&kept, &made).unwrap();
        }
        assert_eq!(made, std::fs::read_to_string(&kept).unwrap(), "{name}: UPDATE=1 writes it");
    }
}

#[test]
fn converted_configurations_pass_the_check() {
    for (name, missing) in [("app", true), ("shop", false), ("sites", false)] {
        let output =
            Command::new(binary()).arg("check").arg(folder().join(format!("{name}.toml"))).output().unwrap();
        let problems = printed(&output.stderr);
        // The certificate is on no other machine; nothing else may be wrong.
        match missing {
            true => {
                assert!(problems.contains("fullchain.pem") && problems.contains("1 problem"), "{problems}")
            }
            false => assert!(output.status.success(), "{problems}"),
        }
    }
}

#[test]
fn an_nginx_configuration_that_is_not_one_is_told_with_its_place() {
    let folder = Folder::new();
    for (text, told) in [
        ("server {\n  listen 80\n}\n", "nginx.conf:2: the directive has no ; at its end"),
        ("server {\n", "nginx.conf:2: a block is not closed"),
        ("a \"b\n", "nginx.conf:1: a quote is not closed"),
        ("}\n", "nginx.conf:1: a directive is missing"),
        ("include nginx.conf;\n", "include each other"),
    ] {
        let output = convert(&folder.write("nginx.conf", text));
        let said = printed(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(told), "{said}");
    }
    let output = convert(std::path::Path::new("/nowhere.conf"));
    assert!(printed(&output.stderr).contains("/nowhere.conf: No such file"), "{}", printed(&output.stderr));
}

/// Locations with every kind of guard, as nginx has them.
const GUARDED: &str = r#"
server {
    listen LISTEN;
    location / { proxy_pass http://APP; }
    location /denied/ { deny all; proxy_pass http://APP; }
    location /open/ { deny all; proxy_pass http://APP; location /open/inner/ { allow all; proxy_pass http://APP; } }
    location /outer/ { proxy_pass http://APP; location /outer/inner/ { deny all; proxy_pass http://APP; } }
    location /office/ { allow 127.0.0.2; deny all; proxy_pass http://APP; }
    location /banned/ { deny 127.0.0.2; allow all; proxy_pass http://APP; }
    location /basic/ { auth_basic "x"; auth_basic_user_file FOLDER/users; proxy_pass http://APP; }
    location /asks/ { auth_request /auth; proxy_pass http://APP; }
    location = /auth { internal; proxy_pass http://APP; }
    location /any/ { satisfy any; allow 127.0.0.2; deny all; auth_basic "x"; auth_basic_user_file FOLDER/users; proxy_pass http://APP; }
    location /inside/ { internal; proxy_pass http://APP; }
    location /reads/ { limit_except GET { deny all; } proxy_pass http://APP; }
    location /writes/ { limit_except GET { allow 127.0.0.2; deny all; } proxy_pass http://APP; }
    location /agent/ { if ($http_user_agent ~ bad) { return 403; } proxy_pass http://APP; }
    location /admin { deny all; proxy_pass http://APP; }
    location ~ ^/(metrics|status)$ { deny all; proxy_pass http://APP; }
    location ~ \.(bak|sql)$ { deny all; proxy_pass http://APP; }
    location ~ ^/private { allow 127.0.0.2; deny all; proxy_pass http://APP; }
    location /files/ { try_files $uri @app; }
    location @app { auth_basic "x"; auth_basic_user_file FOLDER/users; proxy_pass http://APP; }
    location ^~ /firm/ { proxy_pass http://APP; }
    location /firm/private/ { deny all; proxy_pass http://APP; }
    location /firm/open/ { proxy_pass http://APP; }
    location /before/ { deny all; try_files $uri @open; }
    location /asked/ { auth_basic "x"; auth_basic_user_file FOLDER/users; try_files $uri @open; }
    location /both/ { allow 127.0.0.2; deny all; try_files $uri @open; }
    location @open { allow all; auth_basic off; proxy_pass http://APP; }
    location /texts/ { proxy_pass http://APP; location ~ \.txt$ { allow all; proxy_pass http://APP; } }
    location /notexts/ { deny all; proxy_pass http://APP; }
}
"#;

/// The status that a client with an address gets.
fn status(of: std::net::SocketAddr, from: &str, method: &str, path: &str) -> u16 {
    let url = format!("http://{of}{path}");
    let arguments = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "--interface", from, "-X", method, &url];
    let output = Command::new("curl").args(arguments).output().unwrap();
    printed(&output.stdout).trim().parse().unwrap()
}

#[test]
fn nobody_gets_more_from_a_converted_configuration_than_from_nginx() {
    let app = Script::echo();
    let nginx = Nginx::serving(&GUARDED.replace("APP", &app.address.to_string()));
    let output = convert(&nginx.folder.path("nginx.conf"));
    let (text, said) = (printed(&output.stdout), printed(&output.stderr));
    assert!(output.status.success(), "{said}");
    let listen = text.lines().find(|line| line.starts_with("listen = ")).unwrap();
    let pillion = Pillion::with(&text.replace(listen, "listen = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\""));
    let is_open = |status: u16| status < 400;
    // Denied, because their guards have no equivalent.
    let stricter = ["/banned/a", "/basic/a", "/asks/a", "/agent/a", "/any/a", "/files/a", "/asked/a"];
    for path in [
        "/",
        "/a",
        "/denied/",
        "/denied/a",
        "/open/a",
        "/open/inner/a",
        "/outer/a",
        "/outer/inner/a",
        "/office/a",
        "/banned/a",
        "/basic/a",
        "/asks/a",
        "/auth",
        "/any/a",
        "/inside/a",
        "/reads/a",
        "/writes/a",
        "/agent/a",
        "/admin",
        "/admin/a",
        "/administer",
        "/admin2/a",
        "/metrics",
        "/metrics/a",
        "/status",
        "/a/b.sql",
        "/x.bak",
        "/x.bak/y",
        "/private",
        "/private/a",
        "/privately",
        "/files/a",
        "/firm/a",
        "/firm/a.sql",
        "/firm/private/a",
        "/firm/open/a",
        "/firm/open/a.sql",
        "/before/a",
        "/asked/a",
        "/both/a",
        "/texts/a",
        "/texts/a.txt",
        "/notexts/a",
        "/notexts/a.txt",
        "/denied/../a",
        "/a/../denied/b",
        "/%61dmin",
    ] {
        for method in ["GET", "OPTIONS", "POST"] {
            for from in ["127.0.0.1", "127.0.0.2"] {
                let there = status(nginx.address, from, method, path);
                let here = status(pillion.http, from, method, path);
                let shown = format!("{method} {path} from {from}: nginx {there}, Pillion {here}\n{text}");
                assert!(is_open(there) || !is_open(here), "more: {shown}");
                assert!(is_open(here) == is_open(there) || stricter.contains(&path), "{shown}");
            }
        }
    }
    for place in ["/banned/", "/basic/", "/asks/", "/agent/", "/files/"] {
        assert!(said.contains(&format!("location {place}: nobody may come")), "{said}");
    }
}

#[test]
fn lost_guards_are_told_and_end_with_another_status() {
    let folder = Folder::new();
    for (location, lost) in [
        (r"location ~ /\.(?!well-known) { deny all; }", true),
        (r"location ~ ^/v[0-9]+/admin { auth_basic x; proxy_pass http://a; }", true),
        (r"location ~* ^/admin { deny all; }", true),
        (r"location ~ /\.ht { return 404; }", true),
        (r"location /a*b/ { deny all; }", true),
        (r"location ~ ^/x { location /x/y { deny all; } }", true),
        (r"location /x { location ^~ /x/y { deny all; } } location ~ \.a$ { proxy_pass http://a; }", true),
        (r"location /x { location ^~ /x/y { deny all; } }", false),
        (r"location ~ ^/v[0-9]+/ { proxy_pass http://a; }", false),
        (r"location ~* \.(css|js)$ { proxy_pass http://a; expires 1h; }", false),
    ] {
        let text = format!("server {{ listen 80; location / {{ proxy_pass http://a; }}\n{location} }}\n");
        let output = convert(&folder.write("nginx.conf", text));
        let said = printed(&output.stderr);
        assert_eq!(output.status.code(), Some(i32::from(lost)), "{location}: {said}");
        assert_eq!(said.contains("nginx.conf:2: location "), lost, "{location}: {said}");
        assert_eq!(said.contains("1 guard is lost"), lost, "{location}: {said}");
    }
}

#[test]
fn guards_of_a_server_hold_for_its_locations() {
    let folder = Folder::new();
    for (guard, wanted) in [
        ("deny all;", "deny = 403"),
        ("allow 10.0.0.0/8; deny all;", "allow = [\"10.0.0.0/8\"]"),
        ("auth_basic x;", "deny = 403"),
        ("auth_request /auth;", "deny = 403"),
        ("if ($http_x_secret != a) { return 403; }", "deny = 403"),
    ] {
        for text in [
            format!("server {{ listen 80; {guard} location / {{ proxy_pass http://a; }} }}"),
            format!("http {{ {guard} server {{ listen 80; location / {{ proxy_pass http://a; }} }} }}"),
        ] {
            if text.starts_with("http") && guard.starts_with("if") {
                continue;
            }
            let made = printed(&convert(&folder.write("nginx.conf", &text)).stdout);
            let route = format!("match = \"* /**\"\n{wanted}\n");
            assert!(made.contains(&route), "{text}:\n{made}");
        }
    }
    // Routes hold for all listeners.
    let two = "server { listen 80; location / { proxy_pass http://a; } }
        server { listen 81; location / { proxy_pass http://a; } location /admin/ { deny all; } }";
    let output = convert(&folder.write("nginx.conf", two));
    let said = printed(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("listeners of its own"), "{said}");
    // Each client of TLS shows a certificate: all servers or none.
    let tls =
        |more: &str| format!("server {{ listen 443 ssl; {more} location / {{ proxy_pass http://a; }} }}\n");
    let verified = "ssl_verify_client on; ssl_client_certificate /ca.pem;";
    let made = printed(&convert(&folder.write("nginx.conf", tls(verified))).stdout);
    assert!(made.contains("client_ca = \"/ca.pem\"") && !made.contains("deny"), "{made}");
    let one =
        format!("{}{}", tls(&format!("server_name a.example; {verified}")), tls("server_name b.example;"));
    let made = printed(&convert(&folder.write("nginx.conf", one)).stdout);
    assert!(!made.contains("client_ca") && made.contains("deny = 403"), "{made}");
}

fn ingresses() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/convert/ingress"))
}

fn convert_ingress(file: &std::path::Path) -> std::process::Output {
    Command::new(binary()).args(["convert", "ingress"]).arg(file).output().unwrap()
}

#[test]
fn ingresses_are_converted_as_they_are_kept_and_pass_the_check() {
    for name in ["shop", "guarded", "sidecar"] {
        let output = convert_ingress(&ingresses().join(format!("{name}.yaml")));
        assert!(output.status.success(), "{}", printed(&output.stderr));
        let kept = ingresses().join(format!("{name}.toml"));
        let made = printed(&output.stdout);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&kept, &made).unwrap();
        }
        assert_eq!(made, std::fs::read_to_string(&kept).unwrap(), "{name}: UPDATE=1 writes it");
        let checked = Command::new(binary()).arg("check").arg(&kept).output().unwrap();
        assert!(checked.status.success(), "{name}: {}", printed(&checked.stderr));
    }
}

#[test]
fn a_guard_of_an_ingress_never_becomes_an_open_route() {
    let output = convert_ingress(&ingresses().join("guarded.yaml"));
    let (text, said) = (printed(&output.stdout), printed(&output.stderr));
    for (pattern, line) in [
        ("tools.example.com/admin/**", "allow = [\"10.0.0.0/8\", \"192.168.0.0/16\"]"),
        ("tools.example.com/metrics/**", "deny = 403"),
        ("*.example.com/**", "deny = 403"),
        ("snippet.example.com/**", "deny = 403"),
        ("traefik.example.com/**", "deny = 403"),
        ("either.example.com/**", "allow = [\"10.0.0.0/8\"]"),
    ] {
        assert!(text.contains(&format!("match = \"* {pattern}\"\n{line}\n")), "{pattern}:\n{text}");
    }
    for name in ["basic", "oauth", "snippet", "traefik"] {
        assert!(said.contains(&format!("Ingress {name}: nobody may come")), "{said}");
    }
}

#[test]
fn an_ingress_that_cannot_be_converted_is_told_with_its_name() {
    let folder = Folder::new();
    let ingress = |spec: &str| {
        format!("apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{ name: a }}\nspec: {spec}\n")
    };
    let path = |path: &str| ingress(&format!("{{ rules: [{{ http: {{ paths: [{{ {path} }}] }} }}] }}"));
    for (text, told) in [
        ("a: [\n".to_owned(), "line "),
        ("kind: Service\n".to_owned(), "there is no Ingress in it"),
        (
            ingress("{}").replace("networking.k8s.io/v1", "extensions/v1beta1"),
            "expected networking.k8s.io/v1",
        ),
        (ingress("{}"), "Ingress a: it has neither rules nor a defaultBackend"),
        (path("path: /, pathType: Regex, backend: {}"), "Ingress a: pathType is Regex"),
        (path("path: /, pathType: Prefix"), "Ingress a: a path has no backend"),
        (
            path("path: /, pathType: Prefix, backend: { resource: { kind: Bucket } }"),
            "a backend is no service",
        ),
        (
            path("path: /, pathType: Prefix, backend: { service: { name: b, port: { name: http } } }"),
            "the port \"http\" of Service b has no number",
        ),
    ] {
        let output = convert_ingress(&folder.write("ingress.yaml", &text));
        let said = printed(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(told), "{text}: {said}");
    }
}
