//! Freshening of stored responses by a 304 or a response to HEAD (RFC 9111 4.3.4, 4.3.5, 3.2).

use std::sync::Arc;

use http::Response;

use super::exchange::{CacheExchange, Fetching};
use super::stored_response;
use crate::cache::collapse::FetchOutcome;
use crate::cache::counters::Event;
use crate::cache::rules::eligibility::FwdReason;
use crate::cache::rules::freshen::{
    HeadComparison, compare_head, cookies, freshened, is_about_all, is_about_other, joined,
};
use crate::cache::rules::not_stored::{NotStored, Unkept};
use crate::cache::rules::stored_fields::OWN;
use crate::cache::selection::Candidate;
use crate::cache::store::stored::{StoredResponse, compact};
use crate::fields::cache_control::ResponseDirectives;
use crate::fields::cache_status::{Member, Used};
use crate::layer::record::CacheHandling;
use crate::message::body::Body;
use crate::runtime::clock;

impl CacheExchange {
    /// Freshens the stored response after a 304 to our own conditions (RFC 9111 4.3.4) with the fields of that 304
    /// (3.2).
    pub(super) fn freshen_from_304(
        &self,
        why: FwdReason,
        mut fetching: Fetching,
        candidate: &Candidate,
        response: Response<Body>,
    ) -> Response<Body> {
        self.record.cache_counters().count(Event::Unchanged);
        self.record.cache.set_handling(CacheHandling::Revalidated);
        let before = &candidate.stored.head;
        // RFC 9111 4.3.4: a 304 about another response updates nothing.
        let is_other = is_about_other(&before.fields, response.headers());
        let fields = if is_other {
            tracing::debug!("the upstream's 304 has an entity tag that the revalidation did not name");
            self.cache.forget(&fetching.read.key, &candidate.stored);
            joined(before.stored_fields(), &before.own)
        } else {
            freshened(before.stored_fields(), &before.own, response.headers())
        };
        let content = candidate.stored.content.clone();
        let cookies = cookies(response.headers());
        let length = content.pieces().len();
        let renewed = match is_other {
            true => Err(NotStored::Unkept(Unkept::Overtaken)),
            false => self.head(&mut fetching, before.status, &fields, Some(length)),
        };
        let (head, is_stored) = match renewed {
            Ok(head) => (Arc::new(head.with_phrase(before.phrase.as_ref())), true),
            Err(not_stored) => {
                // The response serves this request, which it was revalidated for. The log says why it is not stored any
                // more.
                if self.is_fresh(candidate) {
                    fetching.candidate = Some(candidate.clone());
                } else {
                    self.cache.forget(&fetching.read.key, &candidate.stored);
                }
                self.not_stored(&mut fetching, not_stored, before.status, Some(length as u64));
                (Arc::new(before.with_fields(compact(&fields, &OWN))), false)
            }
        };
        let stored = StoredResponse { head, content };
        let is_stored = is_stored && {
            stored.content.reweigh(before.size(), stored.head.size());
            self.cache.keep(&fetching.read.key, &stored)
        };
        if is_stored {
            let read = &fetching.read;
            self.stored_after_all(&read.key, read.variant_key.as_deref(), &stored.head, true);
        }
        if let Some(leader) = fetching.leader.take() {
            leader.tell(FetchOutcome::Stored(stored.clone()));
        }
        let age =
            crate::cache::rules::reuse::Age { current: stored.head.age(clock::now()), invalidated: None };
        let member = Member {
            forwarded: Some(why.as_str()),
            forwarded_status: Some(304),
            stored: is_stored,
            used: Used::Revalidated,
            ..Member::default()
        };
        let mut response = stored_response::build(&self.record, &stored, age, fetching.read.head, member);
        // Cookies in the 304 are for this client alone.
        response.headers_mut().extend(cookies);
        response
    }

    /// Compares a response to HEAD with the stored response to GET (RFC 9111 4.3.5), which it freshens like a 304 or
    /// removes.
    pub(super) fn freshen_from_head(
        &self,
        why: FwdReason,
        mut fetching: Fetching,
        response: Response<Body>,
    ) -> Response<Body> {
        let Some(candidate) = fetching.candidate.take() else { return self.passed(response, why, None) };
        let before = candidate.stored.head.clone();
        let stored = (before.status, &before.fields);
        match compare_head(stored, (response.status(), response.headers())) {
            // A response for one client says nothing about the responses for others.
            HeadComparison::Same | HeadComparison::Differs if !self.is_about_all(&fetching, &response) => {}
            HeadComparison::Unknown => {}
            HeadComparison::Differs => self.cache.forget(&fetching.read.key, &candidate.stored),
            HeadComparison::Same => {
                let fields = freshened(before.stored_fields(), &before.own, response.headers());
                let content = candidate.stored.content.clone();
                let length = Some(content.pieces().len());
                if let Ok(head) = self.head(&mut fetching, before.status, &fields, length) {
                    let head = head.with_phrase(before.phrase.as_ref());
                    content.reweigh(before.size(), head.size());
                    self.cache.keep(&fetching.read.key, &StoredResponse { head: Arc::new(head), content });
                }
            }
        }
        self.passed(response, why, None)
    }

    fn is_about_all(&self, fetching: &Fetching, response: &Response<Body>) -> bool {
        let (status, fields) = (response.status(), response.headers());
        let settings = self.record.info.cache_settings();
        let says = ResponseDirectives::from_headers(fields, &settings.targeted);
        let route_settings = &self.record.route_policy().cache.route_settings;
        let traits = fetching.read.traits;
        is_about_all(traits, (status, fields), &says, (route_settings, settings), self.record.wall())
    }
}
