//! Tests of the process's life: reload while clients are served, shutdown, failed starts, and supervision, with real
//! signals to the real binary.

mod activation;
mod drain;
mod lines;
mod reload;
mod start;
mod tools;
mod watch;
