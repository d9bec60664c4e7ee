//! `[identity]` and `[identity.jwt]`.

use super::declare::table;
use super::kind::{Switch, Text, Texts, Value, flag, texts};

/// The default of `identity.principal`: Authorization, and the session cookies of frameworks. Names of cookies are
/// compared without regard to case, and without the prefixes `__Secure-` and `__Host-`.
pub(crate) const PRINCIPAL: [&str; 31] = [
    "header:authorization",
    "cookie:session",
    "cookie:sessionid",
    "cookie:*_session",
    "cookie:*-session",
    "cookie:_*_key",
    "cookie:sid",
    "cookie:*.sid",
    "cookie:connect.sid",
    "cookie:JSESSIONID*",
    "cookie:PHPSESSID*",
    "cookie:*session-token",
    "cookie:*session-token.*",
    "cookie:sb-*-auth-token*",
    "cookie:ASP.NET_SessionId",
    "cookie:.AspNetCore.*",
    "cookie:.ASPXAUTH",
    "cookie:wordpress_logged_in_*",
    "cookie:wordpress_sec_*",
    "cookie:SESS*",
    "cookie:SSESS*",
    "cookie:ci_session*",
    "cookie:__session",
    "cookie:appSession*",
    "cookie:_oauth2_proxy*",
    "cookie:remember_*",
    "cookie:MoodleSession*",
    "cookie:access_token",
    "cookie:auth_token",
    "cookie:jwt",
    "cookie:token",
];

table! {
    /// `[identity]`.
    identity, in credentials, requires [];
    PRINCIPAL_KEY "principal": Texts = texts(&PRINCIPAL), Reload,
        "Credentials that tell users apart: \"header:NAME\", \"cookie:NAME\", \"basic\", \"jwt:CLAIM\" or \"ip\".";
    API_KEY "api_key": Text = Text("header:x-api-key"), Reload,
        "Where a request has its API key: \"header:NAME\", \"query:NAME\" or \"jwt:CLAIM\".";
    HASH_KEY "hash_key": Text = Text(""), Reload,
        "Secret of the keyed hash, 16 characters or more; \"\" takes a random one for each process.";
    JWT "jwt": Switch = Switch(&jwt::TABLE), Reload,
        "Keys and rules that verify tokens.";
}

table! {
    /// `[identity.jwt]`.
    jwt, in credentials, requires [];
    KEYS "keys": Texts = texts(&[]), Reload,
        "Files of public keys, as PEM or JWKS.";
    HS256 "hs256": Text = Text(""), Reload,
        "File of a shared secret of 32 bytes or more, for HS256 alone.";
    JWKS_URL "jwks_url": Text = Text(""), Reload,
        "URL of a JWKS, which is fetched at the start and every five minutes.";
    TOKEN "token": Text = Text("header:authorization"), Reload,
        "Where a request has its token: \"header:NAME\" or \"cookie:NAME\".";
    ISSUER "issuer": Text = Text(""), Reload,
        "Issuer (iss) that a token must name; \"\" accepts any.";
    AUDIENCE "audience": Text = Text(""), Reload,
        "Audience (aud) that a token must name; \"\" accepts any.";
    REQUIRE_EXP "require_exp": Value<bool> = flag(true), Reload,
        "Whether a token without an expiry (exp) is refused.";
}
