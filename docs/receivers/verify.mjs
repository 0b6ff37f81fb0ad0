// Verifies events from renewd: signature, age, and that no older version comes after a newer one.
// Node's own modules only. Keep `versions` with the tokens, so that it outlives a restart.
import { createHmac, timingSafeEqual } from "node:crypto";

const TOLERANCE = 300; // seconds that the sender's clock may differ from ours

/** Answer 401: this did not come from renewd, or not just now. */
export class Refused extends Error {}

/**
 * The event, or null for one that is old news: answer 2xx to both, act on the first alone.
 * `secrets` are whsec_ texts, `headers` are Node's, `body` is a Buffer of the raw bytes, `versions` a Map.
 */
export function verify(secrets, headers, body, versions, now = Date.now() / 1000) {
  const id = headers["webhook-id"] ?? "", sent = headers["webhook-timestamp"] ?? "";
  if (!/^\d+$/.test(sent) || Math.abs(now - Number(sent)) > TOLERANCE) {
    throw new Refused("too old, or from the future");
  }
  const given = (headers["webhook-signature"] ?? "").split(" ").map((text) => Buffer.from(text));
  const fits = secrets.some((secret) => {
    const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
    if (key.length < 24) throw new Error("a secret is whsec_ and 24 to 64 bytes in base64");
    const mac = createHmac("sha256", key).update(`${id}.${sent}.`).update(body).digest("base64");
    const good = Buffer.from(`v1,${mac}`);
    return given.some((one) => one.length === good.length && timingSafeEqual(one, good));
  });
  if (!fits) throw new Refused("no signature fits");
  const event = JSON.parse(body.toString("utf8"));
  if (event.id !== id) throw new Refused("signed under another id");
  const { subject, data: { version } } = event;
  if (version === undefined) return event; // a notice: it has no version and is never superseded
  if (version <= (versions.get(subject) ?? 0)) return null;
  versions.set(subject, version);
  return event;
}
