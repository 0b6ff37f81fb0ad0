"""Fake Entra tokens, as the emulator documents them: three parts, the claims in the middle."""

import base64
import json
import time

APP = "11111111-2222-3333-4444-555555555555"
USER = "99999999-8888-7777-6666-555555555555"


def part(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def token(appid=APP, oid=USER, lives_for=3600):
    claims = {"appid": appid, "oid": oid, "exp": int(time.time()) + lives_for}
    return f"{part({'alg': 'none'})}.{part(claims)}.x"
