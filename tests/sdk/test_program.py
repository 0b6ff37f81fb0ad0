"""The program itself: output, exit status, environment, what it does to wrong clients."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from conftest import RENEWD, Emulator

CLIENT = """
import asyncio, json, os
from azure.communication.identity import CommunicationIdentityClient
from azure.communication.identity.aio import CommunicationIdentityClient as Aio
text = os.environ["COMMUNICATION_SERVICES_CONNECTION_STRING"]
async def main():
    async with Aio.from_connection_string(text) as client:
        return (await client.create_user()).properties["id"]
first = CommunicationIdentityClient.from_connection_string(text).create_user().properties["id"]
print(json.dumps([first, asyncio.run(main())]))
"""


def run(*arguments, **options):
    command = [RENEWD, "emulator", "--listen", "127.0.0.1:0", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def test_a_program_is_run_with_everything_it_needs():
    done = run("--", sys.executable, "-c", CLIENT)
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert first.startswith("8:acs:") and first < second


@pytest.mark.parametrize("status", [0, 3, 200])
def test_it_ends_as_the_program_does(status):
    assert run("--", "sh", "-c", f"exit {status}").returncode == status


def test_it_ends_as_a_program_that_a_signal_ended():
    assert run("--", "sh", "-c", "kill -9 $$").returncode == 128 + 9


def test_a_program_that_is_not_there():
    done = run("--", "/nonexistent")
    assert done.returncode == 127 and "/nonexistent" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_go_on_to_the_program(number):
    script = f"trap 'exit 42' {number.value}; echo ready; while :; do sleep 0.05; done"
    command = [RENEWD, "emulator", "--listen", "127.0.0.1:0", "--", "sh", "-c", script]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(timeout=30) == 42


def test_the_ca_is_removed_in_the_end_unless_it_was_asked_for(tmp_path):
    emulator = Emulator()
    assert os.path.isabs(emulator.ca) and os.path.exists(emulator.ca)
    emulator.stop()
    assert not os.path.exists(emulator.ca)
    wanted = tmp_path / "ca.pem"
    emulator = Emulator("--ca-file", str(wanted))
    assert emulator.ca == str(wanted)
    emulator.stop()
    assert wanted.exists()


def test_both_keys_come_from_a_file(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("cHJpbWFyeQ==\nc2Vjb25kYXJ5\n")
    emulator = Emulator("--http", "--access-key-file", str(keys))
    assert emulator.key == "cHJpbWFyeQ=="
    assert emulator.control("GET", "keys")["secondary"]["key"] == "c2Vjb25kYXJ5"
    emulator.stop()
    keys.write_text("canary, no base64")
    done = run("--http", "--access-key-file", str(keys))
    assert done.returncode == 2 and "canary" not in done.stderr + done.stdout


def test_an_address_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--listen", f"127.0.0.1:{port}")
    assert done.returncode == 2 or done.returncode == 1
    assert done.stdout == ""


def test_a_tls_hello_on_the_http_port_is_closed_at_once():
    emulator = Emulator("--http")
    host, port = emulator.endpoint.split("://")[1].split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        try:
            assert client.recv(1) == b""
        except ConnectionResetError:
            pass
    emulator.stop()


def test_the_control_api_can_be_guarded(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("open sesame\n")
    emulator = Emulator("--http", "--control-secret-file", str(secret))
    emulator.control("GET", "stats", expect=401)
    emulator.http.headers["x-emulator-control"] = "open sesame"
    emulator.control("GET", "stats")
    emulator.stop()
