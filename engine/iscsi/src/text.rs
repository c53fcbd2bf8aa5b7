//! key=value text of login and text requests (RFC 7143 section 6.1).

/// Longest text of one exchange, over all its PDUs.
pub const TEXT_LIMIT_BYTES: usize = 64 * 1024;
const KEY_LIMIT_BYTES: usize = 63;

pub type Pairs = Vec<(String, String)>;

/// Pairs in their order. A key twice, no `=`, an over-long key, bytes that are not UTF-8: refused with the reason.
pub fn parse(bytes: &[u8]) -> Result<Pairs, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "text that is not UTF-8")?;
    let mut pairs = Pairs::new();
    for item in text.split('\0').filter(|item| !item.is_empty()) {
        let (key, value) = item.split_once('=').ok_or("text without '='")?;
        if key.is_empty() || key.len() > KEY_LIMIT_BYTES {
            return Err("a key of a wrong length");
        }
        if pairs.iter().any(|(other, _)| other == key) {
            return Err("a key twice");
        }
        if pairs.len() >= 256 {
            return Err("too many keys");
        }
        pairs.push((key.to_owned(), value.to_owned()));
    }
    Ok(pairs)
}

pub fn add(bytes: &mut Vec<u8>, key: &str, value: &str) {
    bytes.extend(key.as_bytes());
    bytes.push(b'=');
    bytes.extend(value.as_bytes());
    bytes.push(0);
}

/// A binary value: `0x` hex or `0b` base64 (6.1, binary-value). At most `limit` bytes.
pub fn binary(value: &str, limit: usize) -> Option<Vec<u8>> {
    if let Some(hex) = value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        return hex_bytes(hex, limit);
    }
    value.strip_prefix("0b").or_else(|| value.strip_prefix("0B")).and_then(|digits| base64_bytes(digits, limit))
}

fn hex_bytes(hex: &str, limit: usize) -> Option<Vec<u8>> {
    if hex.is_empty() || hex.len() > limit * 2 || !hex.is_ascii() {
        return None;
    }
    let padded = if hex.len() % 2 == 1 { format!("0{hex}") } else { hex.to_owned() };
    padded.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn base64_bytes(digits: &str, limit: usize) -> Option<Vec<u8>> {
    let digits = digits.trim_end_matches('=');
    if digits.is_empty() || digits.len() > limit.div_ceil(3) * 4 {
        return None;
    }
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (bytes.len() <= limit).then_some(bytes)
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// A number as iSCSI writes them: decimal or `0x` hex.
pub fn number(value: &str) -> Option<u32> {
    match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => u32::from_str_radix(hex, 16).ok(),
        Some(_) => None,
        None if value.bytes().all(|b| b.is_ascii_digit()) => value.parse().ok(),
        None => None,
    }
}

/// `iqn.`, `eui.` or `naa.` and at most 223 bytes of what names may hold (4.2.7).
pub fn is_iscsi_name(name: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | ':') || c == '_' || c == '+';
    let prefixed = ["iqn.", "eui.", "naa."].iter().any(|prefix| name.len() > prefix.len() && name.starts_with(prefix));
    prefixed && name.len() <= 223 && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_keep_their_order_and_bad_text_is_refused() {
        let pairs = parse(b"A=1\0B=x=y\0\0C=\0").unwrap();
        assert_eq!(pairs, [("A", "1"), ("B", "x=y"), ("C", "")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        for bad in [&b"A"[..], b"=1", b"A=1\0A=2", b"\xff=1"] {
            assert!(parse(bad).is_err());
        }
        assert!(parse(format!("{}=1", "k".repeat(64)).as_bytes()).is_err());
    }

    #[test]
    fn binary_values_in_both_spellings() {
        assert_eq!(binary("0x00ff", 16), Some(vec![0, 255]));
        assert_eq!(binary("0xfff", 16), Some(vec![15, 255]));
        assert_eq!(binary("0bAP8=", 16), Some(vec![0, 255]));
        for bad in ["", "0x", "0b", "00ff", "0xzz", "0b!!", "0x112233", "0x€€"] {
            assert_eq!(binary(bad, 2), None, "{bad}");
        }
    }

    #[test]
    fn numbers_are_unsigned_and_bounded() {
        assert_eq!((number("262144"), number("0x200"), number("-1"), number("+1")), (Some(262_144), Some(512), None, None));
        assert_eq!((number("99999999999"), number(""), number("0x")), (None, None, None));
    }
}
