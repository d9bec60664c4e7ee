//! Parts of the engines that the benchmarks, the fuzz targets and some tests of this repository use. They are no contract:
//! they change whenever the engines do.

pub mod configuration;
pub mod contract;
pub mod credentials;
pub mod fields;
pub mod hpack;
pub mod paths;
pub mod routes;
pub mod store;

pub use crate::{
    cache::canonical::json as canonical_json,
    config::problem::ReadKey,
    fields::reason::ReasonPhrase,
    http1::chunked::{Decoded, Decoder},
    http1::encode::{Beside, Connection, Outgoing, request_head, response_head},
    http1::framing::Framing,
    http1::head::{HeadLimits, parse_request, parse_response},
    http2::trailers::{Sender, Watched},
    identity::json::object as json_object,
    policy::path::normalise,
    policy::source_file::SourceFile,
    server::proxy_protocol::{addresses, text},
    stream::PeerLeft,
};
