//! Parts of the crate for the benchmarks, the fuzz targets and some tests of this repository. They are no public
//! contract and change at any time.

pub mod configuration;
pub mod contract;
pub mod credentials;
pub mod fields;
pub mod hpack;
pub mod paths;
pub mod routes;
pub mod store;

pub use crate::cache::canonical::json as canonical_json;

pub use crate::config::diagnostic::ReadKey;
pub use crate::config::key_list::DeclaredKey;
pub use crate::connection::stream::PeerLeft;
pub use crate::fields::reason::ReasonPhrase;
pub use crate::http1::chunked::{Decoded, Decoder};
pub use crate::http1::encode::{Beside, Connection, Outgoing, request_head, response_head};
pub use crate::http1::framing::Framing;
pub use crate::http1::head::{HeadLimits, parse_request, parse_response};
pub use crate::http2::trailers::{Sender, Watched};
pub use crate::identity::json::object as json_object;
pub use crate::policy::path::normalise;
pub use crate::policy::source_file::SourceFile;
pub use crate::server::proxy_protocol::{addresses, text};
