"""The local authority: who believes its certificates, and for which names."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from penstock import authority
from penstock.authority import Authority


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    authority.establish(tmp_path / "ca")
    return tmp_path / "ca"


def shake(server: ssl.SSLContext, folder: Path, name: str) -> str:
    """The outcome of a handshake with a strict client that trusts the folder's authority: "good" or the verifier's words."""
    client = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    near, far = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(far, server_side=True) as wrapped:
                wrapped.recv(1)
        except OSError:
            far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(near, server_hostname=name) as wrapped:
            wrapped.send(b"x")
            return "good"
    except ssl.SSLCertVerificationError as fault:
        return fault.verify_message
    finally:
        near.close()
        thread.join(5)


def stolen(folder: Path, name: x509.GeneralName) -> ssl.SSLContext:
    """What a thief of the key would serve for another name."""
    key = serialization.load_pem_private_key((folder / "key.pem").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    issuer = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes()).subject
    now = datetime.datetime.now(datetime.UTC)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([name]), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    made = folder / "stolen.pem"
    made.write_bytes(leaf.public_bytes(serialization.Encoding.PEM) + (folder / "key.pem").read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made)
    return context


@pytest.mark.parametrize(
    "host",
    [
        "sts.us-east-1.amazonaws.com",
        "bucket.with.dots.s3.eu-west-1.amazonaws.com",
        "sagemaker.cn-north-1.amazonaws.com.cn",
        "lambda.us-east-1.api.aws",
        "x" * 63 + ".s3.us-east-1.amazonaws.com",
    ],
)
def test_a_strict_client_believes_a_certificate_for_a_host_of_aws(folder: Path, host: str) -> None:
    assert shake(Authority(folder).context(host), folder, host) == "good"


def test_a_certificate_holds_for_its_own_host_only(folder: Path) -> None:
    served = Authority(folder).context("sts.us-east-1.amazonaws.com")
    assert "mismatch" in shake(served, folder, "iam.amazonaws.com")


def test_a_thief_of_the_key_cannot_speak_for_another_name(folder: Path) -> None:
    served = stolen(folder, x509.DNSName("example.com"))
    assert "permitted subtree violation" in shake(served, folder, "example.com")


@pytest.mark.parametrize("address", ["203.0.113.9", "2001:db8::1"])
def test_a_thief_of_the_key_cannot_speak_for_an_address(folder: Path, address: str) -> None:
    served = stolen(folder, x509.IPAddress(ipaddress.ip_address(address)))
    assert "excluded subtree violation" in shake(served, folder, address)


def test_the_authority_signs_no_further_authorities(folder: Path) -> None:
    ours = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    assert ours.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


def test_only_the_owner_reads_the_key(folder: Path) -> None:
    assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_making_a_context_leaves_no_key_in_the_folder(folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    Authority(folder).context("s3.amazonaws.com")
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_second_start_keeps_the_authority(folder: Path) -> None:
    before = (folder / "ca.pem").read_bytes()
    authority.establish(folder)
    assert (folder / "ca.pem").read_bytes() == before


def test_the_bundle_holds_the_systems_certificates_and_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    system = tmp_path / "system.pem"
    system.write_text("of the system\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(system))
    text = authority.establish(folder).read_text()
    assert text == "of the system\n" + (folder / "ca.pem").read_text()


def test_a_start_in_a_shell_that_has_the_bundle_does_not_grow_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / "bundle.pem").read_bytes()
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "bundle.pem"))
    assert authority.establish(folder).read_bytes() == before
