//! Why a request passes the cache by, and why it goes to the upstream at all (RFC 9211 2.2).

use crate::rendering::words::words;

words! {
    /// Reasons why a request goes to the upstream, in the words of RFC 9211 2.2.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum FwdReason {
        /// The cache is not used for such requests.
        Bypass => "bypass",
        /// The method is not served from the cache.
        Method => "method",
        /// Nothing is stored under the cache key.
        UriMiss => "uri-miss",
        /// Only responses for other request fields are stored.
        VaryMiss => "vary-miss",
        /// A response is stored, but may not be used for this request.
        Miss => "miss",
        Request => "request",
        /// The stored response is stale.
        Stale => "stale",
        /// The request has a Range.
        Partial => "partial",
    }
}

words! {
    /// Reasons why a request bypasses the cache.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum BypassReason {
        Method => "method",
        /// The route has `scope = "off"`.
        Scope => "scope-off",
        /// Users of its route received each other's responses: the route is not cached for an hour.
        Stopped => "stopped",
        /// It has content that is not part of a cache key, or is too long for one.
        Content => "content",
        /// It has a field that upstreams may act on and no cache key distinguishes, or its key would be too long.
        Ambiguous => "ambiguous",
        /// Its path can be read in another way, as one of another route.
        Path => "path",
        /// It has a field with an underscore in its name, which some upstreams read as another field.
        Underscore => "underscore",
        /// It has a parameter outside the cache key that some upstreams read as one in it.
        Parameter => "parameter",
        /// Its token does not verify.
        Token => "token",
        /// The route has `scope = "user"`, and the request has no principal.
        Nobody => "nobody",
        /// It has a signature over its fields, which the upstream verifies for each request.
        Signed => "signed",
        /// Its client connection is authenticated as a whole, so its fields do not identify the user.
        Connection => "connection",
        /// Its client wrote through another process, and this one has not read of that yet.
        Unread => "unread",
    }
}

impl BypassReason {
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            BypassReason::Method => "only the upstream can respond to this method",
            BypassReason::Scope => "the route has scope \"off\"",
            BypassReason::Stopped => {
                "two users got different responses on this route: it is not cached for an hour"
            }
            BypassReason::Content => "it has content that is not part of the cache key",
            BypassReason::Ambiguous => {
                "apps may act on one of its fields, which is not part of the cache key"
            }
            BypassReason::Underscore => {
                "it has a field with an underscore in its name, which some apps read as another field"
            }
            BypassReason::Parameter => {
                "it has a parameter that does not count and that some apps read as one that does"
            }
            BypassReason::Path => "its path can be read in two ways, and each meets another route",
            BypassReason::Token => "its token does not verify",
            BypassReason::Nobody => "the route has scope \"user\", and the request has no principal",
            BypassReason::Signed => "its signature covers fields that the app verifies",
            BypassReason::Unread => {
                "its client wrote through another process, and this one has not read of that yet"
            }
            BypassReason::Connection => {
                "its client connection is authenticated as a whole (NTLM or Negotiate)"
            }
        }
    }

    /// Returns the `fwd` parameter of `Cache-Status` (RFC 9211 2.2).
    pub(crate) fn forwarded(self) -> FwdReason {
        match self {
            BypassReason::Method => FwdReason::Method,
            _ => FwdReason::Bypass,
        }
    }
}
