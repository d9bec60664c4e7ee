//! The request fields that responses vary with, in normal form (RFC 9111 4.1).

use http::{HeaderMap, HeaderName, header};

use crate::fields::accept_encoding::{MAX, Weight, thousandths};
use crate::fields::cookie::{self, Ignored};
use crate::fields::list;

/// The fields of a request that decide which of the stored responses of its key fits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SelectingFields<'a> {
    /// The fields of the request.
    pub request: &'a HeaderMap,
    /// Cookies that do not count.
    pub ignored_cookies: &'a Ignored,
    /// Request fields that select fragments ([`crate::cache::fragment::is_fragment`]): a response fits only if its Vary names them.
    pub fragments: &'a [HeaderName],
}

impl<'a> SelectingFields<'a> {
    /// Creates the selecting fields of a request that has no fragment fields.
    pub(crate) fn new(request: &'a HeaderMap, ignored_cookies: &'a Ignored) -> SelectingFields<'a> {
        SelectingFields { request, ignored_cookies, fragments: &[] }
    }

    /// Returns a request field in normal form; empty if it is absent.
    pub(super) fn said(&self, name: &HeaderName) -> Vec<u8> {
        normal(self.request, name, self.ignored_cookies)
    }
}

impl SelectingFields<'_> {
    /// Appends the values of these fields to a key, each preceded by its length.
    pub(crate) fn append(&self, names: &[HeaderName], key: &mut Vec<u8>) {
        names.iter().for_each(|name| append_said(&self.said(name), key));
    }
}

pub(super) fn append_said(said: &[u8], key: &mut Vec<u8>) {
    key.extend_from_slice(&u32::try_from(said.len()).unwrap_or(u32::MAX).to_be_bytes());
    key.extend_from_slice(said);
}

/// Returns a field in normal form, so that values of the same meaning are equal: one line, uniform white space and,
/// where the field's grammar allows it, without case and in a fixed order (RFC 9111 4.1).
pub(super) fn normal(request: &HeaderMap, name: &HeaderName, ignored_cookies: &Ignored) -> Vec<u8> {
    let mut text = Vec::new();
    if *name == header::COOKIE {
        for (name, value) in cookie::counted(request, ignored_cookies) {
            text.extend_from_slice(name);
            text.push(b'=');
            text.extend_from_slice(value);
            text.push(b';');
        }
        return text;
    }
    let (lists, ordered) = match *name {
        header::ACCEPT | header::ACCEPT_CHARSET | header::ACCEPT_ENCODING => (true, false),
        // Some upstreams take the first of several languages of equal weight (RFC 9110 12.5.4).
        header::ACCEPT_LANGUAGE => (true, true),
        _ => (false, false),
    };
    if lists {
        return preferences(request, name, ordered);
    }
    // Several lines equal one line joined by commas (RFC 9110 5.3); nothing more is known of this field.
    for (at, line) in request.get_all(name).iter().enumerate() {
        if at > 0 {
            text.extend_from_slice(b", ");
        }
        text.extend_from_slice(line.as_bytes().trim_ascii());
    }
    // An empty field differs from an absent one.
    if request.contains_key(name) {
        text.push(b'.');
    }
    text
}

/// Returns a weighted list (RFC 9110 12.4.2) in normal form: sorted by weight, the highest first. Elements of equal
/// weight keep their order if `ordered`, else they are sorted.
fn preferences(request: &HeaderMap, name: &HeaderName, ordered: bool) -> Vec<u8> {
    if !request.contains_key(name) {
        return Vec::new();
    }
    let mut text = Vec::new();
    let mut elements: Vec<(Weight, std::ops::Range<usize>)> = Vec::new();
    for element in list::elements_in_field(request, name) {
        let start = text.len();
        let mut weight = None;
        let mut parts = list::split(element, b';');
        text.extend(parts.next().unwrap_or_default().iter().map(u8::to_ascii_lowercase));
        for parameter in parts.filter(|parameter| !parameter.is_empty()) {
            let end = parameter.iter().position(|byte| *byte == b'=').unwrap_or(parameter.len());
            let (name, value) = parameter.split_at(end);
            let (name, value) = (name.trim_ascii(), value.get(1..).map(<[u8]>::trim_ascii));
            let given = value.filter(|_| weight.is_none() && name.eq_ignore_ascii_case(b"q"));
            if let Some(given) = given.and_then(thousandths) {
                weight = Some(given);
                continue;
            }
            text.push(b';');
            text.extend(name.iter().map(u8::to_ascii_lowercase));
            if let Some(value) = value {
                text.push(b'=');
                text.extend_from_slice(value);
            }
        }
        elements.push((weight.unwrap_or(MAX), start..text.len()));
    }
    let of = |range: &std::ops::Range<usize>| text.get(range.clone()).unwrap_or_default();
    elements.sort_by(|(a, one), (b, other)| {
        let equally = if ordered { std::cmp::Ordering::Equal } else { of(one).cmp(of(other)) };
        b.cmp(a).then(equally)
    });
    let mut normal = Vec::with_capacity(text.len() + elements.len() * 8 + 1);
    for (weight, range) in &elements {
        normal.extend_from_slice(of(range));
        if *weight != MAX {
            normal.extend_from_slice(b";q=");
            normal.extend_from_slice(itoa::Buffer::new().format(*weight).as_bytes());
        }
        normal.push(b',');
    }
    if normal.is_empty() {
        // An empty field differs from an absent one.
        normal.push(b',');
    }
    normal
}
