//! Tests with HTTP/2 upstreams, and of the effects of clients on the connections they share.

mod behind;
mod dead;
mod faults;
mod heads;
mod stalled;
mod times;
mod tls_files;
mod tools;

use super::clients::tools as clients;
