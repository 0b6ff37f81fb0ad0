"""Our assertion before somebody else's authority: the daemon proves itself to npm's oidc-provider."""

import os
import queue
import subprocess
import threading
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from conftest import RENEWD, Emulator

MODULES = Path(os.environ["RENEWD_SDK_MODULES"])
TENANT = "0f0f0f0f-1111-2222-3333-444444444444"
CLIENT = "5a5a5a5a-1111-2222-3333-444444444444"
SCOPE = "https://communication.azure.com//.default"


def key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certificate(name, own, issuer=None, authority=False):
    """By an issuer (its certificate and key), or by itself."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
    )
    if not authority:
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(issuer[1] if issuer else own, hashes.SHA256())


def pem(thing):
    if isinstance(thing, x509.Certificate):
        return thing.public_bytes(serialization.Encoding.PEM).decode()
    return thing.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


class Authority:
    """The program, and what it told."""

    def __init__(self, folder):
        command = ["node", str(MODULES / "authority.mjs"), str(folder), TENANT, CLIENT, SCOPE]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=MODULES
        )
        self.lines = queue.Queue()
        threading.Thread(target=self.listen, daemon=True).start()
        self.address = self.said()
        assert self.address.startswith("https://"), self.address

    def listen(self):
        for line in self.process.stdout:
            self.lines.put(line.strip())

    def said(self):
        """What it says next, within half a minute."""
        return self.lines.get(timeout=30)

    def stop(self):
        self.process.kill()
        self.process.wait(timeout=30)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("authority")
    root_key, leaf_key, client_key = key(), key(), key()
    root = certificate("test CA", root_key, authority=True)
    leaf = certificate("authority", leaf_key, (root, root_key))
    for name, things in {
        "tls.key": [leaf_key],
        "tls.pem": [leaf],
        "client.pem": [certificate("client", client_key)],
        "ours.pem": [client_key, certificate("client", client_key)],
    }.items():
        (folder / name).write_text("".join(map(pem, things)))
        (folder / name).chmod(0o600)
    emulator, authority = Emulator(), Authority(folder)
    (folder / "ca.pem").write_text(pem(root) + Path(emulator.ca).read_text())
    yield folder, authority, emulator
    authority.stop()
    emulator.stop()


def check(place, proof):
    """`renewd check --online`, which gets a bearer as the daemon does."""
    folder, authority, emulator = place
    config = folder / "renewd.toml"
    config.write_text(
        f"""
[daemon]
state_dir = "{folder}/state"
socket = "{folder}/renewd.sock"
listen = ""

[[resource]]
name = "contoso"
endpoint = "{emulator.endpoint}"
ca_file = "{folder}/ca.pem"
[resource.entra]
tenant = "{TENANT}"
client_id = "{CLIENT}"
authority = "{authority.address}"
{proof}
"""
    )
    command = [RENEWD, "check", "--online", "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_our_assertion_is_taken(place):
    folder, authority, emulator = place
    emulator.control("DELETE", "stats")
    done = check(place, f'client_certificate = {{ file = "{folder}/ours.pem" }}')
    told = done.stdout + done.stderr
    assert not authority.lines.empty(), told
    assert authority.said() == f"granted {CLIENT}", told
    # Its bearer is shown to ACS, which knows another authority.
    refused = emulator.control("GET", "requests?limit=1")["requests"][0]
    assert refused["reason"] == "the bearer is none that an emulator made"


def test_an_assertion_by_another_key_is_not(place):
    folder, authority, _ = place
    other = key()
    file = folder / "other.pem"
    file.write_text(pem(other) + pem(certificate("client", other)))
    file.chmod(0o600)
    done = check(place, f'client_certificate = {{ file = "{file}" }}')
    assert not authority.lines.empty(), done.stdout + done.stderr
    assert authority.said().startswith("refused invalid_client"), done.stdout + done.stderr
    assert done.returncode != 0
