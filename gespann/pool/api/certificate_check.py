"""Whether what an administrator gives can be a server's certificate: the XenAPI's own refusal if not."""

from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gespann.pool.api.values import datetime_text
from gespann.seams.xenapi.errors import XenApiError

RSA_BITS = range(2048, 4097)
HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
PRIVATE = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()


def checked_pem(certificate: str, private_key: str, chain: str, now: datetime) -> bytes:
    """Key, certificate and chain as a server loads them. Each of the three comes as PEM; ``chain`` may be empty, and
    begins with whoever signed the certificate."""
    key = _key(private_key)
    leaf = _certificates(certificate, "SERVER_CERTIFICATE_INVALID")[0]
    if key.public_key() != leaf.public_key():
        raise XenApiError("SERVER_CERTIFICATE_KEY_MISMATCH", [])
    if now < leaf.not_valid_before_utc:
        shown = [datetime_text(now), datetime_text(leaf.not_valid_before_utc)]
        raise XenApiError("SERVER_CERTIFICATE_NOT_VALID_YET", shown)
    if now > leaf.not_valid_after_utc:
        raise XenApiError("SERVER_CERTIFICATE_EXPIRED", [datetime_text(now), datetime_text(leaf.not_valid_after_utc)])
    if not isinstance(leaf.signature_hash_algorithm, HASHES):
        raise XenApiError("SERVER_CERTIFICATE_SIGNATURE_NOT_SUPPORTED", [])
    signers = _certificates(chain, "SERVER_CERTIFICATE_CHAIN_INVALID") if chain.strip() else []
    for signed, signer in zip([leaf, *signers], signers, strict=False):
        _assert_signed(signed, signer)
    shown_pem = b"".join(c.public_bytes(serialization.Encoding.PEM) for c in [leaf, *signers])
    return key.private_bytes(*PRIVATE) + shown_pem


def _key(text: str) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(text.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it wants a passphrase
        raise XenApiError("SERVER_CERTIFICATE_KEY_INVALID", []) from None
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size not in RSA_BITS:
            raise XenApiError("SERVER_CERTIFICATE_KEY_RSA_LENGTH_NOT_SUPPORTED", [str(key.key_size)])
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        return key
    raise XenApiError("SERVER_CERTIFICATE_KEY_ALGORITHM_NOT_SUPPORTED", [type(key).__name__])


def _certificates(text: str, code: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise XenApiError(code, []) from None


def _assert_signed(signed: x509.Certificate, signer: x509.Certificate) -> None:
    try:
        signed.verify_directly_issued_by(signer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise XenApiError("SERVER_CERTIFICATE_CHAIN_INVALID", []) from None
