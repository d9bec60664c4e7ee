//! The command `pillion explain`: what Pillion would do with a request, and why. With `--live` it also asks a running
//! Pillion what it has stored for the request.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use http::{HeaderName, HeaderValue, Method, Uri};
use serde_json::Value;

use super::control::{Admin, TIMEOUT, detail};
use super::output::{FAILED, OK, PROBLEMS, complain, fail};
use super::source::{NO_FILE, default_or_hidden_file};
use crate::app;
use crate::config::{self, Source};
use crate::layer::explain;
use crate::layer::explain::facts::{AskedAs, Facts, LimitFacts, StoredView, Whose};
use crate::layer::explain::head::SampleRequest;
use crate::layer::explain::render::Explanation;
use crate::log::printable;

/// A request, as curl takes it.
#[derive(Clone, Debug, Args)]
pub(super) struct Options {
    /// Method of the request
    #[arg(required_unless_present = "request_id")]
    method: Option<Method>,
    /// URL or path of the request
    #[arg(required_unless_present = "request_id")]
    url: Option<Uri>,
    /// Field of the request: "Name: value"
    #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = field)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Client address of the request
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    client: IpAddr,
    /// Ask a running Pillion too: show stored responses and the state of the caller's limits
    #[arg(long)]
    live: bool,
    /// Show instead what a running Pillion decided about a request of late, by its X-Request-Id
    #[arg(long, value_name = "ID", conflicts_with_all = ["method", "url", "headers", "client", "live"])]
    request_id: Option<String>,
    #[command(flatten)]
    admin: Admin,
}

fn field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("expected \"Name: value\"")?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|error| error.to_string())?;
    let value = HeaderValue::from_str(value.trim()).map_err(|error| error.to_string())?;
    Ok((name, value))
}

/// Explains the request on standard output; returns the exit code.
pub(super) fn run(options: Options) -> u8 {
    if let Some(id) = &options.request_id {
        return decided(&options.admin, id);
    }
    let (Some(method), Some(uri)) = (options.method.clone(), options.url.clone()) else {
        return fail(PROBLEMS, &"give a method and a URL, or --request-id ID");
    };
    let Some(file) = options.admin.file().or_else(default_or_hidden_file) else {
        return fail(FAILED, &format_args!("{NO_FILE}: give --config FILE"));
    };
    let policy = match config::load(&Source { file: Some(file), ..Source::default() }, &app::environment()) {
        Ok(policy) => policy,
        Err(problems) => {
            complain(&problems);
            return PROBLEMS;
        }
    };
    let (snapshot, sink) = match app::rehearse(policy, None) {
        Ok(rehearsed) => rehearsed,
        Err(error) => return fail(FAILED, &error),
    };
    let sample = SampleRequest {
        method,
        uri,
        fields: options.headers.clone(),
        client: SocketAddr::new(options.client, 0),
        content: None,
        claims: None,
    };
    let facts = explain::explain(&sample, &snapshot, &sink);
    let mut text = Explanation::new(&facts).to_string();
    let ended = if options.live { live(&options, &facts, &mut text) } else { OK };
    // A reader such as `head` may have closed the pipe, which is no error.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ended
}

/// Shows what a running Pillion decided about a request; returns the exit code.
fn decided(admin: &Admin, id: &str) -> u8 {
    let path = format!("/explain?request_id={}", super::control::encoded(id));
    let response = match admin.get(&path, TIMEOUT) {
        Ok((true, response)) => response,
        Ok((false, response)) => return fail(FAILED, &detail(&response).unwrap_or(response)),
        Err(why) => return fail(FAILED, &why),
    };
    let document: Value = serde_json::from_str(&response).unwrap_or_default();
    let Some(parts) = document["explanation"].as_array() else {
        return fail(
            FAILED,
            &"the admin listener did not respond with an explanation; is it another version?",
        );
    };
    let mut text = String::new();
    for part in parts {
        let lines = |name: &str| part[name].as_str().unwrap_or("-").lines();
        let member = |name: &str| lines(name).map(printable).collect::<Vec<_>>().join("\n");
        say(&mut text, &member("part"), &member("text"));
    }
    // A reader such as `head` may have closed the pipe, which is no error.
    let _ = std::io::stdout().write_all(text.as_bytes());
    OK
}

/// Appends the state of a running Pillion: stored responses and the caller's quota.
fn live(options: &Options, facts: &Facts, text: &mut String) -> u8 {
    let ask = |path: &str, value: &str, further: &str| -> Result<Value, u8> {
        let response = options.admin.ask(&format!("{path}{}{further}", super::control::encoded(value)));
        let response = response.map_err(|why| fail(FAILED, &why))?;
        Ok(serde_json::from_str(&response).unwrap_or_default())
    };
    if let Some(key) = facts.read().and_then(|read| read.stored.as_ref()) {
        let url = format!("http://{}{}", key.host, key.target);
        // A key with a principal is the process's only where both hash alike.
        let hex = facts.read().filter(|_| !matches!(key.whose, Whose::Unknown)).map(|read| &read.key);
        let hex: String = hex.iter().flat_map(|key| key.iter()).map(|byte| format!("{byte:02x}")).collect();
        let further = if hex.is_empty() { String::new() } else { format!("&key={hex}") };
        match ask("/cache/lookup?url=", &url, &further) {
            Ok(found) => {
                stored(&found, key, text);
                in_redis(&found["redis"], text);
            }
            Err(failed) => return failed,
        }
    }
    let Some(limits) = facts.limits() else { return OK };
    let key = match &limits.caller {
        AskedAs::Key(key) => key.clone(),
        AskedAs::Address(address) => address.to_string(),
        AskedAs::Unknown => {
            say(
                text,
                "stands",
                "unknown: without identity.hash_key each process hashes this caller differently; \
                /limits/top lists all",
            );
            return OK;
        }
    };
    match ask("/limits/status?key=", &key, "") {
        Ok(found) => stands(&found, limits, text),
        Err(failed) => return failed,
    }
    OK
}

fn say(text: &mut String, name: &str, said: &str) {
    *text += &format!("{name:<12} {}\n", said.replace('\n', &format!("\n{:<13}", "")));
}

/// Appends the responses stored under this request's cache key, ignoring `Vary`, and the number of others under its
/// URL.
fn stored(found: &Value, key: &StoredView, text: &mut String) {
    let all = found["found"].as_array().map_or(&[][..], Vec::as_slice);
    let is_key = |entry: &&Value| {
        entry["scheme"] == if key.https { "https" } else { "http" }
            && entry["host"].as_str().is_some_and(|host| host.eq_ignore_ascii_case(&key.host))
            && entry["told_host"].as_str() == key.told_host.as_deref()
            && entry["upstream"] == key.upstream.as_str()
            // A target with a query was looked up with that query, so the entry has it.
            && (key.target.contains('?') || entry["query"] == "")
    };
    let fits = |entry: &&Value| {
        let whose = match &key.whose {
            Whose::Unknown => false,
            Whose::All => entry["principal"].is_null(),
            Whose::Principal(hash) => entry["principal"] == hash.as_str(),
        };
        is_key(entry) && whose
    };
    let (fitting, others): (Vec<&Value>, Vec<&Value>) = all.iter().partition(fits);
    for entry in &fitting {
        say(text, "stored", &serde_json::to_string_pretty(entry).unwrap_or_default());
    }
    let others = others.len();
    let rest = format!("{others} more under this URL, of other users or by another cache key");
    match (&key.whose, fitting.is_empty(), others) {
        (Whose::Unknown, _, 1..) => say(
            text,
            "stored",
            &format!(
                "{others} under this URL; whether one is this principal's is not known: without identity.hash_key each process has its own hash"
            ),
        ),
        (_, true, 0) => say(text, "stored", "nothing"),
        (_, true, _) => say(text, "stored", &format!("nothing for this request; {rest}")),
        (_, false, 0) => {}
        (_, false, _) => say(text, "stored", &rest),
    }
}

/// Appends what Redis has for this request, where the processes of a fleet share responses.
fn in_redis(found: &Value, text: &mut String) {
    let seconds = |name: &str| found[name].as_i64().unwrap_or_default();
    let said = match found["result"].as_str() {
        None | Some("off") => return,
        Some("hit") => format!(
            "a response with status {} and {} bytes, {} s old, fresh for {} s, kept for {} s; valid from position {}",
            found["status"],
            found["content_bytes"],
            seconds("age"),
            seconds("ttl"),
            seconds("kept_for"),
            found["position"].as_str().unwrap_or("?"),
        ),
        Some("miss") => "nothing".to_owned(),
        Some("varies") => format!("responses that vary with {}", found["vary"]),
        Some("late") => "unknown: it did not respond in time".to_owned(),
        Some("unreadable") => "something that cannot be read, so it is not used".to_owned(),
        Some(other) => format!("unknown: {other}"),
    };
    say(text, "in Redis", &said);
}

/// Appends the caller's standing with the quotas of this request, and whether the request would be allowed.
fn stands(found: &Value, caller: &LimitFacts, text: &mut String) {
    say(text, "stands", &serde_json::to_string_pretty(found).unwrap_or_default());
    let limits = found["limits"].as_array().map_or(&[][..], Vec::as_slice);
    // The admin listener omits limits of which nothing is used.
    let spent = caller.quotas.iter().filter_map(|quota| {
        let is_it =
            |limit: &&Value| limit["tier"] == caller.tier.as_str() && limit["limit"] == quota.name.as_str();
        let limit = limits.iter().find(is_it)?;
        let short = limit["remaining"].as_u64()? < u64::from(caller.cost);
        short.then(|| (quota.name.as_str(), limit["shadow"] == true))
    });
    let spent: Vec<(&str, bool)> = spent.collect();
    let names = spent.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" and ");
    let verdict = match spent.as_slice() {
        _ if caller.rejected => "it would be refused: 401".to_owned(),
        [] if caller.max_in_flight.is_some() => {
            "its quotas would allow it now; how many are in flight is not known".to_owned()
        }
        [] if caller.quotas.is_empty() => "no quota applies to it".to_owned(),
        [] => "it would be allowed now".to_owned(),
        _ if spent.iter().all(|(_, shadow)| *shadow) => {
            format!("it would be limited now by {names}, were it not for shadow mode")
        }
        _ => format!("it would be limited now, by {names}"),
    };
    say(text, "", &verdict);
}

/// Access to the value of `--config` for this command.
impl Admin {
    fn file(&self) -> Option<PathBuf> {
        self.config.clone()
    }
}
