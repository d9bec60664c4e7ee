//! The declared keys of the configuration, where they are shown: `config/pillion.schema.json`, `config/pillion.toml`,
//! `docs/configuration.md`.
//!
//! `UPDATE=1 cargo nextest run --test house schema::` writes the schema and the tables of the document anew, and
//! into the reference each sentence it lacks.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Folder, binary, printed};
use pillion::internals::DeclaredKey;
use pillion::internals::contract::declared_keys;
use serde_json::Value;
use toml::de::{DeTable, DeValue};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root(path)).unwrap()
}

fn updates() -> bool {
    std::env::var_os("UPDATE").is_some()
}

fn written_by(arguments: &[&str]) -> String {
    let output = Command::new(binary()).arg("schema").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", printed(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A file as JSON, as an editor sees it: variables are not filled.
fn parsed(text: &str) -> Value {
    fn table(table: &DeTable<'_>) -> Value {
        table.iter().map(|(key, value)| (key.get_ref().to_string(), json(value.get_ref()))).collect()
    }
    fn json(value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => text.as_ref().into(),
            DeValue::Integer(number) => number.as_str().replace('_', "").parse::<i64>().unwrap().into(),
            DeValue::Float(number) => number.as_str().replace('_', "").parse::<f64>().unwrap().into(),
            DeValue::Boolean(flag) => (*flag).into(),
            DeValue::Datetime(date) => date.to_string().into(),
            DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
            DeValue::Table(inner) => table(inner),
        }
    }
    table(DeTable::parse(text).unwrap().get_ref())
}

/// The mistakes that a validator finds in a file, each with its place.
fn mistakes(text: &str) -> Vec<String> {
    let schema: Value = serde_json::from_str(&written_by(&[])).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let file = parsed(text);
    validator.iter_errors(&file).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn committed_schema_is_what_the_command_writes() {
    let now = written_by(&[]);
    let path = "config/pillion.schema.json";
    if updates() {
        std::fs::write(root(path), &now).unwrap();
    }
    let hint = "run `UPDATE=1 cargo nextest run --test house schema::`";
    assert!(std::fs::read_to_string(root(path)).unwrap_or_default() == now, "{path} is old: {hint}");
    assert_eq!(written_by(&["--format", "json"]), now);
}

#[test]
fn schema_itself_is_valid_and_every_default_validates() {
    let schema: Value = serde_json::from_str(&written_by(&[])).unwrap();
    assert!(jsonschema::draft202012::meta::is_valid(&schema));
    let mut seen = 0;
    hold_defaults(&schema, &mut seen);
    assert!(seen > 100, "{seen}");
}

fn hold_defaults(schema: &Value, seen: &mut usize) {
    for (_, property) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(default) = property.get("default")
            // The empty path of a certificate stands for none, which `check` refuses.
            && !property["title"].as_str().unwrap().contains("certificates")
        {
            let validator = jsonschema::draft202012::new(property).unwrap();
            assert!(validator.is_valid(default), "{}: {default}", property["title"]);
            *seen += 1;
        }
        for inner in [property, &property["items"], &property["additionalProperties"]] {
            hold_defaults(inner, seen);
        }
    }
}

#[test]
fn reference_and_examples_validate() {
    assert_eq!(mistakes(&read("config/pillion.toml")), [""; 0]);
    let mut count = 0;
    for file in std::fs::read_dir(root("examples")).unwrap() {
        let path = file.unwrap().path();
        // The file of API keys is another one, and so are test cases.
        let name = path.to_string_lossy();
        if name.ends_with(".toml") && !name.ends_with("-keys.toml") && !name.ends_with(".test.toml") {
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(mistakes(&text), [""; 0], "{}", path.display());
            count += 1;
        }
    }
    assert!(count >= 9, "{count}");
}

/// The sections that the reference shows as comments are right too, once they are none.
#[test]
fn commented_sections_of_the_reference_validate() {
    let text = "[server.tls]\nlisten = [\"[::]:8443\"]\ncertificates = [{ cert = \"a\", key = \"b\" }]\nclient_ca = \"\"\n\
                [identity.jwt]\nkeys = [\"jwt.pem\"]\nhs256 = \"\"\njwks_url = \"\"\ntoken = \"cookie:a\"\n\
                issuer = \"\"\naudience = \"\"\nrequire_exp = true\n";
    assert_eq!(mistakes(text), [""; 0]);
}

const UPSTREAM: &str = "[upstream]\nurl = \"http://127.0.0.1:1\"\n";

/// Files that `check` refuses and the schema too, each with the place where it does.
const WRONG: &[(&str, &str)] = &[
    ("[serve]\n", ""),
    ("[server]\nlisten = true\n", "/server/listen"),
    ("[server]\nlistn = []\n", "/server"),
    ("[server]\nmax_headers = 4\n", "/server/max_headers"),
    ("[server]\nmax_headers = 2000\n", "/server/max_headers"),
    ("[server]\nmax_headers = \"100\"\n", "/server/max_headers"),
    ("[server]\nmax_headers = \"1${NAME}\"\n", "/server/max_headers"),
    ("[server]\nwatch = \"yes\"\n", "/server/watch"),
    ("[server]\nworkers = \"many\"\n", "/server/workers"),
    ("[server]\nheader_timeout = \"0s\"\n", "/server/header_timeout"),
    ("[server]\nheader_timeout = \"10\"\n", "/server/header_timeout"),
    ("[server]\nheader_timeout = 10\n", "/server/header_timeout"),
    ("[server]\nheader_timeout = \"1.5s\"\n", "/server/header_timeout"),
    ("[server]\nmax_header_size = \"64KB\"\n", "/server/max_header_size"),
    ("[server]\nunderscores = \"keep\"\n", "/server/underscores"),
    ("[server.tls]\nlisten = []\n", "/server/tls"),
    ("[server.tls]\ncertificates = [{ cert = \"a\" }]\n", "/server/tls/certificates/0"),
    ("[upstream]\nurl = true\n", "/upstream/url"),
    ("[upstream]\nretries = 11\n", "/upstream/retries"),
    ("[upstream]\nretries = -1\n", "/upstream/retries"),
    ("[upstream.health]\ninterval = \"0s\"\n", "/upstream/health/interval"),
    ("[upstreams.media]\n", "/upstreams/media"),
    ("[upstreams]\nmedia = \"http://127.0.0.1:2\"\n", "/upstreams/media"),
    ("[routes]\nmatch = \"GET /\"\n", "/routes"),
    ("[[routes]]\nstream = true\n", "/routes/0"),
    ("[[routes]]\nmatch = \"* /\"\ndeny = 200\n", "/routes/0/deny"),
    ("[[routes]]\nmatch = \"* /\"\nredirect = { to = \"/\", status = 304 }\n", "/routes/0/redirect/status"),
    ("[[routes]]\nmatch = \"* /\"\nredirect = {}\n", "/routes/0/redirect"),
    ("[[routes]]\nmatch = \"* /\"\ndeprecated = { since = \"1 May\" }\n", "/routes/0/deprecated/since"),
    ("[[routes]]\nmatch = \"* /\"\nlimits = \"all\"\n", "/routes/0/limits"),
    ("[[routes]]\nmatch = \"* /\"\ncost = 0\n", "/routes/0/cost"),
    ("[[routes]]\nmatch = \"* /\"\nset_request = { a = 1 }\n", "/routes/0/set_request/a"),
    ("[[routes]]\nmatch = \"* /\"\ncache = { scope = \"all\" }\n", "/routes/0/cache/scope"),
    (
        "[[routes]]\nmatch = \"* /\"\ncache = { ttl_by_status = { 404 = 10 } }\n",
        "/routes/0/cache/ttl_by_status/404",
    ),
    ("[compression]\ncodings = [\"brotli\"]\n", "/compression/codings/0"),
    ("[cache]\ntiers = { short = \"30\" }\n", "/cache/tiers/short"),
    ("[[invalidate]]\ntags = [\"a\"]\n", "/invalidate/0"),
    ("[[invalidate]]\non = \"* /\"\ntags = \"a\"\n", "/invalidate/0/tags"),
    ("[rate_limit]\nkey = [\"address\"]\n", "/rate_limit/key/0"),
    ("[rate_limit]\nipv6_prefix = 129\n", "/rate_limit/ipv6_prefix"),
    ("[rate_limit.tiers.free.limits]\na = { rate = \"10/m\" }\n", "/rate_limit/tiers/free/limits/a/rate"),
    ("[rate_limit.tiers.free.limits]\na = { rate = \"0/s\" }\n", "/rate_limit/tiers/free/limits/a/rate"),
    ("[rate_limit.tiers.free.limits]\na = { burst = 1 }\n", "/rate_limit/tiers/free/limits/a"),
    ("[health]\ndegraded_at = 1.5\n", "/health/degraded_at"),
    ("[log]\nlevel = \"verbose\"\n", "/log/level"),
    ("[metrics]\nbuckets = [0]\n", "/metrics/buckets/0"),
    ("[metrics]\nmax_routes = 0\n", "/metrics/max_routes"),
    ("[redis]\nurl = \"redis://a\"\n", "/redis"),
];

#[test]
fn wrong_files_do_not_validate_and_check_refuses_them_too() {
    let folder = Folder::new();
    for (text, place) in WRONG {
        let found = mistakes(text);
        assert!(found.iter().any(|mistake| mistake.starts_with(&format!("{place}: "))), "{text}: {found:?}");
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        let whole =
            if text.starts_with("[upstream]") { (*text).to_owned() } else { format!("{UPSTREAM}{text}") };
        let file = folder.write("pillion.toml", whole);
        let output = Command::new(binary()).env("NAME", "1").arg("check").arg(file).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}: {}", printed(&output.stdout));
    }
}

/// Files that an editor must not underline.
#[test]
fn variables_validate_wherever_a_file_may_have_them() {
    for text in [
        "[server]\nmax_headers = \"${MAX}\"\nwatch = \"${WATCH:-true}\"\nworkers = \"${WORKERS:-auto}\"\n",
        "[server]\nheader_timeout = \"${SECONDS}s\"\nmax_body_size = \"${SIZE}\"\nunderscores = \"${MODE}\"\n",
        "[health]\ndegraded_at = \"${SHARE:-0.8}\"\n[metrics]\nbuckets = [\"${FIRST}\", 1]\n",
        "[[routes]]\nmatch = \"* /${A}/**\"\ndeny = \"${STATUS}\"\ncache = { ttl = \"${TTL:-1h}\", key_body = \"${B}\" }\n",
        "[rate_limit.tiers.free.limits]\na = { rate = \"${RATE}/min\", burst = \"${BURST}\" }\n",
        "[server]\nheader_timeout = \"1_0s\"\nidle_timeout = \"5 m\"\nmax_body_size = \"unlimited\"\n",
    ] {
        assert_eq!(mistakes(text), [""; 0], "{text}");
    }
}

/// The number of the line of a key in the reference, also where the line is a comment. A table has its header.
fn line_of(reference: &str, path: &str) -> Option<usize> {
    let path = path.replace("tiers.NAME", "tiers.free");
    let (section, name) = path.rsplit_once('.').unwrap_or(("", &path));
    let declared = declared_keys();
    let mut current = "";
    for (number, whole) in reference.lines().enumerate() {
        let line = whole.strip_prefix("# ").unwrap_or(whole);
        let header = line.strip_prefix('[').and_then(|rest| rest.trim_start_matches('[').split_once(']'));
        if let Some((header, _)) = header {
            // A comment may begin with the name of another table.
            if line.len() < whole.len() && !declared.iter().any(|key| key.path == header) {
                continue;
            }
            if header == path || header.strip_prefix(&path).is_some_and(|rest| rest.starts_with('.')) {
                return Some(number);
            }
            current = header;
        } else if current == section
            && line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('='))
        {
            return Some(number);
        }
    }
    None
}

/// Comments of the reference in one line, without their hashes.
fn comments(reference: &str) -> String {
    let comments = reference.lines().filter_map(|line| Some(line.split_once('#')?.1));
    comments.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

/// The keys that the reference shows: those of `[upstreams.NAME]` are those of `[upstream]`.
fn shown() -> Vec<DeclaredKey> {
    let is_shown = |key: &DeclaredKey| key.path.contains('.') && !key.path.starts_with("upstreams.");
    declared_keys().into_iter().filter(is_shown).collect()
}

/// The reference with the sentences of these keys, each above its key. One that has no line of its own is named, and
/// stands above the key that holds it.
fn with_sentences(reference: &str, keys: &[DeclaredKey]) -> String {
    let mut lines: Vec<String> = reference.lines().map(str::to_owned).collect();
    let mut places: Vec<(usize, String)> = Vec::new();
    for key in keys {
        let (mut path, mut inside) = (key.path.as_str(), "");
        let number = loop {
            if let Some(number) = line_of(reference, path) {
                break number;
            }
            (path, inside) = path.rsplit_once('.').unwrap();
        };
        let name =
            if inside.is_empty() { String::new() } else { format!("   {:<12}", &key.path[path.len() + 1..]) };
        places.push((number, format!("#{name} {}", key.sentence)));
    }
    // In the order of the declarations above one line.
    places.sort_by_key(|(number, _)| *number);
    for (number, sentence) in places.into_iter().rev() {
        lines.insert(number, sentence);
    }
    lines.join("\n") + "\n"
}

const BEGIN: &str = "<!-- keys -->\n";
const END: &str = "<!-- end of keys -->\n";

/// The document has the tables that the command writes, each under its heading, between marks.
#[test]
fn document_has_the_tables_of_the_command() {
    let path = "docs/configuration.md";
    let mut document = read(path);
    let mut count = 0;
    for section in written_by(&["--format", "markdown"]).split("## ").skip(1) {
        let (heading, table) = section.split_once("\n\n").unwrap();
        let table = format!("{}\n", table.trim_end());
        let above =
            document.find(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("{path}: no {heading}"));
        let begin = above + document[above..].find(BEGIN).unwrap() + BEGIN.len();
        let end = begin + document[begin..].find(END).unwrap();
        if updates() {
            document.replace_range(begin..end, &table);
        } else {
            let hint = "run `UPDATE=1 cargo nextest run --test house schema::`";
            assert!(document[begin..end] == table, "{path}: the table of {heading} is old: {hint}");
        }
        count += 1;
    }
    assert_eq!(count, document.matches(BEGIN).count(), "a table that the command does not write");
    if updates() {
        std::fs::write(root(path), document).unwrap();
    }
}

/// By which editors find the schema.
const SCHEMA_LINE: &str = "#:schema ./pillion.schema.json\n";

#[test]
fn reference_names_the_schema_and_has_the_sentence_of_every_key() {
    let path = "config/pillion.toml";
    let mut reference = read(path);
    let lacking: Vec<DeclaredKey> =
        shown().into_iter().filter(|key| !comments(&reference).contains(key.sentence)).collect();
    if updates() {
        reference = with_sentences(&reference, &lacking);
        if !reference.starts_with(SCHEMA_LINE) {
            reference.insert_str(0, SCHEMA_LINE);
        }
        std::fs::write(root(path), &reference).unwrap();
    }
    let lacking: Vec<String> = lacking
        .into_iter()
        .filter(|key| !comments(&reference).contains(key.sentence))
        .map(|key| format!("{}: {}", key.path, key.sentence))
        .collect();
    assert!(lacking.is_empty(), "{path} lacks: {lacking:#?}");
    assert!(reference.starts_with(SCHEMA_LINE), "{path} does not begin with {SCHEMA_LINE}");
}

/// Sections whose values are examples, as are values whose comment says so.
const EXAMPLES: [&str; 5] =
    ["routes.", "invalidate.", "rate_limit.tiers.", "server.tls.certificates", "identity.jwt.keys"];

#[test]
fn reference_has_the_default_of_every_key() {
    let reference = read("config/pillion.toml");
    let lines: Vec<&str> = reference.lines().collect();
    let mut held = 0;
    for key in shown() {
        if EXAMPLES.iter().any(|example| key.path.starts_with(example)) {
            continue;
        }
        let Some(default) = key.default else { continue };
        let number = line_of(&reference, &key.path).unwrap_or_else(|| panic!("{} has no line", key.path));
        let uncommented = |line: &&str| line.strip_prefix("# ").unwrap_or(line).to_owned();
        // A list may go on over several lines.
        let value =
            (1..).map(|count| lines[number..number + count].iter().map(uncommented).collect::<Vec<_>>());
        let whole = value.map(|lines| lines.join("\n")).find(|text| DeTable::parse(text).is_ok()).unwrap();
        let written = parsed(&whole).as_object().unwrap().values().next().unwrap().clone();
        let declared = parsed(&format!("a = {default}"))["a"].clone();
        assert!(is_same(&written, &declared), "{}: {written} and not {default}", key.path);
        held += 1;
    }
    assert!(held > 90, "{held}");
}

/// Whether two values mean the same: "60s" is "1m", and "unlimited" is "auto".
fn is_same(written: &Value, declared: &Value) -> bool {
    let seconds = |value: &Value| {
        let text = value.as_str()?;
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let factor = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        text.strip_suffix(unit)?.parse::<u64>().ok().map(|count| count * factor)
    };
    match (written, declared) {
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, value)| other.get(name).is_some_and(|other| is_same(value, other)))
        }
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (Value::String(one), Value::String(other)) => {
            one == other
                || (one == "unlimited" && other == "auto")
                || (seconds(written).is_some() && seconds(written) == seconds(declared))
        }
        (one, other) => one == other,
    }
}

#[test]
fn reference_says_which_keys_need_a_restart() {
    let reference = read("config/pillion.toml");
    let said = reference.lines().find(|line| line.contains("need a restart")).unwrap();
    for key in declared_keys().into_iter().filter(|key| key.restart) {
        let named = match key.path.strip_prefix("server.") {
            Some(name) if name != "listen" && !name.contains('.') => format!(" {name},"),
            _ if key.path.starts_with("metrics") => "[metrics]".to_owned(),
            _ if key.path.starts_with("redis") => "[redis]".to_owned(),
            _ => key.path.clone(),
        };
        assert!(said.contains(&named), "{named} is not in: {said}");
    }
}
