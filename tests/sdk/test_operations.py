"""All six operations, and that what they promise is so."""

import re
from datetime import datetime, timedelta, timezone

import pytest
from azure.communication.identity import (
    CommunicationTokenScope,
    CommunicationUserIdentifier,
    CommunicationUserProperties,
)

import entra
from conftest import minutes

ID = re.compile(r"8:acs:[0-9a-f-]{36}_0000[0-9a-f]{4}-[0-9a-f-]{27}")
VERSIONS = (
    "2020-07-20-preview2, 2021-02-22-preview1, 2021-03-07, 2021-10-31-preview, "
    "2021-11-01, 2022-06-01, 2022-10-01, 2023-10-01"
)


def lives_for(token):
    ends = datetime.fromisoformat(token.expires_on)
    return ends - datetime.now(timezone.utc)


def about(expected):
    return pytest.approx(expected.total_seconds(), abs=60)


def test_create_user(sdk):
    user = sdk.call("create_user")
    assert ID.fullmatch(user.properties["id"])
    assert len(user.properties["id"]) == 79
    assert sdk.headers["api-supported-versions"] == VERSIONS
    assert sdk.headers["Content-Type"] == "application/json; charset=utf-8"
    assert sdk.headers["Request-Context"] == "appId="
    assert re.fullmatch(r".{22}\.0", sdk.headers["MS-CV"])
    assert re.fullmatch(r"\d+ms", sdk.headers["X-Processing-Time"])
    assert sdk.headers["Strict-Transport-Security"] == "max-age=2592000"
    request = sdk.emulator.last_request()
    assert sdk.headers["x-ms-client-request-id"] == request["client_request_id"]
    assert (request["status"], request["operation"]) == (201, "create")


def test_create_user_and_token(sdk):
    scopes = [CommunicationTokenScope.CHAT, CommunicationTokenScope.VOIP]
    user, token = sdk.call("create_user_and_token", scopes)
    assert ID.fullmatch(user.properties["id"])
    assert lives_for(token).total_seconds() == about(timedelta(hours=24))
    verdict = sdk.emulator.judge(token.token)
    assert verdict["live"] and verdict["id"] == user.properties["id"]
    assert sdk.emulator.calls("create_with_token") == 1


@pytest.mark.parametrize("life", [60, 61, 1440])
def test_chosen_lifetimes(sdk, life):
    user, token = sdk.call("create_user_and_token", ["chat"], token_expires_in=minutes(life))
    assert lives_for(token).total_seconds() == about(minutes(life))
    token = sdk.call("get_token", user, ["voip"], token_expires_in=minutes(life))
    assert lives_for(token).total_seconds() == about(minutes(life))


@pytest.mark.parametrize("scope", ["chat", "voip", "chat.join", "chat.join.limited", "voip.join"])
def test_every_scope(sdk, scope):
    user = sdk.call("create_user")
    assert sdk.emulator.judge(sdk.call("get_token", user, [scope]).token)["live"]


def test_get_token(sdk):
    user = sdk.call("create_user")
    token = sdk.call("get_token", user, ["chat", "voip"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,6}[1-9])?\+00:00", token.expires_on)
    assert sdk.emulator.judge(token.token)["live"]
    assert sdk.emulator.last_request()["status"] == 200
    # The asynchronous client sends the id's colons as they are, the other one as %3A.
    colon = ":acs:" if sdk.flavour == "aio" else "%3Aacs%3A"
    assert colon in sdk.emulator.last_request()["target"]


def test_revoke_tokens(sdk):
    user, old = sdk.call("create_user_and_token", ["chat"])
    assert sdk.call("revoke_tokens", user) is None
    assert sdk.emulator.last_request()["status"] == 204
    assert "Content-Type" not in sdk.headers and "Content-Length" not in sdk.headers
    new = sdk.call("get_token", user, ["chat"])
    verdict = sdk.emulator.judge(old.token)
    assert (verdict["live"], verdict["reason"]) == (False, "revoked")
    assert sdk.emulator.judge(new.token)["live"], "issued in the second of the revocation"


def test_delete_user(sdk):
    user, token = sdk.call("create_user_and_token", ["chat"])
    assert sdk.call("delete_user", user) is None
    assert sdk.emulator.last_request()["status"] == 204
    assert not sdk.emulator.judge(token.token)["live"]


def test_get_token_for_teams_user(sdk):
    token = sdk.call(
        "get_token_for_teams_user",
        aad_token=entra.token(lives_for=4000),
        client_id=entra.APP,
        user_object_id=entra.USER,
    )
    assert lives_for(token).total_seconds() == about(timedelta(seconds=4000))
    assert sdk.emulator.judge(token.token)["id"] == f"8:orgid:{entra.USER}"
    assert sdk.headers["api-supported-versions"] == "2021-10-31-preview, 2022-06-01, 2022-10-01"


def test_identifiers_are_what_other_sdks_take(sdk):
    user = sdk.call("create_user")
    again = CommunicationUserIdentifier(user.properties["id"])
    assert again.properties == CommunicationUserProperties(id=user.properties["id"])


@pytest.mark.parametrize("version", ["2021-03-07", "2022-06-01", "2022-10-01", "2023-10-01"])
def test_older_versions(sdk, version):
    options = {"api_version": version}
    user, token = sdk.call("create_user_and_token", ["chat"], with_options=options)
    assert sdk.emulator.judge(token.token)["id"] == user.properties["id"]
    assert f"api-version={version}" in sdk.emulator.last_request()["target"]
