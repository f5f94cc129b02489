// People: the groups, who is in them, and what is known of each.

import { call, callQuietly, firstFaceOf, forEachAtOnce, learnOf, Refusal, titleOf, unless, whatIsKnownOf } from "./api.js";
import { byId, h, newestOnly, onSubmit, say, showError, thumbnail } from "./elements.js";
import { prepared } from "./pictures.js";
import { settings, t } from "./settings.js";

const PAGE = 50; // people that are shown at once
const AT_ONCE = 6;
const NO_SUCH_GROUP = -1306;

const list = byId("people");
const search = byId("search");
const dialog = byId("person");
const listGroups = newestOnly(async () => (await callQuietly("getgroupids", {})).group_ids, showGroups, complain);
const listPeople = newestOnly(personsIn, setPeople, complain);
const learnOfAll = newestOnly(() => learnOf(people), showPeople, complain);
const open = newestOnly(personToEdit, edit, complain);
let group = null; // the chosen one
let people = []; // the ids of its persons
let shown = PAGE;
let edited = null; // the person in the dialog, as getinfo has it

search.addEventListener("input", () => {
  shown = PAGE;
  showPeople();
  if (search.value) learnOfAll();
});
byId("more").addEventListener("click", () => {
  shown += PAGE;
  showPeople();
});
byId("ask-delete").addEventListener("click", () => {
  byId("delete").hidden = false;
  byId("delete").focus();
});
onSubmit(dialog, (button) => (button === "delete" ? remove() : save()));
listGroups();

function complain(error) {
  showError(list, error);
}

async function showGroups(groups) {
  const buttons = new Map(groups.map((name) => [name, h("button", { type: "button", "aria-pressed": String(name === group) }, name)]));
  for (const [name, button] of buttons) {
    button.addEventListener("click", () => {
      for (const each of buttons.values()) each.setAttribute("aria-pressed", String(each === button));
      choose(name);
    });
  }
  byId("groups").replaceChildren(...[...buttons.values()].map((button) => h("li", {}, button)));
  if (!groups.length) byId("count").textContent = t("There are no groups yet: enroll somebody.");
  await forEachAtOnce(buttons, AT_ONCE, async ([name, button]) => {
    const count = (await callQuietly("getpersonids", { group_id: name })).person_ids.length;
    button.append(h("span", { class: "soft" }, count === 1 ? t("1 person") : t("{count} people", { count })));
  });
}

function choose(name) {
  group = name;
  people = [];
  shown = PAGE;
  search.value = "";
  search.disabled = true;
  byId("more").hidden = true;
  byId("count").textContent = "";
  list.replaceChildren();
  listPeople(call("getpersonids", { group_id: name }));
}

async function personsIn(asked) {
  return (await unless(NO_SUCH_GROUP, asked))?.person_ids ?? [];
}

function setPeople(ids) {
  people = ids;
  search.disabled = false;
  showPeople();
}

function showPeople() {
  const words = search.value.trim().toLowerCase();
  const matching = people.filter((id) => titleOf(id).toLowerCase().includes(words));
  const visible = matching.slice(0, shown);
  byId("count").textContent = t("{matching} of {all} in {group}", { matching: matching.length, all: people.length, group });
  byId("more").hidden = visible.length === matching.length;
  list.replaceChildren(
    ...visible.map((id) => {
      const button = h("button", { type: "button" }, titleOf(id));
      button.addEventListener("click", () => open(id));
      learnOf([id]).then(
        () => button.replaceChildren(...portrait(id), titleOf(id)),
        (error) => button.isConnected && complain(error),
      );
      return h("li", {}, button);
    }),
  );
}

function portrait(id) {
  const face = firstFaceOf(id);
  return face ? [thumbnail(settings.thumbnails, face)] : [];
}

async function personToEdit(personId) {
  const person = await whatIsKnownOf(personId);
  if (!person) throw new Error(t("{person} has been deleted in the meantime.", { person: personId }));
  return person;
}

function edit(person) {
  edited = person;
  byId("person-title").textContent = edited.person_id;
  byId("person-name").value = edited.person_name;
  byId("person-tag").value = edited.tag;
  byId("person-group").value = "";
  byId("person-pictures").value = "";
  byId("delete").hidden = true;
  byId("person-groups").replaceChildren(...edited.group_ids.map((name) => checkbox(name, name)));
  byId("person-faces").replaceChildren(...edited.face_ids.map((id) => h("li", {}, checkbox(id, thumbnail(settings.thumbnails, id), h("code", {}, id)))));
  dialog.showModal();
}

function checkbox(value, ...label) {
  return h("label", {}, h("input", { type: "checkbox", value, checked: true }), " ", ...label);
}

function unchecked(id) {
  return [...byId(id).querySelectorAll("input:not(:checked)")].map((box) => box.value);
}

async function save() {
  const person = edited; // all that the dialog says now, before another person may be in it
  const of = { person_id: person.person_id };
  const [name, tag] = [byId("person-name").value, byId("person-tag").value];
  const [further, left, faces] = [byId("person-group").value.trim(), unchecked("person-groups"), unchecked("person-faces")];
  const files = [...byId("person-pictures").files];
  if (name !== person.person_name || tag !== person.tag) await call("setinfo", { ...of, person_name: name, tag });
  if (left.length === person.group_ids.length && !further) throw new Error(t("A person in no group is found by nobody: leave one."));
  if (further) await call("addgroupids", { ...of, group_ids: [further] });
  if (left.length) await call("delgroupids", { ...of, group_ids: left });
  if (faces.length) await call("delface", { ...of, face_ids: faces });
  for (const file of files) {
    const { ret_codes: [code] } = await call("addface", of, { images: [await prepared(file)] });
    if (code !== 0) throw new Error(`${file.name}: ${new Refusal(code, {}).message}`);
  }
  await whatIsKnownOf(person.person_id);
  await refresh(t("{person} was saved.", { person: person.person_id }));
}

async function remove() {
  const { person_id: personId } = edited;
  await call("delperson", { person_id: personId });
  await refresh(t("{person} was deleted.", { person: personId }));
}

async function refresh(news) {
  await listPeople(callQuietly("getpersonids", { group_id: group }));
  await listGroups();
  say(news);
}
