//! End-to-end tests of changed representations: curl decodes responses itself, nginx is an app with entity tags and
//! ranges, and scripts record the requests they get.

mod codings;
mod conditions;
mod made;
mod ranges;
mod streams;
mod time;
mod tools;
mod weight;
