//! Fields that every response gets from its record: its request id, its cache status and its limits.

use bytes::{BufMut, BytesMut};
use http::HeaderMap;

use super::RequestRecord;
use crate::fields::request_id::X_REQUEST_ID;
use crate::message::body::OwnFields;

impl RequestRecord {
    /// Adds the fields about this request to a response: request id, cache status and limits.
    pub(crate) fn add_own_fields(&self, headers: &mut HeaderMap) {
        let policy = &self.info.snapshot.policy;
        headers.insert(X_REQUEST_ID, self.info.id.clone());
        if let Some(member) = self.cache.status_member() {
            member.append(headers);
            if policy.cache.x_cache {
                member.append_word(headers);
            }
        }
        if let Some(announcement) = self.limit.announcement() {
            announcement.insert_into(headers, policy.limits.tell);
        }
    }
}

impl OwnFields for RequestRecord {
    fn write(&self, out: &mut BytesMut) {
        let policy = &self.info.snapshot.policy;
        if let Some(member) = self.cache.status_member() {
            out.put_slice(b"cache-status: ");
            member.write(out);
            out.put_slice(b"\r\n");
            if policy.cache.x_cache {
                out.put_slice(b"x-cache: ");
                out.put_slice(member.word().as_bytes());
                out.put_slice(b"\r\n");
            }
        }
        out.put_slice(b"x-request-id: ");
        out.put_slice(self.info.id.as_bytes());
        out.put_slice(b"\r\n");
        if let Some(announcement) = self.limit.announcement() {
            announcement.write(out, policy.limits.tell);
        }
    }
}
