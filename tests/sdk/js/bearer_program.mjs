// A program that has no key: each credential of @azure/identity that fits the variables that it was started with,
// all operations of the SDK. Prints what each credential did.

import assert from "node:assert/strict";
import * as identity from "@azure/identity";
import { CommunicationIdentityClient } from "@azure/communication-identity";
import { APP, USER, entra } from "./teams.mjs";

const endpoint = process.env.COMMUNICATION_SERVICES_ENDPOINT;
// The one thing for which there is no variable.
const SWITCH = { disableInstanceDiscovery: true };

async function control(method, path, body) {
  const answer = await fetch(`${endpoint}/_emulator/v1/${path}`, { method, body: body && JSON.stringify(body) });
  assert.equal(answer.status, 200);
  return answer.json();
}

const { AZURE_TENANT_ID: tenant, AZURE_CLIENT_ID: client } = process.env;
const assigned = (await control("GET", "entra")).assigned_identity;
const managed = [["ManagedIdentityCredential"], ["DefaultAzureCredential"]];
const credentials = {
  vm: [
    ...managed,
    ["ManagedIdentityCredential", { clientId: assigned.client_id }],
    ["ManagedIdentityCredential", { objectId: assigned.object_id }],
    ["ManagedIdentityCredential", { resourceId: assigned.resource_id }],
    ["DefaultAzureCredential", { managedIdentityClientId: assigned.client_id }],
  ],
  "app-service": managed,
  arc: managed,
  workload: [
    ["WorkloadIdentityCredential", SWITCH],
    ["DefaultAzureCredential", SWITCH],
  ],
  secret: [
    ["EnvironmentCredential", SWITCH],
    ["DefaultAzureCredential", SWITCH],
    ["ClientSecretCredential", tenant, client, process.env.AZURE_CLIENT_SECRET, SWITCH],
  ],
  certificate: [
    ["EnvironmentCredential", SWITCH],
    ["DefaultAzureCredential", SWITCH],
    [
      "ClientCertificateCredential",
      tenant,
      client,
      { certificatePath: process.env.AZURE_CLIENT_CERTIFICATE_PATH },
      SWITCH,
    ],
  ],
}[process.argv[2]];

async function allOperations(sdk) {
  const user = await sdk.createUser();
  const other = await sdk.createUserAndToken(["chat"]);
  const { token } = await sdk.getToken(user, ["chat", "voip"]);
  assert.ok((await control("POST", "tokens", { token })).live);
  await sdk.revokeTokens(other.user);
  assert.ok(!(await control("POST", "tokens", { token: other.token })).live);
  const teams = { teamsUserAadToken: entra(3600), clientId: APP, userObjectId: USER };
  assert.ok((await sdk.getTokenForTeamsUser(teams)).token);
  await sdk.deleteUser(user);
}

// One claims challenge is answered; one that never ends is given up.
async function challenged(sdk) {
  await control("POST", "entra", { challenge: "until_answered" });
  await sdk.createUser();
  await control("POST", "entra", { challenge: "always" });
  await assert.rejects(sdk.createUser(), (error) => error.statusCode === 401);
  await control("DELETE", "entra");
}

for (const [name, ...options] of credentials) {
  const sdk = new CommunicationIdentityClient(endpoint, new identity[name](...options));
  await control("DELETE", "stats");
  await allOperations(sdk);
  const { operations } = await control("GET", "stats");
  const { requests } = await control("GET", "requests?limit=1&operation=delete");
  // The bearers of machines are kept for the whole process, and given again at a challenge.
  if (tenant) await challenged(sdk);
  const calls = Object.fromEntries(Object.entries(operations).map(([name, count]) => [name, count.calls]));
  console.log(JSON.stringify({ credential: name, key: requests[0].key, calls }));
}
