//! Why an operator acts, as the audit keeps it. A value parser of the commands that act.

/// A line of 1 to 1024 bytes, blanks around it cut off.
///
/// # Errors
/// What it must be.
pub(crate) fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.len() > 1024 || text.contains(char::is_control) {
        return Err("must be a line of 1 to 1024 bytes that says why".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::reason;

    #[test]
    fn a_reason_says_something_on_one_line() {
        assert_eq!(reason(" a disk died ").as_deref(), Ok("a disk died"));
        for text in ["", "  ", "two\nlines", &"x".repeat(1025)] {
            assert!(reason(text).is_err(), "{text}");
        }
    }
}
