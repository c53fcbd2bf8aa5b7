"""What names, descriptions and addresses may look like. Each function returns the value or raises Mistake."""

import ipaddress
import re
from datetime import date

from gespann.array.model.refusals import Mistake

VOLUME_NAME_BYTES = 63
SNAPSHOT_NAME_BYTES = 128
SCHEDULE_NAME_BYTES = 64
POOL_NAME_BYTES = 63
DESCRIPTION_BYTES = 128
ALIAS_BYTES = 64
CHAP_NAME_BYTES = 63
CHAP_SECRET_BYTES = 255
ACCOUNT_NAME_BYTES = 64
GROUP_NAME_BYTES = 54
INITIATOR_BYTES = 223  # RFC 7143 4.2.7.1
ANY_ADDRESS = "*.*.*.*"

_VOLUME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]*", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
_POOL = re.compile(r"[A-Za-z0-9_]+", re.ASCII)  # one word for every client: theirs match \w+
_INITIATOR = re.compile(r"(iqn|eui|naa)\.[!-~]+", re.ASCII | re.IGNORECASE)


def volume_name(untrusted: str) -> str:
    return _named(untrusted, "volume", _VOLUME, VOLUME_NAME_BYTES, "letters, digits, hyphens, periods and colons")


def snapshot_name(untrusted: str) -> str:
    return _named(untrusted, "snapshot", _VOLUME, SNAPSHOT_NAME_BYTES, "letters, digits, hyphens, periods and colons")


def collection_name(untrusted: str) -> str:
    return _named(untrusted, "collection", _VOLUME, VOLUME_NAME_BYTES, "letters, digits, hyphens, periods and colons")


def schedule_name(untrusted: str) -> str:
    return _named(
        untrusted, "schedule", _WORD, SCHEDULE_NAME_BYTES, "letters, digits, underscores, hyphens and periods"
    )


def pool_name(untrusted: str) -> str:
    return _named(untrusted, "storage pool", _POOL, POOL_NAME_BYTES, "letters, digits and underscores")


def account_name(untrusted: str) -> str:
    return _named(untrusted, "account", _WORD, ACCOUNT_NAME_BYTES, "letters, digits, underscores, hyphens and periods")


def group_name(untrusted: str) -> str:
    return _named(untrusted, "group", _WORD, GROUP_NAME_BYTES, "letters, digits, underscores, hyphens and periods")


def _named(untrusted: str, kind: str, allowed: re.Pattern[str], limit_bytes: int, words: str) -> str:
    if len(untrusted.encode()) > limit_bytes:
        raise Mistake(f"The name of a {kind} can have {limit_bytes} characters at most.")
    if allowed.fullmatch(untrusted) is None:
        raise Mistake(f"The name of a {kind} consists of {words}, and starts with a letter or digit.")
    return untrusted


def description(untrusted: str) -> str:
    return _text(untrusted, "A description", DESCRIPTION_BYTES)


def alias(untrusted: str) -> str:
    return _text(untrusted, "An iSCSI alias", ALIAS_BYTES)


def _text(untrusted: str, what: str, limit_bytes: int) -> str:
    if len(untrusted.encode()) > limit_bytes:
        raise Mistake(f"{what} can have {limit_bytes} bytes at most.")
    if not untrusted.isprintable():
        raise Mistake(f"{what} cannot contain control characters.")
    return untrusted


def chap_user_name(untrusted: str) -> str:
    if not 1 <= len(untrusted.encode()) <= CHAP_NAME_BYTES:
        raise Mistake(f"The name of a CHAP user has 1 to {CHAP_NAME_BYTES} characters.")
    if not untrusted.isascii() or not untrusted.isprintable() or " " in untrusted:
        raise Mistake("The name of a CHAP user consists of printable ASCII characters without blanks.")
    return untrusted


def chap_secret(untrusted: str) -> str:
    """The text never comes back in the refusal: it is a secret, even when it is a bad one."""
    if not 1 <= len(untrusted.encode()) <= CHAP_SECRET_BYTES:
        raise Mistake(f"A CHAP password has 1 to {CHAP_SECRET_BYTES} characters.")
    if not untrusted.isascii() or not untrusted.isprintable():
        raise Mistake("A CHAP password consists of printable ASCII characters.")
    return untrusted


def initiator(untrusted: str) -> str:
    """An iSCSI name, or empty for any."""
    if untrusted in ("", "*"):
        return ""
    if len(untrusted) > INITIATOR_BYTES or _INITIATOR.fullmatch(untrusted) is None:
        raise Mistake(f"An initiator name starts with iqn., eui. or naa. and has {INITIATOR_BYTES} characters at most.")
    return untrusted


def address_pattern(untrusted: str) -> str:
    """An IPv4 address of which each octet may be ``*``."""
    octets = untrusted.split(".")
    if len(octets) != 4 or not all(_octet(octet) for octet in octets):
        raise Mistake(f'"{untrusted[:40]}" is not an IP address. Each of its four parts is a number or *.')
    return ".".join(octet if octet == "*" else str(int(octet)) for octet in octets)


def _octet(text: str) -> bool:
    return text == "*" or (text.isascii() and text.isdigit() and len(text) <= 3 and int(text) <= 255)


def ip_address(untrusted: str) -> str:
    try:
        return str(ipaddress.ip_address(untrusted))
    except ValueError:
        raise Mistake(f'"{untrusted[:40]}" is not an IP address.') from None


def minute_of_day(untrusted: str) -> int:
    """``01:30PM`` or ``13:30``; 24:00 is the end of the day."""
    match = re.fullmatch(r"(\d{1,2}):(\d\d)(AM|PM)?", untrusted, re.ASCII | re.IGNORECASE)
    if match is None:
        raise Mistake(f'"{untrusted[:40]}" is not a time of day. Write it like 01:30PM or 13:30.')
    hour, minute, half = int(match[1]), int(match[2]), (match[3] or "").upper()
    if half and 1 <= hour <= 12:
        hour = hour % 12 + (12 if half == "PM" else 0)
    elif half or hour > 24:
        raise Mistake(f'"{untrusted[:40]}" is not a time of day. Write it like 01:30PM or 13:30.')
    if minute > 59 or hour * 60 + minute > 24 * 60:
        raise Mistake(f'"{untrusted[:40]}" is not a time of day. Write it like 01:30PM or 13:30.')
    return hour * 60 + minute


WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def weekdays(untrusted: str) -> int:
    """``mon,wed``: a bit for each, Monday's the lowest."""
    found = 0
    for word in untrusted.lower().split(","):
        if word not in WEEKDAYS:
            raise Mistake(f'"{untrusted[:40]}" is not days of the week. Write them like mon,wed.')
        found |= 1 << WEEKDAYS.index(word)
    return found


def day(untrusted: str) -> str:
    try:
        return date.fromisoformat(untrusted).isoformat()
    except ValueError:
        raise Mistake(f'"{untrusted[:40]}" is not a date. Write it like 2010-02-16.') from None


def percent(untrusted: str, low: int, high: int) -> int:
    text = untrusted.removesuffix("%")
    if not text.isascii() or not text.isdigit() or len(text) > 6 or not low <= int(text) <= high:
        raise Mistake(f'"{untrusted[:40]}" is not a percentage from {low}% to {high}%.')
    return int(text)
