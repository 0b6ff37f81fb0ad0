"""Every refusal that the SDK can provoke: type, status, code, text, target, headers."""

import pytest
from azure.communication.identity import CommunicationUserIdentifier
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
)

import entra
from conftest import minutes

FOREIGN = CommunicationUserIdentifier(
    "8:acs:f5294985-c25d-4372-80f9-bb43572e72b2_00000007-ea1a-6e54-6032-3b3a0d0002c2"
)
RANGE = "ExpiresInMinutes value {} is invalid. Value must be within the [60, 1440] interval."


def refused(error, call, status, code, message, target=None, lists_versions=False):
    with pytest.raises(error) as caught:
        call()
    response = caught.value.response
    assert response.status_code == status
    body = response.json()["error"]
    expected = {"code": code, "message": message}
    if target is not None:
        expected["target"] = target
    assert body == expected
    assert response.headers["Content-Type"] == "application/json"
    assert ("api-supported-versions" in response.headers) == lists_versions
    for name in ["MS-CV", "X-Processing-Time", "Request-Context", "x-ms-client-request-id"]:
        assert name in response.headers
    return response.headers["x-renewd-emulator-reason"]


@pytest.mark.parametrize("life", [59, 1441, 0])
def test_lifetime_out_of_range(once, life):
    user = once.call("create_user")
    said = (HttpResponseError, 400, "ValidationError", RANGE.format(life), "ExpiresInMinutes", True)
    for arguments in [("create_user_and_token", ["chat"]), ("get_token", user, ["chat"])]:
        def call():
            once.call(*arguments, token_expires_in=minutes(life))

        refused(said[0], call, *said[1:])


def test_scopes_missing(once):
    user = once.call("create_user")
    refused(
        HttpResponseError,
        lambda: once.call("get_token", user, None),
        400,
        "ValidationError",
        "Scopes: The Scopes field is required.",
        "Scopes",
    )


def test_scopes_empty_and_unknown(once):
    user = once.call("create_user")
    for scopes in [[], ["email"], ["Chat"]]:
        with pytest.raises(HttpResponseError) as caught:
            once.call("get_token", user, scopes)
        assert caught.value.status_code == 400
        assert caught.value.error.code == "ValidationError"


@pytest.mark.parametrize("method", ["get_token", "revoke_tokens", "delete_user"])
def test_identity_of_another_resource(once, method):
    arguments = (FOREIGN, ["chat"]) if method == "get_token" else (FOREIGN,)
    refused(
        ClientAuthenticationError,
        lambda: once.call(method, *arguments),
        401,
        "IdentityNotOwned",
        "Provided identity doesn't belong to the resource.",
        lists_versions=True,
    )


@pytest.mark.parametrize("method", ["get_token", "revoke_tokens", "delete_user"])
def test_identity_that_was_deleted(once, method):
    user = once.call("create_user")
    once.call("delete_user", user)
    arguments = (user, ["chat"]) if method == "get_token" else (user,)
    reason = refused(
        ResourceNotFoundError,
        lambda: once.call(method, *arguments),
        404,
        "IdentityNotFound",
        "Provided identity doesn't exist.",
        lists_versions=True,
    )
    assert reason == "it was deleted"


def teams(once, token=None, app=entra.APP, user=entra.USER):
    token = entra.token() if token is None else token
    return lambda: once.call(
        "get_token_for_teams_user", aad_token=token, client_id=app, user_object_id=user
    )


@pytest.mark.parametrize("user", [entra.USER, ""])
@pytest.mark.parametrize("token", ["", "garbage", "a.b.c", entra.token(lives_for=-1)])
def test_teams_token_not_valid(once, token, user):
    refused(
        ClientAuthenticationError,
        teams(once, token=token, user=user),
        401,
        "InvalidAccessToken",
        "Provided access token is not valid.",
    )


@pytest.mark.parametrize(
    ("wrong", "message", "target", "listed"),
    [
        ({"app": ""}, "AppId: The AppId field is required.", "AppId", False),
        ({"app": "invalid"}, "Provided AppId has invalid format.", "appId", True),
        ({"app": entra.USER}, "AAD application is not the expected one.", "appId", True),
        ({"user": entra.APP}, "Provided AAD token issued for unexpected user.", "userId", True),
    ],
)
def test_teams_arguments_not_valid(once, wrong, message, target, listed):
    call = teams(once, **wrong)
    refused(HttpResponseError, call, 400, "ValidationError", message, target, listed)


def test_version_not_supported(once):
    with pytest.raises(HttpResponseError) as caught:
        once.call("create_user", with_options={"api_version": "2019-01-01"})
    host = once.emulator.endpoint.split("://")[1]
    assert caught.value.status_code == 400
    assert caught.value.error.code == "UnsupportedApiVersion"
    assert caught.value.error.message == (
        f"The HTTP resource that matches the request URI 'https://{host}/identities' "
        "does not support the API version '2019-01-01'."
    )


DENIED = (ClientAuthenticationError, 401, "Denied", "Denied by the resource provider.")


def denied(call):
    return refused(DENIED[0], call, *DENIED[1:])


def test_wrong_key(once):
    wrong = "AAAA" + once.emulator.key[4:]
    options = {"key": wrong}
    if once.emulator.ca:
        options = {"connection_string": f"endpoint={once.emulator.endpoint}/;accesskey={wrong}"}
    reason = denied(lambda: once.call("create_user", with_options=options))
    assert reason.startswith("wrong key")


def test_regenerated_key_and_the_other_one(sdk, once):
    user, token = sdk.call("create_user_and_token", ["chat"])
    former, emulator = sdk.emulator.connection_string, sdk.emulator
    keys = emulator.control("POST", "keys", {"regenerate": "primary"})
    assert emulator.judge(token.token)["reason"] == "the key that it was issued with was regenerated"
    assert denied(lambda: once.call("create_user")).startswith(
        "wrong key: signed with the former primary key"
    )
    for slot in ["secondary", "primary"]:
        emulator.key = keys[slot]["key"]
        emulator.connection_string = f"endpoint={emulator.endpoint}/;accesskey={emulator.key}"
        assert emulator.judge(sdk.call("get_token", user, ["chat"]).token)["live"]
        assert emulator.last_request()["key"] == slot
    assert emulator.connection_string != former


@pytest.mark.parametrize("offset", [-301, 302, 86400])
def test_clock_more_than_five_minutes_off(once, offset):
    once.emulator.control("POST", "clock", {"offset_seconds": offset})
    reason = refused(
        ClientAuthenticationError,
        lambda: once.call("create_user"),
        401,
        "Denied",
        "The time difference between the originating client and the server is greater than "
        "the allowed margin of 5 minutes.",
    )
    assert reason.startswith("date off by ")


@pytest.mark.parametrize("offset", [-290, 290])
def test_clock_less_than_five_minutes_off(once, offset):
    once.emulator.control("POST", "clock", {"offset_seconds": offset})
    assert once.call("create_user")
