//! Commands, and what Redis sends back. Only this file and `connect` know the library of the protocol.

use std::fmt;

/// A command with its arguments.
pub(crate) struct Command(pub(super) redis::Cmd);

impl Command {
    /// Begins a command by its name.
    pub(crate) fn new(name: &'static str) -> Command {
        Command(redis::cmd(name))
    }

    /// Adds an argument.
    pub(crate) fn arg(mut self, argument: impl AsRef<[u8]>) -> Command {
        self.0.arg(argument.as_ref());
        self
    }

    /// Adds a number.
    pub(crate) fn number(mut self, number: u64) -> Command {
        self.0.arg(number);
        self
    }
}

/// What Redis sends back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Nil,
    Integer(i64),
    Bytes(Vec<u8>),
    List(Vec<Value>),
}

impl Value {
    /// Converts what the library read; an error of the server among it is an error of the whole.
    pub(super) fn new(value: redis::Value) -> Result<Value, CommandError> {
        Ok(match value {
            redis::Value::Nil => Value::Nil,
            redis::Value::Int(number) => Value::Integer(number),
            redis::Value::Boolean(flag) => Value::Integer(i64::from(flag)),
            redis::Value::BulkString(bytes) => Value::Bytes(bytes),
            redis::Value::SimpleString(text) | redis::Value::VerbatimString { text, .. } => {
                Value::Bytes(text.into_bytes())
            }
            redis::Value::Okay => Value::Bytes(b"OK".to_vec()),
            redis::Value::Array(values) | redis::Value::Set(values) => {
                Value::List(values.into_iter().map(Value::new).collect::<Result<_, _>>()?)
            }
            redis::Value::Map(pairs) => {
                let flat = pairs.into_iter().flat_map(|(key, value)| [key, value]);
                Value::List(flat.map(Value::new).collect::<Result<_, _>>()?)
            }
            redis::Value::ServerError(error) => {
                return Err(CommandError::from_server(error.code(), error.details().unwrap_or("")));
            }
            other => return Err(CommandError::Unexpected(format!("{other:?}"))),
        })
    }

    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        self.bytes().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// Returns a number, also one that was sent as text.
    pub(crate) fn number(&self) -> Option<u64> {
        match self {
            Value::Integer(number) => u64::try_from(*number).ok(),
            _ => self.text()?.parse().ok(),
        }
    }

    pub(crate) fn list(&self) -> Option<&[Value]> {
        match self {
            Value::List(values) => Some(values),
            _ => None,
        }
    }
}

/// The reason why a command has no result. The server may have run it all the same, but for [`CommandError::Down`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CommandError {
    /// There is no connection.
    Down,
    /// No response came in time.
    Timeout,
    /// The connection broke.
    Broken(String),
    /// The server is a replica, so another one takes writes.
    ReadOnly(String),
    /// Its memory is full.
    OutOfMemory,
    /// Another node of the cluster has the key.
    Moved,
    /// It does not know the script.
    NoScript,
    /// The user may not run the command, or the password is wrong.
    NoPermission(String),
    /// Any other error of the server.
    Server(String),
    /// A response that does not belong to the command.
    Unexpected(String),
}

impl CommandError {
    /// Classifies an error of the server by its first word.
    fn from_server(code: &str, details: &str) -> CommandError {
        let text = || format!("{code} {details}").trim().to_owned();
        match code {
            "READONLY" | "MASTERDOWN" => CommandError::ReadOnly(text()),
            "OOM" => CommandError::OutOfMemory,
            "MOVED" | "ASK" | "CLUSTERDOWN" | "TRYAGAIN" => CommandError::Moved,
            "NOSCRIPT" => CommandError::NoScript,
            "NOPERM" | "NOAUTH" | "WRONGPASS" => CommandError::NoPermission(text()),
            _ => CommandError::Server(text()),
        }
    }

    pub(super) fn new(error: &redis::RedisError) -> CommandError {
        match error.code() {
            Some(code) => CommandError::from_server(code, error.detail().unwrap_or("")),
            None if error.kind() == redis::ErrorKind::AuthenticationFailed => {
                CommandError::NoPermission("its name or the password is wrong".to_owned())
            }
            None if error.is_timeout() => CommandError::Timeout,
            None => CommandError::Broken(error.to_string()),
        }
    }

    /// Returns whether the connection is of no use any more.
    pub(super) fn ends_connection(&self) -> bool {
        matches!(self, CommandError::Broken(_) | CommandError::ReadOnly(_) | CommandError::Moved)
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::Down => f.write_str("there is no connection to Redis"),
            CommandError::Timeout => f.write_str("Redis did not respond in time"),
            CommandError::Broken(why) => write!(f, "the connection to Redis broke: {why}"),
            CommandError::ReadOnly(why) => write!(f, "the server takes no writes: {why}"),
            CommandError::OutOfMemory => f.write_str("the memory of Redis is full"),
            CommandError::Moved => f.write_str("another node of the cluster has the key"),
            CommandError::NoScript => f.write_str("the server does not know the script"),
            CommandError::NoPermission(why) => write!(f, "the user may not do this: {why}"),
            CommandError::Server(why) => write!(f, "Redis reports an error: {why}"),
            CommandError::Unexpected(what) => write!(f, "an unexpected response of Redis: {what}"),
        }
    }
}

impl std::error::Error for CommandError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_server_are_classified() {
        for (code, wanted, ends) in [
            ("READONLY", CommandError::ReadOnly("READONLY x".to_owned()), true),
            // It takes writes again when it has loaded, or has its replicas.
            ("LOADING", CommandError::Server("LOADING x".to_owned()), false),
            ("NOREPLICAS", CommandError::Server("NOREPLICAS x".to_owned()), false),
            ("OOM", CommandError::OutOfMemory, false),
            ("MOVED", CommandError::Moved, true),
            ("NOSCRIPT", CommandError::NoScript, false),
            ("NOPERM", CommandError::NoPermission("NOPERM x".to_owned()), false),
            ("ERR", CommandError::Server("ERR x".to_owned()), false),
        ] {
            let error = CommandError::from_server(code, "x");
            assert_eq!(error.ends_connection(), ends, "{code}");
            assert_eq!(error, wanted, "{code}");
        }
    }

    #[test]
    fn values_are_read_in_either_form() {
        let number = |value: redis::Value| Value::new(value).unwrap().number();
        assert_eq!(number(redis::Value::Int(7)), Some(7));
        assert_eq!(number(redis::Value::BulkString(b"7".to_vec())), Some(7));
        assert_eq!(number(redis::Value::Int(-7)), None);
        let map = redis::Value::Map(vec![(redis::Value::Int(1), redis::Value::Nil)]);
        assert_eq!(Value::new(map), Ok(Value::List(vec![Value::Integer(1), Value::Nil])));
    }
}
