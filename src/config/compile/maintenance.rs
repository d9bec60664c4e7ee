//! `[maintenance]`.

use bytes::Bytes;
use http::HeaderValue;

use super::Compiler;
use crate::config::file::File;
use crate::config::table_reader::Spanned;
use crate::policy::maintenance::{Document, MaintenancePolicy};

/// Maximum size of the document, which is held in memory.
const MAX_DOCUMENT: usize = 1024 * 1024;

/// Media types by the end of a file's name.
const TYPES: [(&str, &str); 5] = [
    (".html", "text/html; charset=utf-8"),
    (".htm", "text/html; charset=utf-8"),
    (".json", "application/json"),
    (".txt", "text/plain; charset=utf-8"),
    (".xml", "application/xml"),
];

impl Compiler<'_> {
    pub(super) fn maintenance(&mut self, file: &File) -> MaintenancePolicy {
        let raw = &file.maintenance;
        let document = if raw.document.value.is_empty() { None } else { self.document(&raw.document) };
        let except =
            raw.except.iter().filter_map(|at| self.pattern_of_rule("maintenance.except", at)).collect();
        MaintenancePolicy {
            enabled: raw.enabled.value,
            document,
            retry_after: HeaderValue::from(raw.retry_after.value.as_secs().max(1)),
            serve_stored: raw.serve_stored.value,
            ready: raw.ready.value,
            allow: self.networks("maintenance.allow", &raw.allow),
            except,
        }
    }

    fn document(&mut self, at: &Spanned<String>) -> Option<Document> {
        let span = at.span.as_ref();
        let lower = at.value.to_ascii_lowercase();
        let Some((_, media_type)) = TYPES.into_iter().find(|(end, _)| lower.ends_with(end)) else {
            let message = format!("maintenance.document is {:?}, whose media type is not known", at.value);
            self.fail(span, message, "expected a file that ends in .html, .htm, .json, .txt or .xml");
            return None;
        };
        let path = self.file(&at.value);
        match std::fs::read(&path) {
            Ok(content) if content.len() <= MAX_DOCUMENT => {
                Some(Document { media_type, content: Bytes::from(content) })
            }
            Ok(content) => {
                let message = format!("maintenance.document has {} bytes", content.len());
                self.fail(span, message, format!("expected at most {MAX_DOCUMENT} bytes"));
                None
            }
            Err(error) => {
                let message = format!("maintenance.document {} cannot be read: {error}", path.display());
                let help = self.unreadable(&path, &error, "name a file that exists, or remove it");
                self.fail(span, message, help);
                None
            }
        }
    }
}
