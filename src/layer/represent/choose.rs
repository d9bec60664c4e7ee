//! Chooses the coding of a response, or the range of it to send, and gives the reason.

use http::response::Parts;
use http::{HeaderMap, Method, StatusCode, header};

use super::fields::Seen;
use crate::fields::cache_control;
use crate::layer::represent::on_response::{Content, Representing};
use crate::represent::coding::{Negotiated, Plain};
use crate::represent::compression_decision;
use crate::represent::compression_decision::{Choice, Reason};
use crate::represent::range::{self, Selected};
use crate::represent::{breach_guard, encoder, media};

impl Representing {
    /// Returns whether such content could be encoded for some client, or must be for this one.
    pub(super) fn codable(&self, parts: &Parts, seen: Seen, live: bool) -> Result<(), Reason> {
        let Some((_, negotiated)) = &self.asked.coding else { return Err(Reason::NotAsked) };
        let codable =
            compression_decision::codable(parts.status, seen.content_encoding, live).and_then(|()| {
                let refused = seen.cache_control && cache_control::has(&parts.headers, "no-transform");
                if refused { Err(Reason::NoTransform) } else { Ok(()) }
            });
        codable.and_then(|()| match negotiated {
            // This client can get the content in no other form.
            Negotiated::Coded(_, Plain::Refused) => Ok(()),
            _ if self.is_of_type(&parts.headers) => Ok(()),
            _ => Err(Reason::Type),
        })
    }

    pub(super) fn is_of_type(&self, headers: &HeaderMap) -> bool {
        // Comparing names is far faster than looking them up.
        let kind = headers.iter().find(|(name, _)| **name == header::CONTENT_TYPE);
        kind.is_some_and(|(_, kind)| media::matches(&self.policy().compression.types, kind.as_bytes()))
    }

    /// Returns whether the response varies on Accept-Encoding: it was or could have been encoded (RFC 9110 12.5.5). A
    /// part of such content varies too, although parts are not encoded.
    pub(super) fn varies(&self, parts: &Parts, codable: Result<(), Reason>) -> bool {
        if self.asked.coding.is_none() {
            return false;
        }
        match codable {
            Ok(()) | Err(Reason::Coded) => true,
            Err(Reason::Status) => {
                parts.status == StatusCode::PARTIAL_CONTENT && self.is_of_type(&parts.headers)
            }
            Err(_) => false,
        }
    }

    pub(super) fn choose(&self, parts: &Parts, content: &mut Content, codable: Result<(), Reason>) -> Choice {
        let (coding, plain) = match (codable, &self.asked.coding) {
            (Err(reason), _) => return self.or_range(parts, content, reason),
            (Ok(()), Some((_, Negotiated::Coded(coding, plain)))) => (*coding, *plain),
            _ => return self.or_range(parts, content, Reason::NotAsked),
        };
        if plain == Plain::Taken {
            if self.is_small(content) {
                return self.or_range(parts, content, Reason::Small);
            }
            if !matches!(self.selected(parts, content), Selected::Whole) {
                return Choice::Leave(Reason::Range);
            }
        }
        if let Some(said) = &self.asked.said
            && self.asked.method != Method::HEAD
            && parts.headers.contains_key(header::SET_COOKIE)
        {
            let query = said.target.as_ref().and_then(|target| target.query());
            let values = breach_guard::values(query, said.content.as_deref());
            // Longer content is not searched, so it is not joined for that.
            let short = content.gathered.len() <= breach_guard::MAX_CONTENT;
            let content = if short { content.gathered.content() } else { None };
            if values.echo_in(content.as_deref()) {
                return Choice::Leave(Reason::Echo);
            }
        }
        let effort = self.policy().compression.effort;
        let whole = content.gathered.is_whole().then(|| content.gathered.len());
        let made = content.kept.as_ref().is_some_and(|kept| kept.made(coding.as_str()).is_some());
        if self.asked.method != Method::HEAD && !made && encoder::holds_memory(coding, effort, whole) {
            content.memory = self.reserve_encoder(encoder::memory(coding, effort));
            // Then the response is as without negotiation (RFC 9110 12.5): unencoded, even for a client that refuses
            // that. Content that arrives later stays at its upstream until the client reads it.
            if content.memory.is_none() {
                return Choice::Leave(Reason::Busy);
            }
        }
        Choice::Code(coding)
    }

    fn or_range(&self, parts: &Parts, content: &mut Content, reason: Reason) -> Choice {
        match self.selected(parts, content) {
            Selected::Whole => Choice::Leave(reason),
            Selected::Parts(_) | Selected::Nothing => Choice::Leave(Reason::Range),
        }
    }

    /// Returns whether the content is too short to encode, by its length, or else by what had arrived when the upstream
    /// paused. An upstream that has sent no content yet may send much.
    fn is_small(&self, content: &Content) -> bool {
        let min = self.policy().compression.min_size;
        let gathered = &content.gathered;
        match content.length {
            Some(length) => length < min,
            None => (gathered.len() as u64) < min && gathered.has_more() && !gathered.is_empty(),
        }
    }

    /// Returns the ranges of complete content for a Range that the upstream ignored.
    pub(super) fn selected(&self, parts: &Parts, content: &mut Content) -> Selected {
        let Some(field) = &self.asked.range else { return Selected::Whole };
        let conditions = self.asked.conditions.as_ref();
        // RFC 9110 14.2: a Range applies to GET, and to a response that would be 200.
        let fits = self.asked.method == Method::GET
            && parts.status == StatusCode::OK
            && content.gathered.is_whole()
            && conditions.is_none_or(|conditions| conditions.range_holds(&parts.headers));
        if !fits {
            return Selected::Whole;
        }
        range::select(field.as_bytes(), content.gathered.len())
    }
}
