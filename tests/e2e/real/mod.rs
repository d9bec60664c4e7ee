//! Tests with real apps and their real clients: Express, Connect, grpc-core, boto3 and a browser. `tests/run` installs
//! them. `PILLION_ACCEPTANCE=1` makes silences as long as in production.

mod events;
mod express;
mod objects;
mod silences;
mod streams;
mod tools;
