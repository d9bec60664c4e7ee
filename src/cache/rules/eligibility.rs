//! Why a request passes the cache by, and why it goes to the upstream at all (RFC 9211 2.2).

use crate::rendering::words::words;

words! {
    /// Why the app is asked, in the words of RFC 9211 2.2.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum FwdReason {
        /// The cache is not used for such requests.
        Bypass => "bypass",
        /// The method is for the app to answer.
        Method => "method",
        /// Nothing is stored under the key.
        UriMiss => "uri-miss",
        /// Something is, but for requests that say something else.
        VaryMiss => "vary-miss",
        /// Something is that may not be used for this request.
        Miss => "miss",
        Request => "request",
        /// What is stored is stale.
        Stale => "stale",
        /// A part is asked for.
        Partial => "partial",
    }
}

words! {
    /// Why the cache has nothing to do with a request.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum BypassReason {
        Method => "method",
        /// `scope = "off"`.
        Scope => "scope-off",
        /// Users were given each other's answers under its route: it is not cached for an hour.
        Stopped => "stopped",
        /// It has content where none is part of a key, or more than can be.
        Content => "content",
        /// A field that apps may act on and no key tells apart, or a path that no key can be made of.
        Ambiguous => "ambiguous",
        /// A path that some apps read in another way, as one of another route.
        Path => "path",
        /// A field with an underscore in its name, which some apps take for another field.
        Underscore => "underscore",
        /// A parameter that is no part of the key and that some apps read as one that is.
        Parameter => "parameter",
        /// A token that does not verify.
        Token => "token",
        /// `scope = "user"`, and it is nobody's.
        Nobody => "nobody",
        /// A signature names fields of it, which the app verifies for each request.
        Signed => "signed",
        /// Its client connection was authenticated as a whole, so the request does not say who asks.
        Connection => "connection",
    }
}

impl BypassReason {
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            BypassReason::Method => "the method is for the app to answer",
            BypassReason::Scope => "the route has scope \"off\"",
            BypassReason::Stopped => {
                "two users got different answers under this route: it is not cached for an hour"
            }
            BypassReason::Content => "it has content that is no part of a key",
            BypassReason::Ambiguous => "it has a field that apps may act on and no key tells apart",
            BypassReason::Underscore => {
                "it has a field with an underscore in its name, which some apps take for another one"
            }
            BypassReason::Parameter => {
                "it has a parameter that does not count and that some apps read as one that does"
            }
            BypassReason::Path => "its path can be read in two ways, and each meets another route",
            BypassReason::Token => "its token does not verify",
            BypassReason::Nobody => "the route has scope \"user\", and it names none",
            BypassReason::Signed => "it is signed, and its signature names fields that the app verifies",
            BypassReason::Connection => "its connection is authenticated as a whole (NTLM or Negotiate)",
        }
    }

    /// As `Cache-Status` has it (RFC 9211 2.2).
    pub(crate) fn forwarded(self) -> FwdReason {
        match self {
            BypassReason::Method => FwdReason::Method,
            _ => FwdReason::Bypass,
        }
    }
}
