"""Certificates that end: those of peers, and those that are trusted."""

import json
import ssl

from conftest import Emulator, House, Receiver, run, until


OPENSSL = """
[req]
distinguished_name = subject
x509_extensions = leaf
prompt = no
[subject]
CN = 127.0.0.1
[leaf]
basicConstraints = critical,CA:FALSE
subjectAltName = IP:127.0.0.1
"""


def made(folder, name, days):
    """A certificate for 127.0.0.1 that vouches for itself, and ends in so many days."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    (folder / "openssl.cnf").write_text(OPENSSL)
    found = run(
        *["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"],
        *["-keyout", key, "-out", certificate, "-days", str(days), "-config", folder / "openssl.cnf"],
    )
    assert found.returncode == 0, found.stderr
    return certificate, key


class Secure(Receiver):
    def __init__(self, certificate, key):
        super().__init__()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = self.url.replace("http:", "https:")


def needs(house):
    found = [one for one in house.status()["needs"] if one["kind"].startswith("certificate")]
    return {(one["subject"], one["kind"]) for one in found}


def sink(name, url, ca_file, body=""):
    return f'\n[[sink.webhook]]\nname = "{name}"\nurl = "{url}"\nca_file = "{ca_file}"\n{body}\n'


def test_one_that_ends_is_told_until_another_is_there(tmp_path, emulator):
    short, lasting = made(tmp_path, "short", 6), made(tmp_path, "lasting", 90)
    soon = made(tmp_path, "soon", 20)
    receiver = Secure(*short)
    trusted = tmp_path / "trusted.pem"
    trusted.write_text(short[0].read_text() + lasting[0].read_text() + soon[0].read_text())
    more = sink("crm", receiver.url, trusted, 'body = "alertmanager"\nevents = ["certificate.*"]')
    house = House(tmp_path, emulator, more)
    try:
        told = json.loads(receiver.next()[2])[0]
        assert told["labels"]["key"] == f"last week of the certificate of {trusted}", told
        until("both needs", lambda: len(needs(house)) == 2)
        assert needs(house) == {("crm", "certificate_ends_soon"), (str(trusted), "certificate_ends_soon")}
        ends = f'renewd_certificate_expiry_timestamp_seconds{{of="{trusted}",role="trusted"}}'
        of_peer = ends.replace(str(trusted), "crm").replace("trusted", "peer")
        until("both ends", lambda: house.value(ends) and house.value(of_peer))
        assert house.value(ends) == house.value(of_peer)
        # Who is trusted changes, and a reload that changes nothing else takes it up.
        trusted.write_text(soon[0].read_text() + short[0].read_text())
        house.process.send_signal(1)
        log = tmp_path / "daemon.log"
        until("the reload", lambda: "1 sink restarted" in log.read_text())
        trusted.write_text(lasting[0].read_text())
        house.process.send_signal(1)
        until("the next reload", lambda: log.read_text().count("1 sink restarted") == 2)
        until("its end", lambda: (str(trusted), "certificate_ends_soon") not in needs(house))
        found = house.renewd("sink", "test", "crm")
        assert found.returncode == 1 and "TLS handshake" in found.stdout + found.stderr, found
    finally:
        house.stop()


def test_that_of_the_endpoint_is_seen(tmp_path):
    emulator = Emulator(secure=True)
    house = House(tmp_path, emulator)
    try:
        ends = 'renewd_certificate_expiry_timestamp_seconds{of="contoso",role="peer"}'
        until("the certificate of the endpoint", lambda: house.value(ends))
        assert needs(house) == set()
    finally:
        house.stop()
        emulator.stop()
