//! Settings as TOML, with each origin in a comment, and as JSON.

use serde_json::{Value as Json, json};

use super::settings::{Setting, Settings, Step, quoted, text};

/// A value of TOML.
pub(crate) fn value(of: &Json) -> String {
    match of {
        Json::String(string) => text(string),
        Json::Array(items) => format!("[{}]", items.iter().map(value).collect::<Vec<_>>().join(", ")),
        Json::Object(pairs) => {
            let pairs: Vec<String> =
                pairs.iter().map(|(name, of)| format!("{} = {}", quoted(name), value(of))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        other => other.to_string(),
    }
}

/// The name of a table in its header: without places, which `[[name]]` counts by itself.
fn header(path: &[Step]) -> String {
    let names = path.iter().filter_map(|step| match step {
        Step::Name(name) => Some(quoted(name)),
        Step::Index(_) => None,
    });
    names.collect::<Vec<_>>().join(".")
}

impl Settings {
    /// The settings as a file that `pillion check` reads, with the origin of each at the end of its line.
    pub(crate) fn toml(&self) -> String {
        let shown = |setting: &Setting| setting.value.clone();
        let head = format!("# Effective settings of {}\n", self.file.replace(char::is_control, "?"));
        format!("{head}# digest {}\n{}", self.digest(), self.lines(shown))
    }

    /// The same with the secrets in it.
    #[cfg(test)]
    pub(crate) fn toml_with_secrets(&self) -> String {
        self.lines(|setting| match &setting.secret {
            Some(secret) => Some(secret.expose().clone()),
            None => setting.value.clone(),
        })
    }

    fn lines(&self, content: impl Fn(&Setting) -> Option<Json>) -> String {
        let mut out = String::new();
        let mut table: &[Step] = &[];
        for setting in &self.all {
            let content = content(setting);
            let (name, inside) = match (&content, setting.path.split_last()) {
                (Some(_), Some((Step::Name(name), inside))) => (name.as_str(), inside),
                _ => ("", setting.path.as_slice()),
            };
            let mut is_new = false;
            if table != inside {
                let opened = |until: usize| table.get(..until) == inside.get(..until);
                for at in 1..=inside.len() {
                    if matches!(inside[at - 1], Step::Index(_)) && !opened(at) {
                        out += &format!("\n[[{}]]", header(&inside[..at]));
                        is_new = at == inside.len();
                        out.push_str(if is_new { "" } else { "\n" });
                    }
                }
                if !matches!(inside.last(), Some(Step::Index(_)) | None) {
                    out += &format!("\n[{}]", header(inside));
                    is_new = true;
                }
                table = inside;
            }
            match &content {
                Some(content) => {
                    out.push_str(if is_new { "\n" } else { "" });
                    out += &format!("{} = {}  # {}\n", quoted(name), value(content), setting.origin);
                }
                None => out += &format!("  # {}\n", setting.origin),
            }
        }
        out
    }

    /// The settings as JSON: the file, the digest, and each setting with its full name.
    pub(crate) fn json(&self) -> Json {
        let settings: Vec<Json> = self
            .all
            .iter()
            .map(|setting| {
                json!({
                    "key": setting.key(),
                    "value": setting.shown(),
                    "origin": setting.origin.to_string(),
                    "secret": setting.secret.is_some(),
                })
            })
            .collect();
        json!({ "file": self.file, "digest": self.digest(), "settings": settings })
    }
}
