// Enroll: all people of a folder.

import { call, forEachAtOnce, PERSON_EXISTS, Refusal } from "./api.js";
import { byId, h, newestOnly, onChoice, scrolling } from "./elements.js";
import { MAX_PICTURE_BYTES, prepared } from "./pictures.js";
import { settings, t } from "./settings.js";

const PEOPLE_AT_ONCE = 2;
const BUSY = 15; // the code of a server that asks to be called later
const PATIENCE = [1, 2, 4, 8, 16]; // seconds
const SYSTEM_NAME = /^[.@#$~]|^Thumbs\.db$/i; // what file systems and network storages put beside pictures
const FORMULA = /^[=+\-@\t\r]/; // what spreadsheets would compute
const COLUMNS = ["person_id", "source", "code", "reason"];

const drop = byId("drop");
const choose = newestOnly((files) => files, setPictures, (error) => (byId("chosen").textContent = error.message));
let pictures = []; // each file with its path below the chosen folder
let isRunning = false;
let stopped = false;

onChoice(byId("folder"), (files) => choose(files.map((file) => ({ file, path: file.webkitRelativePath.split("/").slice(1) }))));
for (const kind of ["dragenter", "dragover"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry?.isDirectory);
  choose(Promise.all(entries.map((entry) => filesIn(entry, entries.length > 1 ? [entry.name] : []))).then((all) => all.flat()));
});
byId("enroll").addEventListener("submit", (event) => {
  event.preventDefault();
  enroll();
});
byId("stop").addEventListener("click", () => {
  stopped = true;
});

async function filesIn(folder, path) {
  const reader = folder.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return found;
    for (const entry of some) {
      const below = [...path, entry.name];
      if (entry.isDirectory) found.push(...(await filesIn(entry, below)));
      else found.push({ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), path: below });
    }
  }
}

function setPictures(files) {
  pictures = files.filter(({ file, path }) => file.type.startsWith("image/") && !path.some((name) => SYSTEM_NAME.test(name)));
  byId("chosen").textContent = t("{pictures} pictures of {people} people", { pictures: pictures.length, people: byPerson().size });
  byId("start").disabled = isRunning || !pictures.length;
}

function byPerson() {
  return Map.groupBy(pictures.filter(({ path }) => path.length > 1), ({ path }) => path[0]);
}

async function enroll() {
  const outcomes = new Outcomes(pictures.length);
  const group = byId("group").value.trim();
  [isRunning, stopped] = [true, false];
  byId("run").hidden = false;
  byId("start").disabled = true;
  byId("stop").hidden = false;
  for (const picture of pictures.filter(({ path }) => path.length === 1)) {
    outcomes.add("", picture, null, t("The picture is in no person's folder."));
  }
  await forEachAtOnce(byPerson(), PEOPLE_AT_ONCE, async ([personId, all]) => {
    try {
      if (!stopped) await create(personId, group);
    } catch (error) {
      for (const picture of all) outcomes.fail(personId, picture, error);
      return;
    }
    await addFaces(personId, all, outcomes);
  });
  outcomes.end(stopped ? t("Stopped.") : t("Done."));
  isRunning = false;
  byId("start").disabled = !pictures.length;
  byId("stop").hidden = true;
}

async function create(personId, group) {
  try {
    await patiently("newperson", { person_id: personId, group_ids: [group] });
  } catch (error) {
    if (error.code !== PERSON_EXISTS) throw error;
    await patiently("addgroupids", { person_id: personId, group_ids: [group] });
  }
}

// Send a person's pictures, as many in a request as there is room for.
async function addFaces(personId, all, outcomes) {
  let pack = [];
  let bytes = 0;
  const send = async () => {
    const sent = pack;
    [pack, bytes] = [[], 0];
    try {
      const { ret_codes: codes } = await patiently("addface", { person_id: personId }, { images: sent.map(({ small }) => small) });
      codes.forEach((code, index) => outcomes.settle(personId, sent[index].picture, code));
    } catch (error) {
      for (const { picture } of sent) outcomes.fail(personId, picture, error);
    }
  };
  for (const picture of all) {
    if (stopped) break;
    let small; // in the pack alone: a folder's pictures would not have room in memory
    try {
      small = await prepared(picture.file);
    } catch (error) {
      outcomes.fail(personId, picture, error);
      continue;
    }
    if (pack.length && (bytes + small.size > MAX_PICTURE_BYTES || pack.length === settings.maxFaces)) await send();
    pack.push({ picture, small });
    bytes += small.size;
  }
  if (pack.length) await send();
}

async function patiently(endpoint, fields, images) {
  for (const seconds of PATIENCE) {
    try {
      return await call(endpoint, fields, images);
    } catch (error) {
      if (error.code !== BUSY) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1_000 * seconds));
    }
  }
  return call(endpoint, fields, images);
}

// What has become of each picture, and the table of reasons.
class Outcomes {
  constructor(total) {
    this.total = total;
    this.enrolled = 0;
    this.failed = [];
    byId("progress").max = total;
    byId("csv").hidden = true;
    this.show("");
  }

  settle(personId, picture, code) {
    if (code === 0) this.enrolled += 1;
    else this.failed.push(this.row(personId, picture, code, new Refusal(code).message));
    this.show("");
  }

  fail(personId, picture, error) {
    this.add(personId, picture, error.code ?? null, error.message);
  }

  add(personId, picture, code, reason) {
    this.failed.push(this.row(personId, picture, code, reason));
    this.show("");
  }

  row(personId, picture, code, reason) {
    return { person_id: personId, source: picture.path.join("/"), code: code ?? "", reason };
  }

  show(word) {
    const done = this.enrolled + this.failed.length;
    byId("progress").value = done;
    const counts = { enrolled: this.enrolled, failed: this.failed.length, total: this.total };
    const told = t("{enrolled} enrolled, {failed} not, of {total} pictures.", counts);
    byId("state").textContent = `${word} ${told}`.trim();
    if (this.failed.length) byId("reasons").replaceChildren(table(Map.groupBy(this.failed, ({ reason }) => reason)));
    else byId("reasons").replaceChildren();
  }

  end(word) {
    this.show(word);
    const link = byId("csv");
    URL.revokeObjectURL(link.href);
    link.href = URL.createObjectURL(new Blob([csv(this.failed)], { type: "text/csv" }));
    link.hidden = !this.failed.length;
  }
}

function table(reasons) {
  const rows = [...reasons]
    .sort(([, some], [, others]) => others.length - some.length)
    .map(([reason, all]) => {
      const first = all.slice(0, 3).map(({ source }) => source).join(", ");
      return h("tr", {}, h("th", { scope: "row" }, reason), h("td", { class: "number" }, String(all.length)), h("td", {}, first));
    });
  const head = h("tr", {}, h("th", { scope: "col" }, t("Why not")), h("th", { scope: "col", class: "number" }, t("Pictures")), h("th", { scope: "col" }, t("The first of them")));
  return scrolling(t("Reasons"), h("table", {}, h("thead", {}, head), h("tbody", {}, ...rows)));
}

// With a mark that tells spreadsheets the encoding; a text that they would compute gets an apostrophe.
function csv(rows) {
  const cell = (value) => {
    const text = String(value);
    const safe = typeof value === "string" && FORMULA.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const lines = [COLUMNS, ...rows.map((row) => COLUMNS.map((name) => row[name]))].map((values) => values.map(cell).join(","));
  return `\ufeff${lines.join("\r\n")}\r\n`;
}
