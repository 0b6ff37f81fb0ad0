"""A program that has no key: each credential of azure-identity that fits the variables that it was started with, all
operations of the SDK, synchronous and asynchronous. Prints what each credential did."""

import asyncio
import inspect
import json
import os
import sys

import requests
from azure import identity
from azure.communication.identity import CommunicationIdentityClient, aio
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import aio as identity_aio

import entra

ENDPOINT = os.environ["COMMUNICATION_SERVICES_ENDPOINT"]
# The one thing for which there is no variable.
SWITCH = {"disable_instance_discovery": True}


def control(method, path, body=None):
    answer = requests.request(method, f"{ENDPOINT}/_emulator/v1/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def credentials(kind):
    """Name of the class and its arguments, for each that is to work."""
    read = os.environ.get
    application = {"tenant_id": read("AZURE_TENANT_ID"), "client_id": read("AZURE_CLIENT_ID")}
    assigned = control("GET", "entra")["assigned_identity"]
    managed = [
        ("ManagedIdentityCredential", {}),
        ("DefaultAzureCredential", {}),
    ]
    return {
        "vm": managed
        + [
            ("ManagedIdentityCredential", {"client_id": assigned["client_id"]}),
            ("DefaultAzureCredential", {"managed_identity_client_id": assigned["client_id"]}),
            (
                "ManagedIdentityCredential",
                {"identity_config": {"object_id": assigned["object_id"]}},
            ),
            (
                "ManagedIdentityCredential",
                {"identity_config": {"resource_id": assigned["resource_id"]}},
            ),
        ],
        "app-service": managed,
        "arc": managed,
        "workload": [("WorkloadIdentityCredential", {}), ("DefaultAzureCredential", {})],
        "secret": [
            ("EnvironmentCredential", SWITCH),
            ("DefaultAzureCredential", SWITCH),
            (
                "ClientSecretCredential",
                {**application, "client_secret": read("AZURE_CLIENT_SECRET"), **SWITCH},
            ),
        ],
        "certificate": [
            ("EnvironmentCredential", SWITCH),
            ("DefaultAzureCredential", SWITCH),
            (
                "CertificateCredential",
                {
                    **application,
                    "certificate_path": read("AZURE_CLIENT_CERTIFICATE_PATH"),
                    **SWITCH,
                },
            ),
        ],
    }[kind]


async def done(result):
    return await result if inspect.isawaitable(result) else result


async def all_operations(client):
    user = await done(client.create_user())
    other, first = await done(client.create_user_and_token(["chat"]))
    token = await done(client.get_token(user, ["chat", "voip"]))
    assert control("POST", "tokens", {"token": token.token})["live"]
    await done(client.revoke_tokens(other))
    assert not control("POST", "tokens", {"token": first.token})["live"]
    teams = client.get_token_for_teams_user(
        aad_token=entra.token(), client_id=entra.APP, user_object_id=entra.USER
    )
    assert (await done(teams)).token
    await done(client.delete_user(user))


async def challenged(client):
    """One claims challenge is answered; one that never ends is given up."""
    control("POST", "entra", {"challenge": "until_answered"})
    await done(client.create_user())
    control("POST", "entra", {"challenge": "always"})
    try:
        await done(client.create_user())
    except ClientAuthenticationError as error:
        assert error.status_code == 401
    else:
        raise AssertionError("it was taken")
    finally:
        control("DELETE", "entra")


async def use(client):
    control("DELETE", "stats")
    await all_operations(client)
    calls = control("GET", "stats")["operations"]
    key = control("GET", "requests?limit=1&operation=delete")["requests"][0]["key"]
    await challenged(client)
    return {"key": key, "calls": {name: count["calls"] for name, count in calls.items()}}


async def use_async(name, arguments):
    credential = getattr(identity_aio, name)(**arguments)
    async with credential, aio.CommunicationIdentityClient(ENDPOINT, credential) as client:
        return await use(client)


async def main():
    for name, arguments in credentials(sys.argv[1]):
        client = CommunicationIdentityClient(ENDPOINT, getattr(identity, name)(**arguments))
        for used in [await use(client), await use_async(name, arguments)]:
            print(json.dumps({"credential": name, "arguments": sorted(arguments), **used}))


asyncio.run(main())
