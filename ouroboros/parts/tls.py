"""Keys and certificates for a secure Kafka on 127.0.0.1."""

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey


def write_tls(folder: Path) -> None:
    """Write `ca.pem` and `broker.pem` (key and chain), good for a year, where there are none."""
    if (folder / "broker.pem").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    authority, broker = (
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP256R1()),
    )
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Ouroboros development CA")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    ca = certificate(issuer, issuer, authority, authority, ca=True)
    leaf = certificate(subject, issuer, broker, authority, ca=False)
    private = broker.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain = folder / "broker.pem"
    chain.touch(mode=0o600)
    chain.write_bytes(private + leaf.public_bytes(Encoding.PEM) + ca.public_bytes(Encoding.PEM))
    (folder / "ca.pem").write_bytes(ca.public_bytes(Encoding.PEM))


def certificate(
    subject: x509.Name, issuer: x509.Name, key: Key, signer: Key, *, ca: bool
) -> x509.Certificate:
    """A certificate for `key`; a broker's is good for localhost and 127.0.0.1."""
    now = datetime.now(UTC)
    start = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if not ca:
        names = [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
        start = start.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return start.sign(signer, hashes.SHA256())
