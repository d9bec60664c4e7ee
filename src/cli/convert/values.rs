//! Values of nginx, as Pillion writes them.

/// Converts a time, such as `10m`, `1h30m` or `60` (seconds). `None` if it is none.
pub(super) fn time(text: &str) -> Option<String> {
    let mut milliseconds: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let end = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        let factor = match &unit[..end] {
            "ms" => 1,
            "" | "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "M" => 30 * 86_400_000,
            "y" => 365 * 86_400_000,
            _ => return None,
        };
        milliseconds = milliseconds.checked_add(number.checked_mul(factor)?)?;
        rest = &unit[end..];
    }
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let unit = units.iter().find(|(factor, _)| milliseconds > 0 && milliseconds.is_multiple_of(*factor));
    match (text.is_empty(), unit) {
        (true, _) => None,
        (false, Some((factor, unit))) => Some(format!("{}{unit}", milliseconds / factor)),
        (false, None) if milliseconds == 0 => Some("0s".to_owned()),
        (false, None) => Some(format!("{milliseconds}ms")),
    }
}

/// Converts a size, such as `10m`. `None` if it is none.
pub(super) fn size(text: &str) -> Option<String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    match text[digits..].to_ascii_lowercase().as_str() {
        "" => Some(format!("{number}B")),
        "k" => Some(format!("{number}KiB")),
        "m" => Some(format!("{number}MiB")),
        "g" => Some(format!("{number}GiB")),
        _ => None,
    }
}

/// Converts a rate, such as `10r/s`. `None` if it is none.
pub(super) fn rate(text: &str) -> Option<String> {
    let (count, unit) = text.split_once("r/")?;
    let count: u32 = count.parse().ok()?;
    match unit {
        "s" => Some(format!("{count}/s")),
        "m" => Some(format!("{count}/min")),
        _ => None,
    }
}

/// Returns a text as a TOML string. `${` is not a reference to a variable there.
pub(super) fn string(text: &str) -> String {
    let mut written = String::from("\"");
    for c in text.replace("${", "$${").chars() {
        match c {
            '"' => written.push_str("\\\""),
            '\\' => written.push_str("\\\\"),
            '\n' => written.push_str("\\n"),
            '\t' => written.push_str("\\t"),
            c if c.is_control() => written.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => written.push(c),
        }
    }
    written.push('"');
    written
}

/// Returns strings as a TOML array.
pub(super) fn strings(texts: &[String]) -> String {
    let written: Vec<String> = texts.iter().map(|text| string(text)).collect();
    format!("[{}]", written.join(", "))
}

/// Returns a name that is a key in TOML without quotes.
pub(super) fn named(text: &str) -> String {
    let name: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "one".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_sizes_and_rates() {
        for (text, wanted) in [
            ("10m", Some("10m")),
            ("1h30m", Some("90m")),
            ("60", Some("1m")),
            ("500ms", Some("500ms")),
            ("1y", Some("365d")),
            ("0", Some("0s")),
            ("any", None),
            ("", None),
        ] {
            assert_eq!(time(text).as_deref(), wanted, "{text}");
        }
        for (text, wanted) in [("10m", Some("10MiB")), ("8K", Some("8KiB")), ("0", Some("0B")), ("x", None)] {
            assert_eq!(size(text).as_deref(), wanted, "{text}");
        }
        for (text, wanted) in [("10r/s", Some("10/s")), ("30r/m", Some("30/min")), ("10", None)] {
            assert_eq!(rate(text).as_deref(), wanted, "{text}");
        }
        assert_eq!(string("a\"${b}\\"), "\"a\\\"$${b}\\\\\"");
    }
}
