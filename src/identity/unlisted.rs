//! Credentials that the configuration does not list: fields whose names show that a gateway, a framework or a cloud
//! identifies the user by them. The cache is cautious here: it treats a request with such a field as personal. RFC 9111
//! 3.5 knows only `Authorization`, but gateways and clients send many more.

/// The way in which an unlisted field or cookie concerns the sender's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unlisted {
    /// The field identifies or authenticates the sender.
    Credential,
    /// An anti-forgery token: it makes a request personal but identifies no user, and changes with each page.
    AntiForgery,
}

/// Prefixes of fields that gateways set about the user.
const BEGINNINGS: [&str; 13] = [
    "remote-",
    "x-remote-",
    "x-goog-iap-",
    "x-authentik-",
    "x-ms-client-principal",
    "x-ssl-client-",
    "ssl-client-",
    "x-amzn-mtls-",
    "x-shib-",
    "mellon-",
    "x-webauth-",
    "x-hasura-",
    "cf-access-client-",
];

const OTHER_KEYS: [&str; 6] = ["cache", "idempotency", "partition", "routing", "shard", "surrogate"];

/// Returns the kind of a field from its name in lower case.
pub(crate) fn field(name: &str) -> Option<Unlisted> {
    // Browsers reserve `sec-*` for their own fields.
    if name.len() < 3 || name.starts_with("sec-") {
        return None;
    }
    // A user agent's name identifies no user: `X-User-Agent`, `Device-User-Agent`.
    let name = name.strip_suffix("user-agent").unwrap_or(name);
    let mut before = "";
    let mut found = None;
    for word in name.split(['-', '_', '.']) {
        // Django's `csrftoken` and ASP.NET's `antiforgery` have no separator between their words.
        let guards = ["csrf", "xsrf", "antiforgery"].iter().any(|guard| word.starts_with(guard));
        if guards || word == "nonce" || word == "requestverificationtoken" {
            return Some(Unlisted::AntiForgery);
        }
        let names = match word {
            "token" | "tokens" | "accesstoken" | "authtoken" | "jwt" | "assertion" | "oidc" | "dpop" => true,
            "auth" | "authorization" | "authentication" | "authenticated" | "bearer" => true,
            "session" | "sessionid" | "secret" | "credential" | "credentials" | "password" | "passwd" => true,
            "account" | "user" | "userid" | "username" | "usertoken" | "uid" | "email" => true,
            "cert" | "clientcert" | "identity" | "principal" | "permissions" | "customer" | "employee" => {
                true
            }
            "member" | "login" | "sid" | "subject" | "sub" | "dn" | "eppn" | "role" | "roles" => true,
            "apikey" => true,
            // Gateways and stores put a word of their own before `key`: `Fastly-Key`, `X-Parse-Master-Key`.
            "key" => !before.is_empty() && before != "x" && !OTHER_KEYS.contains(&before),
            _ => false,
        };
        if names {
            found = Some(Unlisted::Credential);
        }
        before = word;
    }
    if found.is_some() {
        return found;
    }
    let told = BEGINNINGS.iter().any(|beginning| name.starts_with(beginning)) || name == "x-forwarded-groups";
    told.then_some(Unlisted::Credential)
}

/// Returns whether a cookie is an anti-forgery token.
pub(crate) fn is_anti_forgery(name: &[u8]) -> bool {
    const GUARDS: [&[u8]; 4] = [b"csrf", b"xsrf", b"antiforgery", b"requestverificationtoken"];
    GUARDS.iter().any(|guard| contains(name, guard)) || {
        let mut words = name.split(|byte| matches!(byte, b'-' | b'_' | b'.'));
        words.any(|word| word.eq_ignore_ascii_case(b"nonce"))
    }
}

/// Returns whether `text` contains `part`, ignoring case.
fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n1_4_field_names_that_say_who_asks() {
        use Unlisted::{AntiForgery, Credential};
        for (name, wanted) in [
            ("private-token", Some(Credential)),
            ("x-auth-token", Some(Credential)),
            ("jwt", Some(Credential)),
            ("token", Some(Credential)),
            ("x-token-user-agent", Some(Credential)),
            ("cf-access-jwt-assertion", Some(Credential)),
            ("x-amzn-oidc-data", Some(Credential)),
            ("x-api-key", Some(Credential)),
            ("api-key", Some(Credential)),
            ("apikey", Some(Credential)),
            ("x-functions-key", Some(Credential)),
            ("ocp-apim-subscription-key", Some(Credential)),
            ("x-goog-iap-jwt-assertion", Some(Credential)),
            ("x-goog-authenticated-user-email", Some(Credential)),
            ("x-authentik-groups", Some(Credential)),
            ("x-ms-client-principal", Some(Credential)),
            ("x-ms-client-principal-name", Some(Credential)),
            ("dpop", Some(Credential)),
            ("remote-groups", Some(Credential)),
            ("x-remote-user", Some(Credential)),
            ("x-forwarded-user", Some(Credential)),
            ("x-forwarded-groups", Some(Credential)),
            ("x-forwarded-client-cert", Some(Credential)),
            ("x-ssl-client-s-dn", Some(Credential)),
            ("x_auth_token", Some(Credential)),
            ("ssl-client-subject-dn", Some(Credential)),
            ("x-amzn-mtls-clientcert-serial-number", Some(Credential)),
            ("x-arr-clientcert", Some(Credential)),
            ("x-client-dn", Some(Credential)),
            ("x-shib-persistent", Some(Credential)),
            ("eppn", Some(Credential)),
            ("mellon-name-id", Some(Credential)),
            ("x-webauth-name", Some(Credential)),
            ("x-member-id", Some(Credential)),
            ("x-subject", Some(Credential)),
            ("x-sub", Some(Credential)),
            ("x-login", Some(Credential)),
            ("x-sid", Some(Credential)),
            ("x-role", Some(Credential)),
            ("x-hasura-org", Some(Credential)),
            ("fastly-key", Some(Credential)),
            ("x-rapidapi-key", Some(Credential)),
            ("x-parse-master-key", Some(Credential)),
            ("x-cache-key", None),
            ("x-key", None),
            ("x-csrf-token", Some(AntiForgery)),
            ("x-csrftoken", Some(AntiForgery)),
            ("x-xsrf-token", Some(AntiForgery)),
            ("x-request-nonce", Some(AntiForgery)),
            ("requestverificationtoken", Some(AntiForgery)),
            ("user-agent", None),
            ("x-user-agent", None),
            ("x-original-user-agent", None),
            ("device-user-agent", None),
            ("x-customer-id", Some(Credential)),
            ("x-uid", Some(Credential)),
            ("x-identity", Some(Credential)),
            ("x-principal-name", Some(Credential)),
            ("x-permissions", Some(Credential)),
            ("cf-access-client-id", Some(Credential)),
            ("x-usertoken", Some(Credential)),
            ("sec-fetch-user", None),
            ("sec-websocket-key", None),
            ("idempotency-key", None),
            ("x-forwarded-for", None),
            ("x-forwarded-proto", None),
            ("x-announcement", None),
            ("accept-language", None),
            ("authority", None),
            ("te", None),
        ] {
            assert_eq!(field(name), wanted, "{name}");
        }
        for (name, wanted) in [
            ("csrftoken", true),
            ("XSRF-TOKEN", true),
            (".AspNetCore.Antiforgery.x", true),
            (".AspNetCore.OpenIdConnect.Nonce.x", true),
            ("session", false),
            ("announce", false),
        ] {
            assert_eq!(is_anti_forgery(name.as_bytes()), wanted, "{name}");
        }
    }
}
