// Compare: whether two pictures show the same person.

import { call, settings } from "./api.js";
import { bar, byId, h, say, showError, threshold } from "./elements.js";
import { onPaste, PicturePlace } from "./pictures.js";

const result = byId("result");
const limit = threshold(settings.samePerson, () => show());
const complain = (error) => showError(result, error);
const places = ["first", "second"].map((id) => new PicturePlace(byId(id), look, complain));
let similarity = null;

onPaste(places);

async function look() {
  const [first, second] = places.map((place) => place.picture);
  if (!first || !second) return;
  similarity = null;
  try {
    similarity = (await call("compare", {}, { imageA: first, imageB: second })).similarity;
    show();
  } catch (error) {
    const which = { 1: "The first picture: ", 2: "The second picture: " }[error.data?.fail_flag] ?? "";
    complain(new Error(which + error.message));
  }
}

function show() {
  if (similarity === null) return;
  const same = similarity >= limit();
  const verdict = h("span", { class: `verdict ${same ? "good" : "open"}` }, same ? "The same person" : "Different people");
  const bars = h("ol", { class: "bars" }, bar("Similarity, 0 to 100", similarity, limit()));
  result.replaceChildren(h("article", { class: "card" }, h("h2", {}, verdict), bars));
  say(`${verdict.textContent}: ${similarity.toFixed(1)}`);
}
