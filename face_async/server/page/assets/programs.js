// The same call as a program: in Python, and for a shell with curl and openssl.

import { byId } from "./elements.js";

// Endpoint -> the session's method and its positional parameters; all others are keywords.
const VERBS = {
  newperson: ["new_person", "person_id", "group_ids", "image"],
  delperson: ["del_person", "person_id"],
  addface: ["add_face", "person_id", "images"],
  delface: ["del_face", "person_id", "face_ids"],
  setinfo: ["set_info", "person_id"],
  getinfo: ["get_info", "person_id"],
  getgroupids: ["get_group_ids"],
  getpersonids: ["get_person_ids", "group_id"],
  getfaceids: ["get_face_ids", "person_id"],
  getfaceinfo: ["get_face_info", "face_id"],
  verify: ["verify", "person_id", "image"],
  identify: ["identify", "group_id", "image"],
  compare: ["compare", "imageA", "imageB"],
  detect: ["detect", "image"],
  addgroupids: ["add_group_ids", "person_id", "group_ids"],
  delgroupids: ["del_group_ids", "person_id", "group_ids"],
  multidentify: ["multi_identify", "group_ids", "image"],
};

const PICTURE = { image: "picture.jpg", images: ["picture.jpg"], imageA: "first.jpg", imageB: "second.jpg" };

// Each endpoint with values of its parameters that stand for others.
export const EXAMPLES = Object.entries(VERBS).map(([endpoint, [, ...names]]) => {
  const all = endpoint === "setinfo" ? [...names, "person_name"] : names;
  const value = (name) => (name.endsWith("s") ? [`${name.slice(0, -4)}-1`] : name === "person_name" ? "Ada" : `${name.slice(0, -3)}-1`);
  const fields = Object.fromEntries(all.filter((name) => !(name in PICTURE)).map((name) => [name, value(name)]));
  const images = Object.fromEntries(all.filter((name) => name in PICTURE).map((name) => [name, PICTURE[name]]));
  return [endpoint, fields, images];
});

export function asPython(endpoint, fields, images) {
  const [method, ...positional] = VERBS[endpoint];
  const values = { ...given(fields, python), ...given(images, pythonPath) };
  const first = positional.filter((name) => name in values).map((name) => values[name]);
  const keywords = Object.keys(values).filter((name) => !positional.includes(name)).map((name) => `${name}=${values[name]}`);
  return `import asyncio
${Object.keys(images).length ? "from pathlib import Path\n" : ""}
from face_async import FaceSession


async def main():
    async with FaceSession.from_env() as session:
        print(await session.${method}(${[...first, ...keywords].join(", ")}))


asyncio.run(main())
`;
}

export function asCurl(endpoint, fields, images) {
  const texts = parts(fields).map(([name, value]) => ` --form-string ${shell(`${name}=${value}`)}`);
  const files = parts(images).map(([name, value]) => ` -F ${shell(`${name}=@"${nameOf(value).replaceAll(/["\\]/g, "\\$&")}"`)}`);
  return `now=$(date +%s)
text="a=$FACE_ASYNC_APPID&b=$FACE_ASYNC_BUCKET&k=$FACE_ASYNC_SECRET_ID&e=$((now + 300))&t=$now&r=$now&u=0&f="
digest() { printf %s "$text" | openssl dgst -sha1 -hmac "$FACE_ASYNC_SECRET_KEY" -binary; }
signature=$({ digest; printf %s "$text"; } | base64 | tr -d '\\n')
curl "$FACE_ASYNC_BASE_URL/face/${endpoint}" -H "Authorization: $signature" \\
  --form-string "appid=$FACE_ASYNC_APPID" --form-string "bucket=$FACE_ASYNC_BUCKET"${[...texts, ...files].map((part) => ` \\\n ${part}`).join("")}
`;
}

export function showProgram(endpoint, fields, images) {
  byId("python").textContent = asPython(endpoint, fields, images);
  byId("curl").textContent = asCurl(endpoint, fields, images);
  byId("program").hidden = false;
}

function given(values, write) {
  const present = Object.entries(values).filter(([, value]) => value !== null && value !== undefined);
  return Object.fromEntries(present.map(([name, value]) => [name, write(value)]));
}

function parts(values) {
  return Object.entries(values).flatMap(([name, value]) => {
    if (value === null || value === undefined) return [];
    return Array.isArray(value) ? value.map((each, index) => [`${name}[${index}]`, each]) : [[name, value]];
  });
}

// JSON's texts and lists are Python's, too.
const python = (value) => JSON.stringify(value).replaceAll('","', '", "');
const pythonPath = (value) => (Array.isArray(value) ? `[${value.map(pythonPath).join(", ")}]` : `Path(${JSON.stringify(nameOf(value))})`);
const nameOf = (picture) => (typeof picture === "string" ? picture : (picture.name ?? "picture.jpg"));
const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
