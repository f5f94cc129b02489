// Compare: whether two pictures show the same person.

import { call } from "./api.js";
import { bar, byId, h, newestOnly, say, showError, threshold } from "./elements.js";
import { onPaste, PicturePlace } from "./pictures.js";
import { settings, t } from "./settings.js";

const result = byId("result");
const limit = threshold(settings.samePerson, () => show());
const complain = (error) => showError(result, error);
const places = ["first", "second"].map((id) => new PicturePlace(byId(id), look, complain));
const compare = newestOnly(
  (imageA, imageB) => call("compare", {}, { imageA, imageB }),
  (answer) => {
    similarity = answer.similarity;
    show();
  },
  (error) => {
    const which = { 1: t("The first picture"), 2: t("The second picture") }[error.data?.fail_flag];
    complain(which ? new Error(`${which}: ${error.message}`) : error);
  },
);
let similarity = null; // of the present pictures

onPaste(places);

function look() {
  const [first, second] = places.map((place) => place.picture);
  if (!first || !second) return;
  similarity = null;
  result.replaceChildren(h("p", { class: "soft" }, t("Looking…")));
  compare(first, second);
}

function show() {
  if (similarity === null) return;
  const same = similarity >= limit();
  const verdict = h("span", { class: `verdict ${same ? "good" : "open"}` }, same ? t("The same person") : t("Different people"));
  const bars = h("ol", { class: "bars" }, bar(t("Similarity, 0 to 100"), similarity, limit()));
  result.replaceChildren(h("article", { class: "card" }, h("h2", {}, verdict), bars));
  say(`${verdict.textContent}: ${similarity.toFixed(1)}`);
}
