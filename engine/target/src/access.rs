//! Access records: who matches them. Pure.

use gespann_control::messages::Access;
use std::net::IpAddr;

/// Does everything in the record but the CHAP user match?
fn place_matches(record: &Access, initiator: &str, address: IpAddr) -> bool {
    let named = record.initiator.is_empty() || record.initiator == "*" || record.initiator.eq_ignore_ascii_case(initiator);
    named && address_matches(&record.address, address)
}

/// Each octet of an IPv4 pattern may be `*`; an IPv6 address is matched whole, or by the pattern that matches all.
pub fn address_matches(pattern: &str, address: IpAddr) -> bool {
    if matches!(pattern, "" | "*" | "*.*.*.*") {
        return true;
    }
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let mut parts = pattern.split('.');
            let all =
                v4.octets().iter().all(|octet| parts.next().is_some_and(|part| part == "*" || part.parse() == Ok(*octet)));
            all && parts.next().is_none()
        }
        v6 => pattern.parse() == Ok(v6),
    }
}

/// Is the pattern one that could match anything?
pub fn address_is_valid(pattern: &str) -> bool {
    let octets = || pattern.split('.').all(|part| part == "*" || part.parse::<u8>().is_ok());
    matches!(pattern, "" | "*") || pattern.parse::<IpAddr>().is_ok() || (pattern.split('.').count() == 4 && octets())
}

/// May a session be opened by this initiator, from here, as this proved CHAP user?
pub fn admits(records: &[Access], initiator: &str, address: IpAddr, chap_user: Option<&str>) -> bool {
    records.iter().any(|record| {
        place_matches(record, initiator, address)
            && (record.chap_user.is_empty() || Some(record.chap_user.as_str()) == chap_user)
    })
}

/// Before authentication: none if no record could ever match, else whether all that could demand CHAP.
pub fn chap_required(records: &[Access], initiator: &str, address: IpAddr) -> Option<bool> {
    let mut matching = records.iter().filter(|record| place_matches(record, initiator, address)).peekable();
    matching.peek()?;
    Some(matching.all(|record| !record.chap_user.is_empty()))
}

/// Is a target worth telling to this asker? One that has not proved a CHAP user is told what it could open by proving it.
pub fn discoverable(records: &[Access], initiator: &str, address: IpAddr, chap_user: Option<&str>) -> bool {
    match chap_user {
        Some(_) => admits(records, initiator, address, chap_user),
        None => chap_required(records, initiator, address).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(initiator: &str, chap_user: &str, address: &str) -> Access {
        Access { initiator: initiator.to_owned(), chap_user: chap_user.to_owned(), address: address.to_owned() }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn all_fields_of_one_record_must_match() {
        let records = [record("iqn.a:1", "", "10.0.0.*"), record("", "bob", "*.*.*.*")];
        let admits = |initiator, address, user| admits(&records, initiator, ip(address), user);
        assert!(admits("iqn.a:1", "10.0.0.7", None));
        assert!(!admits("iqn.a:1", "10.0.1.7", None));
        assert!(!admits("iqn.a:2", "10.0.0.7", None));
        assert!(admits("iqn.a:2", "10.0.1.7", Some("bob")));
        assert!(!admits("iqn.a:2", "10.0.1.7", Some("eve")));
        assert!(!super::admits(&[], "iqn.a:1", ip("10.0.0.7"), None));
    }

    #[test]
    fn chap_is_required_only_if_nothing_else_could_match() {
        let records = [record("iqn.a:1", "", "*.*.*.*"), record("", "bob", "*.*.*.*")];
        assert_eq!(chap_required(&records, "iqn.a:1", ip("1.2.3.4")), Some(false));
        assert_eq!(chap_required(&records, "iqn.a:2", ip("1.2.3.4")), Some(true));
        assert_eq!(chap_required(&records[..1], "iqn.a:2", ip("1.2.3.4")), None);
    }

    #[test]
    fn addresses_by_octet() {
        for (pattern, address, expected) in [
            ("192.168.*.*", "192.168.3.4", true),
            ("192.168.*.*", "192.169.3.4", false),
            ("192.168.3", "192.168.3.4", false),
            ("192.168.3.4.5", "192.168.3.4", false),
            ("1.2.3.4", "::ffff:1.2.3.4", true),
            ("fe80::1", "fe80::1", true),
            ("1.2.3.4", "fe80::1", false),
        ] {
            assert_eq!(address_matches(pattern, ip(address)), expected, "{pattern} {address}");
        }
        assert!(address_is_valid("10.*.0.1") && !address_is_valid("10.*.0") && !address_is_valid("10.*.0.256"));
    }
}
