//! `pillion explain`: what Pillion would do with a request, and why; with `--live` also what a running one holds of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use http::{HeaderName, HeaderValue, Method, Uri};

use super::control::Admin;
use super::{FAILED, OK, PROBLEMS, default_file, fail};
use crate::app;
use crate::config::{self, Source};
use crate::layer::explain::{self, AskedAs, Explanation};

/// A request, as curl takes it.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Its method
    method: Method,
    /// Its URL, or its path
    url: Uri,
    /// A field of it: "Name: value"
    #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = field)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The address it comes from
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    client: IpAddr,
    /// Ask a running Pillion too: what is stored for it, where its caller stands
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    admin: Admin,
}

fn field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("expected \"Name: value\"")?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|error| error.to_string())?;
    let value = HeaderValue::from_str(value.trim()).map_err(|error| error.to_string())?;
    Ok((name, value))
}

/// Explains it.
pub fn run(options: Options) -> u8 {
    let Some(file) = options.admin.file().or_else(default_file) else {
        return fail(FAILED, &"no configuration: give --config FILE");
    };
    let policy = match config::load(&Source { file: Some(file), ..Source::default() }, &app::environment()) {
        Ok(policy) => policy,
        Err(problems) => {
            eprintln!("{problems}");
            return PROBLEMS;
        }
    };
    let (snapshot, sink) = match app::rehearse(policy) {
        Ok(rehearsed) => rehearsed,
        Err(error) => return fail(FAILED, &error),
    };
    let request = explain::request(&options.method, &options.url, &options.headers);
    let explanation = explain::explain(request, SocketAddr::new(options.client, 0), &snapshot, &sink);
    print!("{explanation}");
    if options.live {
        return live(&options, &explanation);
    }
    OK
}

/// What a running Pillion holds.
fn live(options: &Options, explanation: &Explanation) -> u8 {
    let mut questions =
        vec![("stored", format!("/cache/lookup?url={}", super::control::encoded(&options.url.to_string())))];
    if let Some(AskedAs::Key(key)) = &explanation.caller {
        questions.push(("stands", format!("/limits/status?key={}", super::control::encoded(key))));
    }
    for (name, path) in questions {
        match options.admin.ask(&path) {
            Ok(answer) => println!("{name:<12} {}", indented(&answer)),
            Err(why) => return fail(FAILED, &why),
        }
    }
    if let Some(AskedAs::Unknown) = explanation.caller {
        println!(
            "{:<12} not known: without identity.hash_key each process has its own hash of this caller; /limits/top has all",
            "stands"
        );
    }
    OK
}

/// A document over several lines, under what stands before its first.
fn indented(document: &str) -> String {
    let value: Option<serde_json::Value> = serde_json::from_str(document).ok();
    let text = value.and_then(|value| serde_json::to_string_pretty(&value).ok());
    text.unwrap_or_else(|| document.to_owned()).replace('\n', &format!("\n{:<13}", ""))
}

/// The file that `--config` names.
impl Admin {
    fn file(&self) -> Option<PathBuf> {
        self.config.clone()
    }
}
