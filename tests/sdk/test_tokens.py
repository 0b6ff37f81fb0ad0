"""Tokens as an application sees them: claims, signatures, the SDKs' own credential."""

import base64
import json
import time

import jwt
import pytest
from azure.communication.identity import CommunicationIdentityClient
from azure.communication.identity._shared.user_credential import CommunicationTokenCredential
from azure.core.credentials import AzureKeyCredential

from conftest import Emulator

CLAIMS = [
    "skypeid", "scp", "csi", "exp", "rgn", "acsScope", "resourceId", "resourceLocation", "iat",
]


@pytest.fixture(scope="module", params=["rs256", "es256", "filler"])
def made(request):
    emulator = Emulator("--http", "--token-alg", request.param)
    client = CommunicationIdentityClient(emulator.endpoint, AzureKeyCredential(emulator.key))
    user, token = client.create_user_and_token(["chat", "voip"])
    yield request.param, emulator, user.properties["id"], token.token
    emulator.stop()


def test_claims_are_the_services_in_its_order(made):
    _, _, user, token = made
    payload = token.split(".")[1]
    claims = json.loads(base64.b64decode(payload + "=="))
    assert list(claims) == CLAIMS
    assert claims["skypeid"] == user.removeprefix("8:")
    assert claims["scp"] == 1792
    assert claims["csi"] == str(claims["iat"])
    assert claims["acsScope"] == "chat,voip"
    assert claims["resourceId"] == user.removeprefix("8:acs:").split("_")[0]
    assert claims["exp"] - claims["iat"] in (86400, 86401)


def test_header_names_the_key(made):
    alg, _, _, token = made
    header = jwt.get_unverified_header(token)
    assert list(header) == ["alg", "kid", "x5t", "typ"]
    assert header["alg"] == ("ES256" if alg == "es256" else "RS256")
    thumbprint = base64.urlsafe_b64decode(header["x5t"] + "==")
    assert header["kid"] == thumbprint.hex().upper() and len(thumbprint) == 20


def test_the_key_set_verifies_it_and_nothing_else(made):
    alg, emulator, _, token = made
    keys = jwt.PyJWKSet.from_dict(emulator.control("GET", "jwks"))
    kid = jwt.get_unverified_header(token)["kid"]
    if alg == "filler":
        assert all(key.key_id != kid for key in keys.keys)
        return
    key = next(key for key in keys.keys if key.key_id == kid)
    assert jwt.decode(token, key.key, algorithms=[alg.upper()])["scp"] == 1792
    head, payload, signature = token.split(".")
    forged = base64.urlsafe_b64encode(b'{"exp":9999999999}').decode().rstrip("=")
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(f"{head}.{forged}.{signature}", key.key, algorithms=[alg.upper()])


def test_the_size_is_that_of_the_real_ones(made):
    alg, _, _, token = made
    assert len(token.split(".")[2]) == (86 if alg == "es256" else 342)


def test_the_credential_of_other_sdks_reads_it(made):
    token = made[3]
    credential = CommunicationTokenCredential(token)
    assert credential.get_token().token == token
    assert credential.get_token().expires_on > time.time() + 86000
