//! `[[routes]]`, but for `cache` and `limits`.

use super::caching::route_cache;
use super::declare::{Form, table};
use super::kind::{
    DATE, Optional, OptionalTexts, Own, Switch, TEXT, Texts, Value, WordOrTexts, code, flag,
    optional_duration, optional_number, texts,
};
use crate::config::table_reader::{AutoOr, Size};
use std::time::Duration;

const OPTIONAL_SIZE: Optional<AutoOr<Size>> =
    Optional::of_form(Form::Size { bounds: (0, u64::MAX), auto: true });

table! {
    /// One of `[[routes]]`.
    route, in routes, requires ["match"];
    MATCH "match": Optional<String> = TEXT, Reload,
        "Requests of the route, as METHOD[,METHOD] [host]path; {name} is one segment or a part of it, ** any number.";
    WHEN "when": Switch = Switch(&when::TABLE), Reload,
        "Conditions on the requests that match takes; all must hold, else matching goes on below.";
    ALLOW "allow": OptionalTexts = OptionalTexts, Reload,
        "Networks, or \"private\", whose clients the route serves; others get 403.";
    UPSTREAM "upstream": Optional<String> = TEXT, Reload,
        "Name of the upstream in [upstreams] that gets the requests.";
    REWRITE "rewrite": Optional<String> = TEXT, Reload,
        "Path that takes the place of the request's own before the routes below are tried.";
    DENY "deny": Optional<u64> = optional_number(400..=599), Reload,
        "Status with which every request of the route is refused.";
    REDIRECT "redirect": Switch = Switch(&redirect::TABLE), Reload,
        "Redirect that every request of the route gets.";
    DEPRECATED "deprecated": Switch = Switch(&deprecated::TABLE), Reload,
        "Deprecation that every response of the route announces.";
    TIMEOUT "timeout": Optional<Duration> = optional_duration(false), Reload,
        "Response timeout of the route, in place of the upstream's response_timeout.";
    STREAM "stream": Value<bool> = flag(false), Reload,
        "Whether requests of the route are streams from their start and are never stored.";
    MAX_BODY_SIZE "max_body_size": Optional<AutoOr<Size>> = OPTIONAL_SIZE, Reload,
        "Maximum size of a request body of the route, in place of server.max_body_size.";
    SET_REQUEST "set_request": Own = Own(Form::Texts), Reload,
        "Fields that are set in each request to the upstream.";
    REMOVE_REQUEST "remove_request": Texts = texts(&[]), Reload,
        "Names of fields that are removed from each request to the upstream.";
    SET_RESPONSE "set_response": Own = Own(Form::Texts), Reload,
        "Fields that are set in each response to the client.";
    REMOVE_RESPONSE "remove_response": Texts = texts(&[]), Reload,
        "Names of fields that are removed from each response to the client.";
    COMPRESS "compress": Value<bool> = flag(true), Reload,
        "Whether responses of the route are compressed.";
    ETAG "etag": Value<bool> = flag(true), Reload,
        "Whether responses of the route without a validator get an entity tag.";
    BROWSER_TTL "browser_ttl": Optional<Duration> = optional_duration(true), Reload,
        "Freshness lifetime that browsers get, in place of the upstream's.";
    CACHE "cache": Switch = Switch(&route_cache::TABLE), Reload,
        "How responses of the route are stored.";
    LIMITS "limits": WordOrTexts = WordOrTexts("none"), Reload,
        "Names of limits that hold on this route too, or \"none\" for no quota.";
    COST "cost": Optional<u64> = optional_number(1..=u32::MAX as u64), Reload,
        "Number of requests that one request of the route counts as.";
    CONCURRENCY "concurrency": Optional<u64> = optional_number(1..=1_000_000), Reload,
        "Maximum number of requests in flight for each client key, else 429.";
}

table! {
    /// `when` of a route.
    when, in routes, requires [];
    QUERY "query": Own = Own(Form::NamesOrTexts), Reload,
        "Query parameters that must be there, alone or with one of the values.";
    HEADER "header": Own = Own(Form::NamesOrTexts), Reload,
        "Request fields that must be there, alone or with one of the values.";
    COOKIE "cookie": Texts = texts(&[]), Reload,
        "Names of cookies of which one must be there.";
    NOT_COOKIE "not_cookie": Texts = texts(&[]), Reload,
        "Names of cookies of which none may be there.";
}

table! {
    /// `redirect` of a route.
    redirect, in routes, requires ["to"];
    TO "to": Optional<String> = TEXT, Reload,
        "URL or path of the redirect, filled with what match captures.";
    STATUS "status": Value<u64> = code(308, &[301, 302, 303, 307, 308]), Reload,
        "Status of the redirect.";
}

table! {
    /// `deprecated` of a route.
    deprecated, in routes, requires ["since"];
    SINCE "since": Optional<String> = DATE, Reload,
        "Date in the Deprecation field.";
    SUNSET "sunset": Optional<String> = DATE, Reload,
        "Date in the Sunset field.";
    LINK "link": Optional<String> = TEXT, Reload,
        "URL in the Link field with rel=\"deprecation\".";
}
