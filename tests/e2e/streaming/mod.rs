//! Tests of bodies that are forwarded as they arrive: large ones in little memory, slow readers that slow down their
//! writers, events that arrive when they are sent, and responses that begin before their requests end.

mod both_ways;
mod events;
mod memory;
mod pace;
mod tools;
