//! `when` of routes: the conditions on query, fields and cookies.

use http::{HeaderName, HeaderValue, header};

use super::Compiler;
use super::route::UNTOUCHABLE;
use crate::config::diagnostic::Span;
use crate::config::file::{File, Named, When as Raw};
use crate::config::table_reader::Spanned;
use crate::fields::forwarded;
use crate::policy::when::When;

impl Compiler<'_> {
    /// `when` of a route; `None` if it has none, or something of it is wrong.
    pub(super) fn when(&mut self, raw: Option<&Raw>, written: &str, file: &File) -> Option<When> {
        let raw = raw?;
        if raw.query.is_empty() && raw.header.is_empty() && raw.cookie.is_empty() && raw.not_cookie.is_empty()
        {
            self.fail(
                Some(&raw.span),
                "when without a condition",
                "when = { query = { action = \"x\" } }, or remove it",
            );
            return None;
        }
        let query = self.named_values(&raw.query, "query", |compiler, name| {
            let is_name = !name.value.is_empty() && !name.value.contains(['&', '=', '#']);
            if !is_name {
                let message = format!("{:?} is not a name of a parameter", name.value);
                compiler.fail(name.span.as_ref(), message, "write the name as it stands before the =");
            }
            is_name.then(|| name.value.clone())
        });
        let header = self.named_values(&raw.header, "header", Compiler::condition_field);
        for (name, values) in &raw.header {
            for value in values.iter().flatten().filter(|at| HeaderValue::from_str(&at.value).is_err()) {
                // Which may be a credential.
                let message = format!("the value of {} is not a field value", name.value);
                self.fail(value.span.as_ref(), message, "remove the control characters");
            }
        }
        let [cookie, not_cookie] = [&raw.cookie, &raw.not_cookie].map(|list| self.cookie_names(list));
        if let Some(both) = raw.not_cookie.iter().find(|at| cookie == [at.value.as_str()]) {
            let help = "remove it from one of them";
            self.fail(both.span.as_ref(), "the same cookie in cookie and not_cookie never holds", help);
        }
        let when = When::new(query, header, cookie, not_cookie);
        if let Some(name) = when.fields().find(|name| forwarded::is_claim(name))
            && file.server.trusted_proxies.is_empty()
        {
            let message = format!(
                "route {written:?} has {name} in when.header, which only trusted proxies may send, and \
                server.trusted_proxies is empty: the condition never holds"
            );
            self.warn(Some(&raw.span), message, "");
        }
        Some(when)
    }

    /// Names with their values; a name without values may have any.
    fn named_values<T: PartialEq>(
        &mut self,
        raw: &[Named],
        key: &str,
        parse: impl Fn(&mut Self, &Spanned<String>) -> Option<T>,
    ) -> Vec<(T, Vec<String>)> {
        let mut all: Vec<(T, Vec<String>)> = Vec::new();
        for (written, values) in raw {
            let Some(name) = parse(self, written) else { continue };
            let values = match values {
                Some(values) => values.iter().map(|at| at.value.clone()).collect(),
                None => vec!["*".to_owned()],
            };
            if values.is_empty() {
                let message = format!("when.{key} has no value of {:?}", written.value);
                self.fail(written.span.as_ref(), message, "write \"*\" for any value");
            } else if all.iter().any(|(known, _)| *known == name) {
                let message = format!("{:?} is twice in when.{key}", written.value);
                self.fail(written.span.as_ref(), message, "write its values in one array");
            } else {
                all.push((name, values));
            }
        }
        all
    }

    fn condition_field(&mut self, written: &Spanned<String>) -> Option<HeaderName> {
        let span: Option<&Span> = written.span.as_ref();
        let Ok(name) = HeaderName::from_bytes(written.value.as_bytes()) else {
            let message = format!("{:?} is not a field name", written.value);
            self.fail(span, message, "expected letters, digits and dashes");
            return None;
        };
        if name == header::COOKIE || name == header::HOST || UNTOUCHABLE.contains(&name) {
            let help = match name.as_str() {
                "cookie" => "write names of cookies: when = { cookie = [\"NAME\"] }",
                "host" => "write the host in match: \"GET example.com/**\"",
                _ => "it belongs to one connection: name another field",
            };
            self.fail(span, format!("{name} in when.header"), help);
            return None;
        }
        if name.as_str().contains('_') {
            let meant = name.as_str().replace('_', "-");
            let message = format!("{name} in when.header: apps take it for {meant}");
            self.fail(span, message, format!("write {meant}; see server.underscores"));
            return None;
        }
        Some(name)
    }

    fn cookie_names(&mut self, written: &[Spanned<String>]) -> Vec<String> {
        for at in written {
            let odd = |c: char| c.is_ascii_control() || matches!(c, ' ' | ';' | ',' | '=' | '"' | '\\');
            if at.value.is_empty() || at.value.contains(odd) {
                let message = format!("{:?} is not a name of a cookie", at.value);
                self.fail(at.span.as_ref(), message, "write the name alone; * stands for any characters");
            }
        }
        written.iter().map(|at| at.value.clone()).collect()
    }
}
