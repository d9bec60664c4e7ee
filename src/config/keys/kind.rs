//! The kinds of values that keys take: how each is read, and what a schema says of it.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::Value as Json;

use super::declare::{Describe, Form, Key, Table};
use crate::config::diagnostic::Diagnostics;
use crate::config::table_reader::{AutoOr, FromNode, Section, Size, Spanned};

/// A kind of value that is read by its name alone.
pub(crate) trait Kind: Describe {
    type Value;

    /// Reads it from a section; what is wrong with it is noted.
    fn read(&self, name: &'static str, section: &mut Section<'_>, problems: &mut Diagnostics) -> Self::Value;
}

impl Section<'_> {
    /// The value of a key, or its default.
    pub(crate) fn read<K: Kind>(&mut self, key: &Key<K>, problems: &mut Diagnostics) -> K::Value {
        key.kind.read(key.name, self, problems)
    }
}

/// A value as JSON, by its text in the file.
fn json<T: FromNode>(value: &T) -> Option<Json> {
    serde_json::from_str(&value.written()).ok()
}

/// A value with a default.
pub(crate) struct Value<T> {
    default: T,
    form: Form,
}

impl<T: FromNode> Describe for Value<T> {
    fn form(&self) -> Form {
        self.form.clone()
    }

    fn default(&self) -> Option<Json> {
        json(&self.default)
    }
}

impl<T: FromNode + Clone> Kind for Value<T> {
    type Value = Spanned<T>;

    fn read(&self, name: &'static str, section: &mut Section<'_>, problems: &mut Diagnostics) -> Spanned<T> {
        section.or(name, self.default.clone(), problems)
    }
}

/// True or false.
pub(crate) const fn flag(default: bool) -> Value<bool> {
    Value { default, form: Form::Flag }
}

/// A whole number within bounds.
pub(crate) const fn number(default: u64, bounds: RangeInclusive<u64>) -> Value<u64> {
    Value { default, form: Form::Integer { bounds: (*bounds.start(), *bounds.end()), auto: false } }
}

/// One of a few whole numbers.
pub(crate) const fn code(default: u64, known: &'static [u64]) -> Value<u64> {
    Value { default, form: Form::Codes(known) }
}

/// A number from 0 to 1.
pub(crate) const fn share(default: f64) -> Value<f64> {
    Value { default, form: Form::Share }
}

/// A duration that may be zero.
pub(crate) const fn duration(seconds: u64) -> Value<Duration> {
    Value { default: Duration::from_secs(seconds), form: Form::Duration { zero: true, max: None } }
}

/// A duration above zero: zero would be "at once", which nobody means, and there is no "never".
pub(crate) const fn timeout(seconds: u64) -> Value<Duration> {
    Value { default: Duration::from_secs(seconds), form: Form::Duration { zero: false, max: None } }
}

/// A duration that may be zero and is at most `max`.
pub(crate) const fn duration_to(seconds: u64, max: Duration) -> Value<Duration> {
    Value { default: Duration::from_secs(seconds), form: Form::Duration { zero: true, max: Some(max) } }
}

/// A duration above zero and of at most `max`, with a default in milliseconds.
pub(crate) const fn timeout_to(milliseconds: u64, max: Duration) -> Value<Duration> {
    Value {
        default: Duration::from_millis(milliseconds),
        form: Form::Duration { zero: false, max: Some(max) },
    }
}

/// A size of any number of bytes.
pub(crate) const fn size(bytes: u64) -> Value<Size> {
    size_within(bytes, 0..=u64::MAX)
}

/// A size within bounds, in bytes.
pub(crate) const fn size_within(bytes: u64, bounds: RangeInclusive<u64>) -> Value<Size> {
    Value { default: Size(bytes), form: Form::Size { bounds: (*bounds.start(), *bounds.end()), auto: false } }
}

/// A value, or the word that stands for what Pillion finds by itself.
pub(crate) struct Auto {
    form: Form,
}

/// A whole number within bounds, or "auto".
pub(crate) struct AutoNumber(Auto);

/// A size, or "auto".
pub(crate) struct AutoSize(Auto);

pub(crate) const fn auto_number(bounds: RangeInclusive<u64>) -> AutoNumber {
    AutoNumber(Auto { form: Form::Integer { bounds: (*bounds.start(), *bounds.end()), auto: true } })
}

pub(crate) const fn auto_size(min: u64) -> AutoSize {
    AutoSize(Auto { form: Form::Size { bounds: (min, u64::MAX), auto: true } })
}

macro_rules! auto {
    ($kind:ident, $value:ty) => {
        impl Describe for $kind {
            fn form(&self) -> Form {
                self.0.form.clone()
            }

            fn default(&self) -> Option<Json> {
                Some(Json::from("auto"))
            }
        }

        impl Kind for $kind {
            type Value = Spanned<AutoOr<$value>>;

            fn read(
                &self,
                name: &'static str,
                section: &mut Section<'_>,
                problems: &mut Diagnostics,
            ) -> Self::Value {
                section.or(name, AutoOr(None), problems)
            }
        }
    };
}

auto!(AutoNumber, u64);
auto!(AutoSize, Size);

/// A string.
pub(crate) struct Text(pub &'static str);

impl Describe for Text {
    fn form(&self) -> Form {
        Form::Text
    }

    fn default(&self) -> Option<Json> {
        Some(Json::from(self.0))
    }
}

impl Kind for Text {
    type Value = Spanned<String>;

    fn read(&self, name: &'static str, section: &mut Section<'_>, problems: &mut Diagnostics) -> Self::Value {
        section.or(name, self.0.to_owned(), problems)
    }
}

/// A value without a default.
pub(crate) struct Optional<T> {
    form: Form,
    read: std::marker::PhantomData<fn() -> T>,
}

impl<T> Optional<T> {
    pub(crate) const fn of_form(form: Form) -> Optional<T> {
        Optional { form, read: std::marker::PhantomData }
    }
}

/// A string without a default.
pub(crate) const TEXT: Optional<String> = Optional::of_form(Form::Text);

/// A date without a default.
pub(crate) const DATE: Optional<String> = Optional::of_form(Form::Date);

/// A whole number within bounds, without a default.
pub(crate) const fn optional_number(bounds: RangeInclusive<u64>) -> Optional<u64> {
    Optional::of_form(Form::Integer { bounds: (*bounds.start(), *bounds.end()), auto: false })
}

/// A duration without a default.
pub(crate) const fn optional_duration(zero: bool) -> Optional<Duration> {
    Optional::of_form(Form::Duration { zero, max: None })
}

impl<T> Describe for Optional<T> {
    fn form(&self) -> Form {
        self.form.clone()
    }
}

impl<T: FromNode> Kind for Optional<T> {
    type Value = Option<Spanned<T>>;

    fn read(&self, name: &'static str, section: &mut Section<'_>, problems: &mut Diagnostics) -> Self::Value {
        section.get(name, problems)
    }
}

/// A list of strings.
pub(crate) struct Texts {
    pub default: &'static [&'static str],
    /// The strings there are; empty: any. `compile` says what is wrong with others.
    pub known: &'static [&'static str],
}

pub(crate) const fn texts(default: &'static [&'static str]) -> Texts {
    Texts { default, known: &[] }
}

impl Describe for Texts {
    fn form(&self) -> Form {
        let item = if self.known.is_empty() { Form::Text } else { Form::Words(self.known.to_vec()) };
        Form::List(Box::new(item))
    }

    fn default(&self) -> Option<Json> {
        Some(Json::from(self.default.to_vec()))
    }
}

impl Kind for Texts {
    type Value = Vec<Spanned<String>>;

    fn read(&self, name: &'static str, section: &mut Section<'_>, problems: &mut Diagnostics) -> Self::Value {
        section.list(name, self.default.iter().map(|text| (*text).to_owned()).collect(), problems)
    }
}

/// A list of strings without a default.
pub(crate) struct OptionalTexts;

impl Describe for OptionalTexts {
    fn form(&self) -> Form {
        Form::List(Box::new(Form::Text))
    }
}

impl Kind for OptionalTexts {
    type Value = Option<Vec<Spanned<String>>>;

    fn read(&self, name: &'static str, section: &mut Section<'_>, problems: &mut Diagnostics) -> Self::Value {
        let is_written = section.has(name);
        let list = section.list(name, Vec::new(), problems);
        // It has no default: an empty list means something else than none.
        section.list_key(name, problems, || ("an array of strings".to_owned(), None));
        is_written.then_some(list)
    }
}

/// A list of strings, empty by default, which means something else than an empty list that is written.
pub(crate) struct WrittenTexts;

impl Describe for WrittenTexts {
    fn form(&self) -> Form {
        Form::List(Box::new(Form::Text))
    }

    fn default(&self) -> Option<Json> {
        Some(Json::Array(Vec::new()))
    }

    fn matters_where_written(&self) -> bool {
        true
    }
}

impl Kind for WrittenTexts {
    type Value = Option<Vec<Spanned<String>>>;

    fn read(&self, name: &'static str, section: &mut Section<'_>, problems: &mut Diagnostics) -> Self::Value {
        let is_written = section.has(name);
        let list = section.list(name, Vec::new(), problems);
        is_written.then_some(list)
    }
}

/// A list of seconds.
pub(crate) struct SecondsList(pub &'static [f64]);

impl Describe for SecondsList {
    fn form(&self) -> Form {
        Form::List(Box::new(Form::Seconds))
    }

    fn default(&self) -> Option<Json> {
        self.0.iter().map(json).collect::<Option<Vec<Json>>>().map(Json::from)
    }
}

impl Kind for SecondsList {
    type Value = Vec<Spanned<f64>>;

    fn read(&self, name: &'static str, section: &mut Section<'_>, problems: &mut Diagnostics) -> Self::Value {
        section.list(name, self.0.to_vec(), problems)
    }
}

/// The words of a key, and what each means.
pub(crate) type Meanings<T> = &'static [(&'static str, T)];

fn words<T>(meanings: Meanings<T>) -> Vec<&'static str> {
    meanings.iter().map(|(word, _)| *word).collect()
}

/// One of a few words.
pub(crate) struct Word<T: 'static> {
    pub words: Meanings<T>,
    /// Meaning of a key that is not written; a default that no word means is not shown.
    pub default: T,
}

impl<T: Copy + PartialEq> Describe for Word<T> {
    fn form(&self) -> Form {
        Form::Words(words(self.words))
    }

    fn default(&self) -> Option<Json> {
        self.words.iter().find(|(_, meaning)| *meaning == self.default).map(|(word, _)| Json::from(*word))
    }
}

impl<T: Copy + PartialEq> Kind for Word<T> {
    type Value = T;

    fn read(&self, name: &'static str, section: &mut Section<'_>, problems: &mut Diagnostics) -> T {
        section.choice(name, self.words, self.default, problems)
    }
}

/// Some of a few words.
pub(crate) struct SomeWords<T: 'static> {
    pub words: Meanings<T>,
    pub default: &'static [T],
}

impl<T: Copy + PartialEq> Describe for SomeWords<T> {
    fn form(&self) -> Form {
        Form::List(Box::new(Form::Words(words(self.words))))
    }

    fn default(&self) -> Option<Json> {
        let known = self.words.iter().filter(|(_, meaning)| self.default.contains(meaning));
        Some(Json::from(known.map(|(word, _)| *word).collect::<Vec<_>>()))
    }
}

impl<T: Copy + PartialEq> Kind for SomeWords<T> {
    type Value = Vec<T>;

    fn read(&self, name: &'static str, section: &mut Section<'_>, problems: &mut Diagnostics) -> Vec<T> {
        section.choices(name, self.words, self.default, problems)
    }
}

/// Durations under names, in the order of the default.
pub(crate) struct Durations(pub &'static [(&'static str, Duration)]);

impl Describe for Durations {
    fn form(&self) -> Form {
        Form::Map(Box::new(Form::Duration { zero: true, max: None }))
    }

    fn default(&self) -> Option<Json> {
        let pairs = self.0.iter().map(|(name, value)| Some(((*name).to_owned(), json(value)?)));
        pairs.collect::<Option<serde_json::Map<String, Json>>>().map(Json::Object)
    }

    fn written(&self) -> Option<String> {
        // JSON would not keep the order.
        let pairs: Vec<String> =
            self.0.iter().map(|(name, value)| format!("{name} = {}", value.written())).collect();
        Some(if pairs.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", pairs.join(", ")) })
    }
}

impl Kind for Durations {
    type Value = Vec<(Spanned<String>, Spanned<Duration>)>;

    fn read(&self, name: &'static str, section: &mut Section<'_>, problems: &mut Diagnostics) -> Self::Value {
        section.map(name, self.0, problems)
    }
}

/// A value that its section reads in a way of its own.
pub(crate) struct Own(pub Form);

impl Describe for Own {
    fn form(&self) -> Form {
        self.0.clone()
    }
}

/// One word, or a list of strings, which is empty by default.
pub(crate) struct WordOrTexts(pub &'static str);

impl Describe for WordOrTexts {
    fn form(&self) -> Form {
        Form::WordOrTexts(self.0)
    }

    fn default(&self) -> Option<Json> {
        Some(Json::Array(Vec::new()))
    }

    fn matters_where_written(&self) -> bool {
        true
    }
}

/// A table.
pub(crate) struct Sub(pub &'static Table);

impl Describe for Sub {
    fn form(&self) -> Form {
        Form::Table(self.0)
    }
}

/// A table that switches something on by being written.
pub(crate) struct Switch(pub &'static Table);

impl Describe for Switch {
    fn form(&self) -> Form {
        Form::Table(self.0)
    }

    fn matters_where_written(&self) -> bool {
        true
    }
}

/// An array of tables.
pub(crate) struct Tables(pub &'static Table);

impl Describe for Tables {
    fn form(&self) -> Form {
        Form::Tables(self.0)
    }
}

/// A table of tables under names, and what each must have.
pub(crate) struct Named(pub &'static Table, pub &'static [&'static str]);

impl Describe for Named {
    fn form(&self) -> Form {
        Form::Named(self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_written_as_a_file_has_them() {
        const MINUTE: Duration = Duration::from_secs(60);
        assert_eq!(number(10_000, 0..=u64::MAX).written().as_deref(), Some("10000"));
        assert_eq!(timeout(300).written().as_deref(), Some("\"5m\""));
        assert_eq!(share(1.0).written().as_deref(), Some("1"));
        assert_eq!(texts(&[]).written().as_deref(), Some("[]"));
        assert_eq!(texts(&["a", "b"]).written().as_deref(), Some("[\"a\", \"b\"]"));
        assert_eq!(Durations(&[]).written().as_deref(), Some("{}"));
        assert_eq!(
            Durations(&[("b", MINUTE), ("a", MINUTE)]).written().as_deref(),
            Some("{ b = \"1m\", a = \"1m\" }")
        );
        assert_eq!(TEXT.written(), None);
    }
}
