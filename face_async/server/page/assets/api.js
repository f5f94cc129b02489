// Calls of the server's endpoints. The page's own back end signs them: no key comes to the browser.

import { showProgram } from "./programs.js";
import { settings, t } from "./settings.js";

export class Refusal extends Error {
  constructor(code, data) {
    const [name, meaning] = settings.codes[code] ?? ["", t("a code that this page does not know")];
    super(t("{meaning} (code {code})", { meaning: sentence(meaning), code: `${code} ${name}`.trim() }));
    Object.assign(this, { code, name, meaning, data });
  }
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

// What fetch returns; where nobody answers, an error in plain words.
export async function fetched(address, options) {
  try {
    return await fetch(address, options);
  } catch {
    throw new Error(t("The server does not answer: it has ended, or the network is down."));
  }
}

// Fields and images by the specification's names; an array stands for a list. Returns the answer's data.
export async function call(endpoint, fields = {}, images = {}) {
  showProgram(endpoint, fields, images);
  return callQuietly(endpoint, fields, images);
}

// The same for what only adds to what is shown: it is not the call that people see as a program.
export async function callQuietly(endpoint, fields, images = {}) {
  const form = new FormData();
  for (const [name, value] of Object.entries({ appid: settings.appid, bucket: settings.bucket, ...fields, ...images })) {
    const values = Array.isArray(value) ? value.map((each, index) => [`${name}[${index}]`, each]) : [[name, value]];
    for (const [key, each] of values) {
      if (each !== null && each !== undefined) form.append(key, each);
    }
  }
  const response = await fetched(settings.calls + endpoint, {
    method: "POST",
    body: form,
    headers: { [settings.tokenHeader]: settings.token },
  });
  if (response.status === 403) throw new Error(`${await response.text()} ${t("Open the last link that serve has printed.")}`);
  const { code, data } = await response.json().catch(() => {
    throw new Error(t("The answer cannot be read. It is not the server's own: HTTP status {status}.", { status: response.status }));
  });
  if (code !== 0) throw new Refusal(code, data);
  return data;
}

// What a call returns, or null where it is refused with this code.
export async function unless(code, promise) {
  try {
    return await promise;
  } catch (error) {
    if (error.code !== code) throw error;
    return null;
  }
}

export const NO_SUCH_PERSON = -1303;
export const PERSON_EXISTS = -1302;

const people = new Map(); // id -> what getinfo said of a person, null when they are gone, and which question that answers
let questions = 0;

// A person as people know them, once whatIsKnownOf was asked: the name with the id, or the id alone.
export function titleOf(personId) {
  const name = people.get(personId)?.person?.person_name;
  return name ? `${name} (${personId})` : personId;
}

export function firstFaceOf(personId) {
  return people.get(personId)?.person?.face_ids[0];
}

// Return what getinfo says of a person, null if they are gone, and remember it unless what was asked later is known.
export async function whatIsKnownOf(personId) {
  questions += 1;
  const question = questions;
  const person = await unless(NO_SUCH_PERSON, callQuietly("getinfo", { person_id: personId }));
  if (question > (people.get(personId)?.question ?? 0)) people.set(personId, { person, question });
  return person;
}

// Learn of these people what is not known yet.
export function learnOf(personIds) {
  return forEachAtOnce(personIds, 6, (id) => people.has(id) || whatIsKnownOf(id));
}

// Create a person with a first face, or add the face to the one who has this id.
export async function addToPerson(personId, image, { name, groups }) {
  if (await whatIsKnownOf(personId)) {
    const { ret_codes: [code] } = await call("addface", { person_id: personId }, { images: [image] });
    if (code !== 0) throw new Refusal(code, {});
  } else {
    await call("newperson", { person_id: personId, person_name: name || null, group_ids: groups }, { image });
    people.delete(personId);
  }
}

// Call a function for each item, so many at once; it must not throw.
export async function forEachAtOnce(items, atOnce, work) {
  const iterator = items[Symbol.iterator]();
  const lane = async () => {
    for (const item of iterator) await work(item);
  };
  await Promise.all(Array.from({ length: atOnce }, lane));
}
