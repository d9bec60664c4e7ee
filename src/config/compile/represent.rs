//! `[compression]` and `[etag]`.

use super::Compiler;
use crate::config::file::File;
use crate::config::keys::{compression, etag};
use crate::config::table_reader::nearest;
use crate::policy::{CompressionPolicy, EtagPolicy};
use crate::represent::coding::Coding;
use crate::represent::media::MediaPattern;

impl Compiler<'_> {
    pub(super) fn compression(&mut self, file: &File) -> CompressionPolicy {
        let raw = &file.compression;
        let mut codings = Vec::new();
        for at in &raw.codings {
            match Coding::ALL.into_iter().find(|coding| coding.as_str() == at.value) {
                Some(coding) if codings.contains(&coding) => {
                    let message = format!("compression.codings names {:?} twice", at.value);
                    self.fail(at.span.as_ref(), message, "remove one of them");
                }
                Some(coding) => codings.push(coding),
                None => {
                    let known = Coding::ALL.map(Coding::as_str);
                    let help = match nearest(&at.value, &known) {
                        _ if at.value == "brotli" => "its name in HTTP is \"br\": write that".to_owned(),
                        Some(near) => format!("did you mean {near:?}?"),
                        None => format!("expected some of {}", known.join(", ")),
                    };
                    self.fail(at.span.as_ref(), format!("there is no coding {:?}", at.value), help);
                }
            }
        }
        let mut types = Vec::new();
        for at in &raw.types {
            match MediaPattern::parse(&at.value) {
                Some(pattern) => types.push(pattern),
                None => {
                    let message = format!("{:?} is not a media type", at.value);
                    let help = "like \"text/*\", \"application/json\" or \"application/*+json\"";
                    self.fail(at.span.as_ref(), message, help);
                }
            }
        }
        let min = &raw.min_size;
        let (_, max) = compression::MIN_SIZE.bounds();
        if min.value.0 > max {
            let message = format!("compression.min_size is {} bytes", min.value.0);
            self.fail(
                min.span.as_ref(),
                message,
                "expected at most \"1MiB\"; to turn compression off, write enabled = false",
            );
        }
        CompressionPolicy {
            codings,
            min_size: min.value.0.min(max),
            types,
            effort: raw.effort,
            ask_identity: raw.ask_identity,
            breach_guard: raw.breach_guard.value,
        }
    }

    pub(super) fn etag(&mut self, file: &File) -> EtagPolicy {
        let at = &file.etag.max_size;
        let (_, max) = etag::MAX_SIZE.bounds();
        if at.value.0 > max {
            let message = format!("etag.max_size is {} bytes", at.value.0);
            self.fail(
                at.span.as_ref(),
                message,
                "expected at most \"16MiB\": this much is buffered for each response",
            );
        }
        EtagPolicy { max_size: at.value.0.min(max) }
    }
}
