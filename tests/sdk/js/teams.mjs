// Fake Entra tokens of Teams users, as the emulator documents them: three parts, the claims in the middle.

export const APP = "11111111-2222-3333-4444-555555555555";
export const USER = "99999999-8888-7777-6666-555555555555";

export function entra(livesFor) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const exp = Math.floor(Date.now() / 1000) + livesFor;
  return `${part({ alg: "none" })}.${part({ appid: APP, oid: USER, exp })}.x`;
}
