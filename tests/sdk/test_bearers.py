"""Programs that have no key: azure-identity with only the variables set, by each way to a bearer."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import RENEWD, Emulator

HERE = Path(__file__).parent
COUNTED = {
    "vm": "imds",
    "app-service": "app_service",
    "arc": "arc",
    "workload": "workload_identity",
    "secret": "client_secret",
    "certificate": "client_certificate",
}


def run(*arguments, **options):
    command = [RENEWD, "emulator", "--listen", "127.0.0.1:0", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


@pytest.mark.parametrize("kind", COUNTED)
def test_every_operation_by_every_credential(kind):
    program = [sys.executable, str(HERE / "bearer_program.py"), kind]
    done = run(f"--entra={kind}", "--", *program)
    assert done.returncode == 0, done.stderr
    uses = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(uses) >= 4
    for used in uses:
        assert used["key"].startswith("entra:"), used
        for operation in ["create", "create_with_token", "issue", "revoke", "delete", "exchange"]:
            assert used["calls"][operation] == 1, used
        # DefaultAzureCredential looks first whether there is anybody; Arc wants two requests for one bearer.
        counted = used["calls"][COUNTED[kind]]
        assert counted <= 2 if used["credential"] == "DefaultAzureCredential" or kind == "arc" else counted == 1
    if kind == "arc":
        assert not os.path.exists("/var/opt/azcmagent/tokens") or not list(
            Path("/var/opt/azcmagent/tokens").glob("*.key")
        )


FOREIGN = [
    "AZURE_CLIENT_SECRET",
    "AZURE_USERNAME",
    "AZURE_TENANT_ID",
    "MSI_ENDPOINT",
    "IDENTITY_HEADER",
    "COMMUNICATION_SERVICES_CONNECTION_STRING",
]


def test_no_identity_of_ones_own_is_left_to_the_program():
    environment = {**os.environ, **dict.fromkeys(FOREIGN, "canary")}
    done = run("--entra", "--", "env", env=environment)
    assert "canary" not in done.stdout
    assert "AZURE_POD_IDENTITY_AUTHORITY_HOST=http://127.0.0.1:" in done.stdout
    done = run("--entra=secret", "--", "env", env=environment)
    assert "canary" not in done.stdout and "AZURE_CLIENT_SECRET=" in done.stdout


@pytest.mark.parametrize("kind", COUNTED)
def test_without_a_command_the_variables_are_printed(kind):
    emulator = Emulator(f"--entra={kind}")
    wanted = {
        "vm": {"AZURE_POD_IDENTITY_AUTHORITY_HOST"},
        "app-service": {"IDENTITY_ENDPOINT", "IDENTITY_HEADER"},
        "arc": {"IDENTITY_ENDPOINT", "IMDS_ENDPOINT"},
    }.get(kind, {"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_AUTHORITY_HOST"})
    assert wanted <= set(emulator.variables)
    assert emulator.variables["COMMUNICATION_SERVICES_ENDPOINT"] == emulator.endpoint
    assert "COMMUNICATION_SERVICES_CONNECTION_STRING" not in emulator.variables
    files = [path for name, path in emulator.variables.items() if name.endswith(("_PATH", "_FILE"))]
    for path in filter(os.path.exists, files):
        private = path.endswith(("client.pem", "federated.jwt"))
        assert os.stat(path).st_mode & 0o777 == (0o600 if private else 0o644), path
    emulator.stop()
    assert not any("renewd-emulator-" in path and os.path.exists(path) for path in files)


def test_a_resource_that_is_played_again_has_the_same_tenant(tmp_path):
    file = tmp_path / "emulator.cs"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    file.write_text(f"endpoint=https://127.0.0.1:{port}/;accesskey=cHJpbWFyeQ==\n")
    command = [RENEWD, "emulator", "--connection-string-file", str(file), "--entra", "secret"]
    program = ["sh", "-c", "echo $AZURE_TENANT_ID $AZURE_CLIENT_ID $AZURE_CLIENT_SECRET"]
    said = {subprocess.check_output([*command, "--", *program], timeout=60) for _ in range(2)}
    assert len(said) == 1 and len(said.pop().split()) == 3


def test_an_address_in_use_is_told_with_its_option():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("--entra", "--metadata-listen", address, "--", "true")
    assert done.returncode != 0 and address in done.stderr and "--metadata-listen" in done.stderr


def test_the_address_of_the_metadata_services_answers_nothing_else():
    emulator = Emulator("--entra")
    address = emulator.variables["AZURE_POD_IDENTITY_AUTHORITY_HOST"]
    for path in ["/identities?api-version=2023-10-01", "/_emulator/v1/keys", "/a/oauth2/v2.0/token"]:
        assert emulator.http.post(address + path, data="").status_code == 404, path
        assert emulator.http.get(address + path).status_code == 404, path
    emulator.stop()


def test_a_federated_token_of_ones_own(tmp_path):
    token = tmp_path / "token"
    token.write_text("a text of my own")
    program = [sys.executable, str(HERE / "bearer_program.py"), "workload"]
    done = run("--entra=workload", "--federated-token-file", str(token), "--", *program)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--entra", "--http"], "--http"),
        (["--entra=vm2"], "app-service"),
        (["--entra", "pytest"], "app-service"),
        (["--metadata-listen", "127.0.0.1:0"], "--entra"),
        (["--entra", "--federated-token-file", "/nonexistent"], "/nonexistent"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, word):
    done = run(*arguments, "--", "true")
    assert done.returncode != 0 and word in done.stderr, done.stderr
