// A receiver made of docs/receivers/verify.mjs. Says `port=N`, then one JSON line for each request.
// What it verifies, the official library has to verify, too. Secrets are the arguments.
import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";
import { Refused, verify } from "./verify.mjs";

const secrets = process.argv.slice(2);
const versions = new Map();

function official(headers, body) {
  const verifies = (secret) => {
    try {
      new Webhook(secret).verify(body.toString("utf8"), headers);
      return true;
    } catch {
      return false;
    }
  };
  return secrets.some(verifies);
}

function receive(headers, body) {
  try {
    const event = verify(secrets, headers, body, versions);
    return { status: 200, verdict: event ? "new" : "old", type: event?.type ?? null };
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return { status: 401, verdict: error.message, type: null };
  }
}

const server = createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const body = Buffer.concat(chunks);
    const { status, ...told } = receive(request.headers, body);
    const path = request.url;
    console.log(JSON.stringify({ path, ...told, official: official(request.headers, body) }));
    response.writeHead(status).end();
  });
});
server.listen(0, "127.0.0.1", () => console.log(`port=${server.address().port}`));
