// The official JavaScript SDK against `renewd emulator`, over http and over TLS.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { after, before, describe, test } from "node:test";
import { AzureCommunicationTokenCredential } from "@azure/communication-common";
import { CommunicationIdentityClient } from "@azure/communication-identity";
import { APP, USER, entra } from "./teams.mjs";

async function start(...options) {
  const child = spawn(process.env.RENEWD, ["emulator", "--listen", "127.0.0.1:0", ...options], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  let line = (await lines.next()).value;
  let ca;
  if (line.startsWith("ca=")) {
    ca = readFileSync(line.slice(3), "utf8");
    line = (await lines.next()).value;
  }
  const ended = new Promise((resolve) => child.once("exit", resolve));
  const stop = async () => {
    child.kill("SIGTERM");
    assert.equal(await ended, 0);
  };
  return { connectionString: line, ca, stop };
}

async function refusal(call) {
  let caught;
  await assert.rejects(call, (error) => ((caught = error), true));
  return caught;
}

for (const transport of ["http", "tls"]) {
  describe(`over ${transport}`, () => {
    let emulator;
    let client;
    before(async () => {
      emulator = await start(...(transport === "http" ? ["--http"] : []));
      const options = emulator.ca
        ? { tlsOptions: { ca: emulator.ca } }
        : { allowInsecureConnection: true };
      client = new CommunicationIdentityClient(emulator.connectionString, options);
    });
    after(() => emulator.stop());

    test("createUser", async () => {
      const user = await client.createUser();
      assert.match(user.communicationUserId, /^8:acs:[0-9a-f-]{36}_[0-9a-f-]{36}$/);
    });

    test("createUserAndToken, getToken, and the credential of other SDKs", async () => {
      const { user, token, expiresOn } = await client.createUserAndToken(["chat", "voip"], {
        tokenExpiresInMinutes: 60,
      });
      assert.ok(Math.abs(expiresOn - Date.now() - 3600e3) < 60e3);
      assert.equal((await new AzureCommunicationTokenCredential(token).getToken()).token, token);
      const again = await client.getToken(user, ["voip"]);
      assert.ok(Math.abs(again.expiresOn - Date.now() - 86400e3) < 60e3);
    });

    test("revokeTokens and deleteUser", async () => {
      const user = await client.createUser();
      await client.revokeTokens(user);
      await client.deleteUser(user);
      const error = await refusal(() => client.getToken(user, ["chat"]));
      assert.equal(error.statusCode, 404);
      assert.equal(error.message, "Provided identity doesn't exist.");
    });

    test("getTokenForTeamsUser", async () => {
      const ask = (teamsUserAadToken) =>
        client.getTokenForTeamsUser({ teamsUserAadToken, clientId: APP, userObjectId: USER });
      assert.ok((await ask(entra(3600))).token);
      const error = await refusal(() => ask(entra(-1)));
      assert.equal(error.statusCode, 401);
      assert.equal(error.code, "InvalidAccessToken");
    });

    test("refusals carry the service's words", async () => {
      const user = await client.createUser();
      const range = await refusal(() =>
        client.getToken(user, ["chat"], { tokenExpiresInMinutes: 59 }),
      );
      assert.equal(range.statusCode, 400);
      assert.equal(range.code, "ValidationError");
      assert.equal(range.details.error.target, "ExpiresInMinutes");
      const communicationUserId =
        "8:acs:f5294985-c25d-4372-80f9-bb43572e72b2_00000007-ea1a-6e54-6032-3b3a0d0002c2";
      const foreign = await refusal(() => client.deleteUser({ communicationUserId }));
      assert.equal(foreign.code, "IdentityNotOwned");
    });

    test("a wrong key is denied, and the header says why", async () => {
      const wrong = emulator.connectionString.replace(/accesskey=..../, "accesskey=AAAA");
      const options = emulator.ca
        ? { tlsOptions: { ca: emulator.ca } }
        : { allowInsecureConnection: true };
      const stranger = new CommunicationIdentityClient(wrong, options);
      const error = await refusal(() => stranger.createUser());
      assert.equal(error.code, "Denied");
      assert.equal(error.message, "Denied by the resource provider.");
      assert.match(error.response.headers.get("x-renewd-emulator-reason"), /^wrong key/);
    });
  });
}
