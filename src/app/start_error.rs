//! Errors that keep the process from starting.

use std::io;
use std::net::SocketAddr;

use super::inherited::InheritError;
use crate::config;

/// The reason why the process did not start.
#[derive(Debug)]
pub(crate) enum StartError {
    Config(config::LoadError),
    Bind(&'static str, SocketAddr, io::Error),
    /// A socket that the service manager passed cannot be used.
    Inherit(InheritError),
    System(&'static str, io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartError::Config(error) => error.fmt(f),
            StartError::Bind(key, address, error) => write!(f, "cannot listen on {address} ({key}): {error}"),
            StartError::Inherit(error) => error.fmt(f),
            StartError::System(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}
