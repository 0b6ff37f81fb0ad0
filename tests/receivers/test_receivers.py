"""Real deliveries, judged by the kit, by the official libraries and by the CloudEvents SDK."""

import json
import time
from datetime import datetime, timezone

import pytest
from cloudevents.core.bindings import http as cloudevents
from conftest import NEW, OLD
from standardwebhooks import Webhook

LANGUAGES = ["python", "node", "rust"]


def signed(event, at=None, secrets=(NEW, OLD)):
    """A request such as renewd makes, by the official library."""
    at = at or time.time()
    body = json.dumps(event).encode()
    when = datetime.fromtimestamp(int(at), timezone.utc)
    signatures = [Webhook(secret).sign(event["id"], when, body.decode()) for secret in secrets]
    headers = {
        "webhook-id": event["id"],
        "webhook-timestamp": str(int(at)),
        "webhook-signature": " ".join(signatures),
    }
    return headers, body


@pytest.fixture(scope="session")
def delivered(house):
    """The first delivery as it went over the wire; every receiver has had its own by now."""
    for receiver in house.receivers.values():
        receiver.until("renewd.token.issued")
    return house.witness.until("renewd.token.issued")


@pytest.fixture(params=LANGUAGES)
def receiver(request, house, delivered):
    return house.receivers[request.param]


def test_the_official_library_verifies_with_either_secret(delivered):
    headers, body = delivered
    for secret in (OLD, NEW):
        assert Webhook(secret).verify(body, headers)["id"] == headers["webhook-id"]


def test_the_sdk_parses_the_event(delivered):
    headers, body = delivered
    event = cloudevents.from_http_event(cloudevents.HTTPMessage(headers, body))
    assert event.get_id() == headers["webhook-id"]
    assert event.get_specversion() == "1.0"
    assert event.get_type() == "renewd.token.issued"
    assert event.get_source() == "renewd/kit/contoso"
    assert event.get_subject() == "bot"
    assert event.get_datacontenttype() == "application/json"
    data = event.get_data()
    assert event.get_time() == datetime.fromisoformat(data["issued_at"])
    assert (data["name"], data["state"], data["scopes"]) == ("bot", "active", ["chat"])
    assert data["token"].count(".") == 2


def test_every_receiver_takes_renewals_in_order(house, receiver):
    house.renewd("renew", "bot")
    receiver.until("renewd.token.renewed")
    assert all(told["verdict"] == "new" for told in receiver.told)


def test_the_official_javascript_library_agrees(house, delivered):
    node = house.receivers["node"]
    headers, body = delivered
    _, told = node.post(headers, body)
    assert told["official"]
    _, told = node.post(headers, body + b" ")
    assert not told["official"]


def test_a_delivery_that_comes_again_is_old_news(receiver, delivered):
    headers, body = delivered
    status, told = receiver.post(headers, body)
    assert (status, told["verdict"]) == (200, "old")


def test_a_tampered_body_is_refused(receiver, delivered):
    headers, body = delivered
    event = json.loads(body)
    event["data"]["version"] += 1000
    for changed in (json.dumps(event).encode(), body + b" ", b""):
        status, told = receiver.post(headers, changed)
        assert (status, told["verdict"]) == (401, "no signature fits")


def test_what_was_not_signed_for_this_request_is_refused(receiver, delivered):
    headers, body = delivered
    for change in (
        {"webhook-id": "another"},
        {"webhook-signature": ""},
        {"webhook-signature": "v1,"},
        {"webhook-signature": headers["webhook-signature"].replace("v1,", "v2,")},
    ):
        assert receiver.post(headers | change, body)[0] == 401, change
    stranger = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
    assert receiver.post(*signed(json.loads(body), secrets=[stranger]))[0] == 401


def test_a_delivery_from_long_ago_or_from_the_future_is_refused(receiver, delivered):
    event = json.loads(delivered[1])
    for seconds in (-310, 310):
        status, told = receiver.post(*signed(event, at=time.time() + seconds))
        assert (status, told["verdict"]) == (401, "too old, or from the future")
    assert receiver.post({**delivered[0], "webhook-timestamp": "soon"}, delivered[1])[0] == 401
    assert receiver.post(*signed(event, at=time.time() - 200))[0] == 200


def test_an_older_version_never_replaces_a_newer_one(receiver, delivered):
    event = json.loads(delivered[1])
    event["data"]["version"] += 1_000_000
    assert receiver.post(*signed(event))[1]["verdict"] == "new"
    event["id"] = "another"
    event["data"]["version"] -= 1
    status, told = receiver.post(*signed(event))
    assert (status, told["verdict"]) == (200, "old")
    event["subject"] = "somebody-else"
    assert receiver.post(*signed(event))[1]["verdict"] == "new"


def test_a_reference_names_the_version_and_holds_no_token(house, delivered):
    headers, body = house.thin.until("renewd.token.issued")
    data = Webhook(NEW).verify(body, headers)["data"]
    full = json.loads(delivered[1])["data"]
    assert full.pop("token") and "token" not in data
    assert data == full
    document = json.loads(house.renewd("token", "bot", "--json"))
    assert document["version"] >= data["version"]


def test_a_pager_hears_of_keys_and_resources_alone(house, delivered):
    house.regenerate_key()
    house.renewd("renew", "bot", "--detach")
    headers, body = house.pager.until("renewd.key.rejected")
    event = cloudevents.from_http_event(cloudevents.HTTPMessage(headers, body))
    assert Webhook(OLD).verify(body, headers)["id"] == event.get_id()
    assert event.get_subject() is None
    assert event.get_data()["resource"] == "contoso"
    assert house.pager.kept.empty()
    for receiver in house.receivers.values():
        receiver.until("renewd.key.rejected")
