//! Definitions that other directives name: upstream blocks, and the zones of limits.

use super::location::Settings;
use super::read::Directive;
use super::server::Converter;
use crate::cli::convert::output::Zone;
use crate::cli::convert::values::{named, rate, string};

impl Converter {
    /// Takes what other directives name: upstream blocks and zones.
    pub(super) fn definition(&mut self, directive: &Directive) {
        match directive.name.as_str() {
            "upstream" => {
                let servers = directive.inner().iter().filter(|inner| inner.name == "server");
                let addresses: Vec<String> = servers.clone().map(|server| server.arg(0).to_owned()).collect();
                for server in servers.filter(|server| server.args.len() > 1) {
                    let why = "all addresses are alike; failed ones are found by [upstream.health]";
                    self.output.note(&server.place, &server.shown(), why);
                }
                self.groups.insert(directive.arg(0).to_owned(), addresses);
            }
            "limit_req_zone" => self.zone(directive),
            _ => {}
        }
    }

    pub(super) fn zone(&mut self, directive: &Directive) {
        let value = |name: &str| directive.args.iter().find_map(|arg| arg.strip_prefix(name));
        let name = value("zone=").and_then(|zone| zone.split(':').next());
        let (Some(name), Some(rate)) = (name, value("rate=").and_then(rate)) else {
            return self.output.note(&directive.place, &directive.shown(), "its value is not understood");
        };
        let key = match directive.arg(0) {
            "$binary_remote_addr" | "$remote_addr" => Some("ip"),
            "$http_authorization" => Some("principal"),
            key => match key.strip_prefix("$http_") {
                Some(field) => {
                    let field = format!("header:{}", field.replace('_', "-"));
                    self.output.identity.retain(|(name, _)| name != "api_key");
                    self.output.identity.push(("api_key".to_owned(), string(&field)));
                    Some("api_key")
                }
                None => None,
            },
        };
        if key.is_none() {
            let why = "limits count by address, API key or principal";
            self.output.note(&directive.place, &directive.shown(), why);
        }
        self.zones.insert(name.to_owned(), Zone { key, rate });
    }

    /// Takes the `limit_req` directives of a block.
    pub(super) fn limits(&mut self, directives: &[Directive], settings: &mut Settings) {
        for directive in directives.iter().filter(|directive| directive.name == "limit_req") {
            let value = |name: &str| directive.args.iter().find_map(|arg| arg.strip_prefix(name));
            let Some((name, zone)) =
                value("zone=").and_then(|name| Some((name, self.zones.get(name)?.clone())))
            else {
                self.output.note(&directive.place, &directive.shown(), "its zone is not there");
                continue;
            };
            let Some(key) = zone.key else { continue };
            if *self.output.limit_key.get_or_insert(key) != key {
                let why = "all limits count by one key (rate_limit.key)";
                self.output.note(&directive.place, &directive.shown(), why);
                continue;
            }
            // nginx counts the burst beyond the request that the rate allows.
            let burst =
                value("burst=").and_then(|burst| burst.parse::<u32>().ok()).unwrap_or(0).saturating_add(1);
            let limit = format!("{{ rate = \"{}\", burst = {burst}, on = \"named\" }}", zone.rate);
            let name = named(name);
            match self.output.limits.iter().find(|(known, _)| *known == name) {
                Some((_, known)) if *known != limit => {
                    let why = "a limit has one burst; the first counts";
                    self.output.note(&directive.place, &directive.shown(), why);
                }
                Some(_) => {}
                None => self.output.limits.push((name.clone(), limit)),
            }
            settings.limits.push(name);
        }
    }
}
