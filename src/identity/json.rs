//! JSON objects without duplicate names at any depth. RFC 7515 4 and RFC 7519 4 allow to reject such an object or to
//! use the last duplicate. Two parsers that choose differently see different tokens, so it is rejected here. serde_json
//! does the parsing and limits the depth to 128.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The reason why the bytes are no acceptable object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The bytes are not JSON, or a JSON value other than an object.
    NoObject,
    /// A name occurs twice in one object.
    Duplicate,
}

/// Parses the bytes as exactly one object.
pub fn object(bytes: &[u8]) -> Result<Map<String, Value>, Fault> {
    match serde_json::from_slice(bytes) {
        Ok(Unique(Value::Object(object))) => Ok(object),
        Ok(_) => Err(Fault::NoObject),
        // The visitor accepts every type, so its only data error is a duplicate name.
        Err(error) if error.is_data() => Err(Fault::Duplicate),
        Err(_) => Err(Fault::NoObject),
    }
}

struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Unique, D::Error> {
        from.deserialize_any(AnyValue).map(Unique)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        // JSON cannot express a number that is not finite.
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Unique(element)) = elements.next_element()? {
            array.push(element);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let Unique(value) = members.next_value()?;
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a name given twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn objects() {
        for (text, wanted) in [
            (r#"{}"#, None),
            (" {\"a\": [1, -2, 0.5, 1e3, true, null, \"x\"]}\r\n", None),
            (r#"{"a": {"a": {"a": 1}}, "b": {"a": 1}}"#, None),
            (r#"{"a": 1, "a": 1}"#, Some(Fault::Duplicate)),
            (r#"{"a": 1, "\u0061": 2}"#, Some(Fault::Duplicate)),
            (r#"{"a": {"b": 1, "b": 2}}"#, Some(Fault::Duplicate)),
            (r#"{"a": [{"b": 1, "c": 0, "b": 2}]}"#, Some(Fault::Duplicate)),
            (r#"{"a": 1e999}"#, Some(Fault::NoObject)),
            (r#"{"a": NaN}"#, Some(Fault::NoObject)),
            (r#"{"a": "\ud800"}"#, Some(Fault::NoObject)),
            (r#"{"a": 1,}"#, Some(Fault::NoObject)),
            (r#"{"a": 1} {}"#, Some(Fault::NoObject)),
            (r#"[{}]"#, Some(Fault::NoObject)),
            ("\u{feff}{}", Some(Fault::NoObject)),
            ("null", Some(Fault::NoObject)),
            ("", Some(Fault::NoObject)),
        ] {
            assert_eq!(object(text.as_bytes()).err(), wanted, "{text}");
        }
        let deep = format!("{}1{}", "{\"a\":".repeat(1000), "}".repeat(1000));
        assert_eq!(object(deep.as_bytes()), Err(Fault::NoObject));
        assert_eq!(object(b"{\"a\": \"\xff\"}"), Err(Fault::NoObject));
    }

    proptest! {
        #[test]
        fn what_it_reads_is_what_serde_json_reads(
            text in r#"\{("[ab]":([0-9]{1,4}|-1|0\.5|"x"|\[true\]|null),?){0,2}\}"#,
        ) {
            if let Ok(read) = object(text.as_bytes()) {
                prop_assert_eq!(Value::Object(read), serde_json::from_str::<Value>(&text).unwrap());
            }
        }
    }
}
