//! The command `pillion demo`: a small clinic API with Pillion in front of it, and a list of commands to try.

mod clinic;
mod fleet;
mod server;

use std::net::SocketAddr;

use clap::Args;

use super::output::{FAILED, OK, fail};
use crate::app::{self, Started};
use crate::config::Source;

/// The configuration of the demo if no other is given: its name and its text.
const CLINIC: (&str, &str) = ("examples/clinic.toml", include_str!("../../../examples/clinic.toml"));

/// The command-line options of the demo.
#[derive(Clone, Debug, Args)]
pub(super) struct Options {
    /// Address that Pillion listens on
    #[arg(short, long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Address of Pillion's admin listener
    #[arg(short, long, value_name = "ADDR", default_value = "127.0.0.1:9900")]
    admin: SocketAddr,
    /// Serve only the sample app, on this address, without Pillion
    #[arg(long, value_name = "ADDR")]
    app_only: Option<SocketAddr>,
    /// Configuration file to run Pillion with; the sample app replaces its upstream
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    config: Option<std::path::PathBuf>,
    /// Run three processes that share a Redis, on ADDR and the ports after it; redis-server or valkey-server is started
    #[arg(long, conflicts_with_all = ["app_only", "config"])]
    fleet: bool,
    /// URL of a Redis that runs already, for --fleet
    #[arg(long, value_name = "URL", requires = "fleet")]
    redis: Option<String>,
}

/// Runs the sample app and Pillion until the process is stopped.
pub(super) fn run(options: Options) -> u8 {
    if let Some(address) = options.app_only {
        return match server::start(address).map(|app| app.join()) {
            Ok(_) => OK,
            Err(why) => fail(FAILED, &format!("cannot listen on {address}: {why}")),
        };
    }
    if options.fleet {
        return fleet::run(options.listen, options.admin, options.redis.as_deref());
    }
    let app = match server::start(SocketAddr::from(([127, 0, 0, 1], 0))) {
        Ok(app) => app,
        Err(why) => return fail(FAILED, &why),
    };
    let source = Source {
        file: options.config,
        embedded: Some(CLINIC),
        upstream: Some(format!("http://{}", app.address)),
        listen: Some(options.listen.to_string()),
        admin: Some(options.admin.to_string()),
        ..Source::default()
    };
    match app::run(source, |started| greet(started, app.address)) {
        Ok(()) => OK,
        Err(why) => fail(FAILED, &why),
    }
}

fn greet(started: &Started, app: SocketAddr) {
    let Some((at, _)) = started.data.first() else { return };
    let admin = started.admin.map_or_else(|| "(off)".to_owned(), |admin| admin.to_string());
    println!(
        "
Pillion is in front of a small clinic API (which is at http://{app}). Try, in another terminal:

  curl -s http://{at}/api/patients | head -c 300              # a list from the app
  curl -s http://{at}/api/patients/7                           # one of them
  curl -si http://{at}/api/patients/7 | head -12               # with the request id Pillion gave it
  curl -s --compressed -w '%{{size_download}} bytes\\n' -o /dev/null http://{at}/api/patients   # the list, coded
  curl -s -w '%{{size_download}} bytes\\n' -o /dev/null http://{at}/api/patients   # and as it is
  tag=$(curl -si http://{at}/api/patients/7 | sed -n 's/^etag: //p' | tr -d '\\r'); curl -si -H \"If-None-Match: $tag\" http://{at}/api/patients/7 | head -1   # 304: you have it
  curl -s -X PUT http://{at}/api/patients/7 -d '{{\"city\":\"Tromso\"}}'   # a write really changes it
  ann='Authorization: Bearer ann'; curl -s -o /dev/null -H \"$ann\" http://{at}/api/patients/7; curl -si -H \"$ann\" http://{at}/api/patients/7 | grep -iE '^(age|cache-status|x-cache)'   # ann's copy, from the cache
  curl -si -H 'Authorization: Bearer bob' http://{at}/api/patients/7 | grep -i '^x-cache'   # nobody else gets that: the app decides what bob may see
  curl -s -X PUT http://{at}/api/patients/7 -d '{{\"city\":\"Bodo\"}}' -o /dev/null; curl -s -H 'Authorization: Bearer ann' http://{at}/api/patients/7   # a write drops what it changes, for all users
  curl -s -H 'Authorization: Bearer ann' -w '%{{time_total}} s\\n' -o /dev/null http://{at}/api/reports/visits   # a slow report
  curl -s -H 'Authorization: Bearer ann' -w '%{{time_total}} s\\n' -o /dev/null http://{at}/api/reports/visits   # her copy of it; nobody else gets that
  curl -s 'http://{admin}/cache/lookup?url=/api/patients/7'   # what is stored, and why
  curl -s 'http://{at}/api/%2e%2e/secrets'                     # what can be read in two ways is refused
  curl -s --http2-prior-knowledge http://{at}/api/patients/7   # the same over HTTP/2
  curl -s http://{admin}/ready                         # health, for orchestrators
  curl -s http://{admin}/metrics | grep http_requests  # numbers, for Prometheus

Stop it with Ctrl-C.
"
    );
}
