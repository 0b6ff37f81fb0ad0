"""Limits and injected faults, through the SDKs' own retries."""

import time

import pytest
from azure.core.exceptions import (
    DecodeError,
    HttpResponseError,
    IncompleteReadError,
    ServiceRequestError,
    ServiceResponseError,
)


def test_throttled_and_patient(sdk):
    """A client that obeys Retry-After gets through."""
    sdk.emulator.control("POST", "limits", {"create": "1/1s"})
    for _ in range(3):
        assert sdk.call("create_user")
    stats = sdk.emulator.control("GET", "stats")["operations"]["create"]
    assert stats["succeeded"] == 3 and stats["throttled"] >= 1


def test_throttled_and_impatient(once):
    once.emulator.control("POST", "limits", {"create": "1/30s"})
    once.call("create_user")
    with pytest.raises(HttpResponseError) as caught:
        once.call("create_user")
    assert caught.value.status_code == 429
    assert 1 <= int(caught.value.response.headers["Retry-After"]) <= 30
    assert once.call("create_user_and_token", ["chat"]), "another operation, another limit"


@pytest.mark.parametrize("status", [500, 503])
def test_a_fault_of_the_service_is_retried(sdk, status):
    sdk.emulator.fault(kind="status", status=status, operation="create", count=2)
    assert sdk.call("create_user", with_options={"retry_backoff_factor": 0.05})
    assert sdk.emulator.calls("create") == 3


@pytest.mark.parametrize(
    ("kind", "errors"),
    [
        ("reset", (ServiceRequestError, ServiceResponseError)),
        ("outage", (ServiceRequestError, ServiceResponseError)),
        ("truncated", (IncompleteReadError, ServiceResponseError, HttpResponseError)),
        ("malformed", (DecodeError, HttpResponseError)),
    ],
)
def test_an_answer_that_does_not_arrive(once, kind, errors):
    once.emulator.fault(kind=kind, operation=None if kind == "outage" else "create")
    with pytest.raises(errors):
        once.call("create_user")
    once.emulator.control("DELETE", "faults")
    assert once.call("create_user")


def test_a_hang_lasts_until_the_client_gives_up(once):
    once.emulator.fault(kind="hang", count=1)
    with pytest.raises((ServiceRequestError, ServiceResponseError)):
        once.call("create_user", with_options={"read_timeout": 1})
    assert once.emulator.last_request()["status"] is None
    assert once.call("create_user")


def test_a_delay_is_only_late(once):
    once.emulator.fault(kind="delay", delay_ms=300, count=1)
    began = time.monotonic()
    assert once.call("create_user")
    assert time.monotonic() - began >= 0.3
