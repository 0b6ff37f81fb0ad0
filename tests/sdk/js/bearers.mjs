// Programs that have no key: @azure/identity with only the variables set, by each way to a bearer.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";

const COUNTED = {
  vm: "imds",
  "app-service": "app_service",
  arc: "arc",
  workload: "workload_identity",
  secret: "client_secret",
  certificate: "client_certificate",
};

for (const [kind, counted] of Object.entries(COUNTED)) {
  test(`every operation by every credential: ${kind}`, () => {
    const program = [process.execPath, "bearer_program.mjs", kind];
    const arguments_ = ["emulator", "--listen", "127.0.0.1:0", `--entra=${kind}`, "--", ...program];
    const done = spawnSync(process.env.RENEWD, arguments_, { encoding: "utf8", timeout: 120e3 });
    assert.equal(done.status, 0, done.stderr);
    const uses = done.stdout.trim().split("\n").map((line) => JSON.parse(line));
    assert.ok(uses.length >= 2);
    for (const { credential, key, calls } of uses) {
      assert.match(key, /^entra:/);
      for (const operation of ["create", "create_with_token", "issue", "revoke", "delete", "exchange"]) {
        assert.equal(calls[operation], 1, credential);
      }
      // The bearers of machines are kept for the whole process.
      assert.ok((calls[counted] ?? 0) <= 2, JSON.stringify(calls));
    }
    assert.ok(uses.some(({ calls }) => calls[counted] >= 1));
  });
}
