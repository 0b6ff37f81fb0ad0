// Somebody else's authority: npm's oidc-provider, at the path that Entra ID's token endpoint has, over TLS. Its one client
// proves itself by `private_key_jwt`, PS256. Tells on standard output where it listens, then what became of each
// request.
//
// usage: node authority.mjs FOLDER TENANT CLIENT SCOPE    FOLDER holds tls.key, tls.pem and client.pem

import { createPublicKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { join } from "node:path";
import Provider from "oidc-provider";

const [folder, tenant, client, scope] = process.argv.slice(2);
const read = (name) => readFileSync(join(folder, name));
const say = (word) => process.stdout.write(`${word}\n`);
// The provider has remarks of its own.
console.info = console.error;

const server = createServer({ key: read("tls.key"), cert: read("tls.pem") });
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const address = `https://127.0.0.1:${server.address().port}`;

const key = createPublicKey(read("client.pem")).export({ format: "jwk" });
const provider = new Provider(`${address}/${tenant}`, {
  clients: [
    {
      client_id: client,
      token_endpoint_auth_method: "private_key_jwt",
      token_endpoint_auth_signing_alg: "PS256",
      grant_types: ["client_credentials"],
      response_types: [],
      redirect_uris: [],
      jwks: { keys: [{ ...key, use: "sig", alg: "PS256" }] },
      scope,
    },
  ],
  clientAuthMethods: ["private_key_jwt"],
  enabledJWA: { clientAuthSigningAlgValues: ["PS256"] },
  scopes: [scope],
  features: { clientCredentials: { enabled: true }, devInteractions: { enabled: false } },
  routes: { token: "/oauth2/v2.0/token" },
});
provider.on("grant.success", (ctx) => say(`granted ${ctx.oidc.client.clientId}`));
provider.on("grant.error", (_, error) => say(`refused ${error.error}: ${error.error_detail}`));

const answer = provider.callback();
server.on("request", (request, response) => {
  request.originalUrl = request.url;
  request.url = request.url.replace(`/${tenant}/`, "/");
  answer(request, response);
});
say(address);
