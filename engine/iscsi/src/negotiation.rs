//! Operational keys: each side's offer, one result (RFC 7143 section 13).

use crate::parameters::{OUR_FIRST_BURST_BYTES, OUR_MAX_BURST_BYTES, OUR_MAX_OUTSTANDING_R2T, Parameters};
use crate::text::number;

/// What is answered to one offered key.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Declared, nothing to say.
    Silent,
    Value(String),
    /// Not one of the keys here: login keys, or unknown.
    Other,
}

fn value(text: &str) -> Result<Answer, &'static str> {
    Ok(Answer::Value(text.to_owned()))
}

fn yes_no(text: &str) -> Result<bool, &'static str> {
    match text {
        "Yes" => Ok(true),
        "No" => Ok(false),
        _ => Err("a value that is neither Yes nor No"),
    }
}

fn in_range(text: &str, least: u32, most: u32) -> Result<u32, &'static str> {
    number(text).filter(|n| (least..=most).contains(n)).ok_or("a number out of range")
}

/// The initiator's first choice that is known here.
fn digest(offer: &str) -> Result<bool, &'static str> {
    let known = offer.split(',').find_map(|name| match name {
        "CRC32C" => Some(true),
        "None" => Some(false),
        _ => None,
    });
    known.ok_or("no digest in common")
}

fn digest_name(on: bool) -> &'static str {
    if on { "CRC32C" } else { "None" }
}

const LONGEST_SEGMENT: u32 = 0xff_ffff;

pub fn negotiate(parameters: &mut Parameters, key: &str, offer: &str) -> Result<Answer, &'static str> {
    match key {
        "HeaderDigest" => {
            parameters.header_digest = digest(offer)?;
            value(digest_name(parameters.header_digest))
        }
        "DataDigest" => {
            parameters.data_digest = digest(offer)?;
            value(digest_name(parameters.data_digest))
        }
        "InitialR2T" => {
            parameters.initial_r2t = yes_no(offer)?;
            value(offer)
        }
        "ImmediateData" => {
            parameters.immediate_data = yes_no(offer)?;
            value(offer)
        }
        "MaxRecvDataSegmentLength" => {
            parameters.initiator_max_recv_bytes = in_range(offer, 512, LONGEST_SEGMENT)?;
            Ok(Answer::Silent)
        }
        "MaxBurstLength" => {
            parameters.max_burst_bytes = in_range(offer, 512, LONGEST_SEGMENT)?.min(OUR_MAX_BURST_BYTES);
            value(&parameters.max_burst_bytes.to_string())
        }
        "FirstBurstLength" => {
            parameters.first_burst_bytes = in_range(offer, 512, LONGEST_SEGMENT)?.min(OUR_FIRST_BURST_BYTES);
            value(&parameters.first_burst_bytes.to_string())
        }
        "MaxOutstandingR2T" => {
            parameters.max_outstanding_r2t = in_range(offer, 1, 65_535)?.min(OUR_MAX_OUTSTANDING_R2T);
            value(&parameters.max_outstanding_r2t.to_string())
        }
        _ => fixed(key, offer),
    }
}

/// Keys whose result does not depend on the offer, or that change nothing here.
fn fixed(key: &str, offer: &str) -> Result<Answer, &'static str> {
    match key {
        "MaxConnections" => in_range(offer, 1, 65_535).and_then(|_| value("1")),
        "DataPDUInOrder" | "DataSequenceInOrder" => yes_no(offer).and_then(|_| value("Yes")),
        "ErrorRecoveryLevel" => in_range(offer, 0, 2).and_then(|_| value("0")),
        "DefaultTime2Wait" => value(&in_range(offer, 0, 3600)?.max(2).to_string()),
        "DefaultTime2Retain" => in_range(offer, 0, 3600).and_then(|_| value("0")),
        "IFMarker" | "OFMarker" => yes_no(offer).and_then(|_| value("No")),
        "IFMarkInt" | "OFMarkInt" => value("Irrelevant"),
        "TaskReporting" => value(if offer.split(',').any(|item| item == "RFC3720") { "RFC3720" } else { "Reject" }),
        "iSCSIProtocolLevel" => value(&in_range(offer, 0, 31)?.min(1).to_string()),
        "InitiatorAlias" => Ok(Answer::Silent),
        _ => Ok(Answer::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_stay_within_both_offers() {
        let mut parameters = Parameters::default();
        let mut ask = |key, offer| negotiate(&mut parameters, key, offer);
        assert_eq!(ask("HeaderDigest", "CRC32C,None"), Ok(Answer::Value("CRC32C".into())));
        assert_eq!(ask("DataDigest", "X-foo,None"), Ok(Answer::Value("None".into())));
        assert_eq!(ask("MaxBurstLength", "16776192"), Ok(Answer::Value("1048576".into())));
        assert_eq!(ask("MaxBurstLength", "4096"), Ok(Answer::Value("4096".into())));
        assert_eq!(ask("InitialR2T", "No"), Ok(Answer::Value("No".into())));
        assert_eq!(ask("X-com.example", "1"), Ok(Answer::Other));
        for (key, bad) in
            [("MaxBurstLength", "511"), ("InitialR2T", "yes"), ("HeaderDigest", "MD5"), ("MaxOutstandingR2T", "0")]
        {
            assert!(ask(key, bad).is_err(), "{key}={bad}");
        }
    }
}
