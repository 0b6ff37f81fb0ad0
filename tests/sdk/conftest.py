"""The official SDKs against `renewd emulator`, run as a program over http and over TLS."""

import asyncio
import os
import subprocess
from datetime import timedelta

import pytest
import requests
from azure.communication import identity
from azure.communication.identity import aio
from azure.core.credentials import AzureKeyCredential

RENEWD = os.environ["RENEWD"]


class Emulator:
    """The program, and its control API."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [RENEWD, "emulator", "--listen", "127.0.0.1:0", *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.variables = {}
        line = self.process.stdout.readline().strip()
        while line and not line.startswith("endpoint="):
            name, value = line.split("=", 1)
            self.variables[name] = value
            line = self.process.stdout.readline().strip()
        self.ca = self.variables.pop("ca", None)
        self.connection_string = line
        endpoint, key = line.split(";", 1)
        self.endpoint = endpoint.removeprefix("endpoint=").rstrip("/")
        self.key = key.removeprefix("accesskey=")
        self.http = requests.Session()
        self.http.trust_env = False
        if self.ca:
            self.http.verify = self.ca

    def control(self, method, path, body=None, expect=200):
        answer = self.http.request(method, f"{self.endpoint}/_emulator/v1/{path}", json=body)
        assert answer.status_code == expect, answer.text
        return answer.json()

    def fault(self, **spec):
        return self.control("POST", "faults", spec)

    def judge(self, token):
        return self.control("POST", "tokens", {"token": token})

    def last_request(self):
        return self.control("GET", "requests?limit=1")["requests"][0]

    def calls(self, operation):
        return self.control("GET", "stats")["operations"].get(operation, {}).get("calls", 0)

    def reset(self):
        self.control("DELETE", "faults")
        self.control("DELETE", "stats")
        self.control("DELETE", "requests")
        self.control("POST", "clock", {"offset_seconds": 0})
        off = ["create", "create_with_token", "issue", "revoke", "delete", "exchange"]
        self.control("POST", "limits", dict.fromkeys(off))

    def stop(self):
        self.process.terminate()
        rest = self.process.stdout.read()
        status = self.process.wait(timeout=30)
        assert (status, rest) == (0, ""), (status, rest)


class Sdk:
    """The synchronous or the asynchronous client, called alike; keeps the last answer's headers."""

    def __init__(self, flavour, emulator, **options):
        self.flavour = flavour
        self.emulator = emulator
        self.options = options
        self.headers = None

    def client(self, module, **options):
        options = {**self.options, **options, "raw_response_hook": self.keep}
        client = module.CommunicationIdentityClient
        if self.emulator.ca:
            connection_string = options.pop("connection_string", self.emulator.connection_string)
            options.setdefault("connection_verify", self.emulator.ca)
            return client.from_connection_string(connection_string, **options)
        endpoint = options.pop("endpoint", self.emulator.endpoint)
        key = options.pop("key", self.emulator.key)
        return client(endpoint, AzureKeyCredential(key), **options)

    def keep(self, response):
        self.headers = response.http_response.headers

    def call(self, method, *arguments, with_options=None, **named):
        options = with_options or {}
        if self.flavour == "sync":
            client = self.client(identity, **options)
            return getattr(client, method)(*arguments, **named)

        async def run():
            async with self.client(aio, **options) as client:
                return await getattr(client, method)(*arguments, **named)

        return asyncio.run(run())


@pytest.fixture(scope="session")
def emulators():
    both = {"http": Emulator("--http"), "tls": Emulator()}
    yield both
    for emulator in both.values():
        emulator.stop()


@pytest.fixture(params=["http", "tls"])
def emulator(request, emulators):
    emulator = emulators[request.param]
    emulator.reset()
    return emulator


@pytest.fixture(params=["sync", "aio"])
def sdk(request, emulator):
    return Sdk(request.param, emulator)


@pytest.fixture
def once(sdk):
    """The same client without retries."""
    return Sdk(sdk.flavour, sdk.emulator, retry_total=0)


def minutes(count):
    return timedelta(minutes=count)


def pytest_sessionfinish(session):
    """A test that was skipped was not run, and that is a failure here."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
