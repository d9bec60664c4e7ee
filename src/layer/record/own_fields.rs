//! Fields that every response gets from its record: its request id, its cache status and its limits.

use bytes::{BufMut, BytesMut};

use super::RequestRecord;
use crate::fields::request_id::X_REQUEST_ID;
use crate::message::body::OwnFields;

impl RequestRecord {
    /// Adds the fields about this request to a response: request id, cache status and limits.
    pub(crate) fn tell(&self, headers: &mut http::HeaderMap) {
        headers.insert(X_REQUEST_ID, self.id.clone());
        if let Some(member) = self.cache_status.get() {
            member.append(headers);
            if self.snapshot.policy.cache.x_cache {
                member.append_word(headers);
            }
        }
        if let Some(announcement) = &*self.announcement.borrow() {
            announcement.tell(headers, self.snapshot.policy.limits.tell);
        }
    }
}

impl OwnFields for RequestRecord {
    fn write(&self, out: &mut BytesMut) {
        if let Some(member) = self.cache_status.get() {
            out.put_slice(b"cache-status: ");
            member.write(out);
            out.put_slice(b"\r\n");
            if self.snapshot.policy.cache.x_cache {
                out.put_slice(b"x-cache: ");
                out.put_slice(member.word().as_bytes());
                out.put_slice(b"\r\n");
            }
        }
        out.put_slice(b"x-request-id: ");
        out.put_slice(self.id.as_bytes());
        out.put_slice(b"\r\n");
        if let Some(announcement) = &*self.announcement.borrow() {
            announcement.write(out, self.snapshot.policy.limits.tell);
        }
    }
}
