//! Tests of upstreams that die, hang, refuse, fill up or start late, and of what their clients notice. The origins are
//! scripts where the fault must be exact, and real nginx where it must be real.

mod connections;
mod health;
mod lines;
mod names;
mod pinned;
mod replay;
mod routes;
mod streams;
mod timeouts;
mod tools;
mod when;
