// Identify: who is in a picture.

import { addToPerson, call, learnOf, titleOf } from "./api.js";
import { bar, byId, h, newestOnly, onSubmit, say, showError, threshold } from "./elements.js";
import { cropped, onPaste, PicturePlace } from "./pictures.js";
import { settings, t } from "./settings.js";

const ALL = ""; // the choice of all groups
const faces = byId("faces");
const group = byId("group");
const limit = threshold(settings.samePerson, () => show());
const complain = (error) => showError(faces, error);
const place = new PicturePlace(byId("probe"), look, complain);
const listGroups = newestOnly(groupsThere, showGroups, complain);
const find = newestOnly(facesIn, showFaces, (error) => {
  faces.setAttribute("aria-busy", "false");
  complain(error);
});
let groups = [];
let found = []; // in the present picture: each face's box and candidates, and the picture
let toAdd = null; // the face that the dialog is about

onPaste([place]);
group.addEventListener("change", () => place.picture && look(place.picture));
onSubmit(byId("add"), add);
listGroups();

async function groupsThere() {
  return (await call("getgroupids")).group_ids;
}

function showGroups(names) {
  groups = names;
  const chosen = group.value;
  const choices = groups.map((name) => h("option", { value: name }, name));
  const all = h("option", { value: ALL }, groups.length ? t("All groups") : t("There are no groups yet"));
  group.replaceChildren(all, ...choices);
  group.value = groups.includes(chosen) ? chosen : ALL;
}

function look(picture) {
  found = [];
  place.mark([]);
  faces.setAttribute("aria-busy", "true");
  faces.replaceChildren(h("p", { class: "soft" }, t("Looking…")));
  return find(picture, group.value);
}

async function facesIn(picture, chosen) {
  const all = groups.length ? groups : await groupsThere(); // a picture may come before they do
  const searched = chosen === ALL ? all : [chosen];
  const seen = searched.length ? await candidates(picture, searched) : await withoutGroups(picture);
  return { all, seen: seen.map((face) => ({ ...face, picture, isAlone: seen.length === 1 })) };
}

function showFaces({ all, seen }) {
  if (!groups.length) showGroups(all);
  found = seen;
  faces.setAttribute("aria-busy", "false");
  place.mark(found.map((face) => face.box));
  show();
}

async function candidates(picture, searched) {
  const { results } = await call("multidentify", { group_ids: searched }, { image: picture });
  await learnOf(new Set(results.flatMap((result) => result.candidates.map((person) => person.person_id))));
  return results.map(({ face_rect: box, candidates: people }) => ({ box, people }));
}

async function withoutGroups(picture) {
  const { face } = await call("detect", {}, { image: picture });
  return face.map((box) => ({ box, people: [] }));
}

function show() {
  if (!found.length) return;
  faces.replaceChildren(...found.map(card));
  say(found.map((face, index) => `${faceOf(index)}: ${nameOf(best(face)) ?? t("Nobody")}`).join(". "));
}

const best = ({ people }) => (people.length && people[0].confidence >= limit() ? people[0] : null);
const nameOf = (person) => person && titleOf(person.person_id);
const faceOf = (index) => (found.length > 1 ? t("Face {number}", { number: index + 1 }) : t("The face"));

function card(face, index) {
  const who = nameOf(best(face));
  const verdict = h("span", { class: `verdict ${who ? "good" : "open"}` }, who ?? t("Nobody"));
  const reason = face.people.length ? t("Nobody reaches the threshold of {threshold}.", { threshold: limit() }) : t("There is nobody to compare with.");
  const bars = face.people.map((person) => bar(nameOf(person), person.confidence, limit()));
  const button = h("button", { type: "button", "aria-label": t("Add {face} to a person", { face: faceOf(index).toLowerCase() }) }, t("Add to …"));
  button.addEventListener("click", () => ask(face));
  return h(
    "article",
    { class: "card" },
    h("h2", {}, faceOf(index), verdict),
    who ? null : h("p", { class: "soft" }, reason),
    bars.length ? h("ol", { class: "bars", "aria-label": t("The most similar people, by confidence of 0 to 100") }, ...bars) : null,
    button,
  );
}

function ask(face) {
  toAdd = face;
  byId("add-person").value = best(face)?.person_id ?? "";
  byId("add-name").value = "";
  byId("add-group").value = group.value || groups[0] || "people";
  byId("add").showModal();
}

async function add() {
  const [personId, name, groupId] = ["add-person", "add-name", "add-group"].map((id) => byId(id).value.trim());
  const { picture, box, isAlone } = toAdd; // in the place there may be another picture by now
  await addToPerson(personId, isAlone ? picture : await cropped(picture, box), { name, groups: [groupId] });
  await listGroups();
  await look(place.picture);
  say(t("The face was added to {person}.", { person: personId }));
}
