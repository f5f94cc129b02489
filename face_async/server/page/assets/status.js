// Status: what the server's metrics tell, and each endpoint as a program.

import { fetched } from "./api.js";
import { byId, h, scrolling, showError } from "./elements.js";
import { EXAMPLES, showProgram } from "./programs.js";
import { language, settings, t } from "./settings.js";

const EVERY = 2_000; // milliseconds
const LINE = /^(\w+)(?:\{(.*)\})? (\S+)$/; // the text format of Prometheus
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

const lastSeen = new Map(); // code -> how often it was counted, and when that was last more than before
let isFirst = true; // whether what is shown was counted before this view was opened

for (const [endpoint] of EXAMPLES) byId("endpoint").append(h("option", {}, endpoint));
byId("endpoint").addEventListener("change", showExample);
byId("program").open = true;
showExample();
watch();

function showExample() {
  showProgram(...EXAMPLES.find(([endpoint]) => endpoint === byId("endpoint").value));
}

async function watch() {
  for (;;) {
    if (!document.hidden) await refresh();
    await new Promise((resolve) => setTimeout(resolve, EVERY));
  }
}

async function refresh() {
  try {
    const answer = await fetched("/metrics");
    if (!answer.ok) throw new Error(t("This server tells no metrics."));
    show(samples(await answer.text()));
    isFirst = false;
  } catch (error) {
    showError(byId("figures"), error);
  }
}

function samples(text) {
  const matches = text.split("\n").map((line) => LINE.exec(line)).filter(Boolean);
  return matches.map(([, name, labels, value]) => ({
    name: name.replace("face_async_", ""),
    value: Number(value.replace("Inf", "Infinity")),
    ...Object.fromEntries([...(labels ?? "").matchAll(LABEL)].map(([, label, text]) => [label, text])),
  }));
}

const sum = (some) => some.reduce((total, { value }) => total + value, 0);

function show(all) {
  const named = (name) => all.filter((sample) => sample.name === name);
  const calls = named("calls_total").filter(({ value }) => value);
  const refused = [...Map.groupBy(calls.filter(({ code }) => code !== "0"), ({ code }) => code)];
  const buckets = Map.groupBy(named("call_seconds_bucket"), ({ endpoint }) => endpoint);
  const figures = {
    [t("Pictures that wait")]: sum(named("pictures_waiting")),
    [t("Calls")]: sum(calls),
    [t("Refused")]: sum(refused.flatMap(([, some]) => some)),
    [t("Faces")]: sum(named("faces")),
  };
  byId("figures").replaceChildren(
    h("dl", { class: "figures" }, ...Object.entries(figures).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value.toLocaleString(language))))),
    table(t("Calls by endpoint"), [t("Endpoint"), t("Calls"), t("p50, ms"), t("p99, ms")], endpointRows(calls, buckets), t("no call yet")),
    table(t("Refusals by code"), [t("Code"), t("Calls"), t("Seen last"), t("Meaning")], refused.map(refusalRow), t("nothing was refused")),
    table(t("Faces by recognizer"), [t("Recognizer"), t("Faces")], named("faces").map((each) => [each.recognizer, each.value]), t("no face yet")),
  );
}

function endpointRows(calls, buckets) {
  const byEndpoint = [...Map.groupBy(calls, ({ endpoint }) => endpoint)];
  return byEndpoint.map(([endpoint, some]) => {
    const [half, most] = [0.5, 0.99].map((share) => milliseconds(quantile(buckets.get(endpoint) ?? [], share)));
    return [endpoint, sum(some), half, most];
  });
}

function refusalRow([code, some]) {
  const count = sum(some);
  const at = isFirst ? t("before this view was opened") : new Date().toLocaleTimeString(language);
  if (lastSeen.get(code)?.count !== count) lastSeen.set(code, { count, at });
  const [name, meaning] = settings.codes[code] ?? ["", t("the caller had gone")];
  return [`${code} ${name}`, count, lastSeen.get(code).at, meaning];
}

// As Prometheus computes it: within a bucket, calls are taken to be spread evenly.
function quantile(buckets, share) {
  const sorted = buckets.map(({ le, value }) => [le === "+Inf" ? Infinity : Number(le), value]).sort(([a], [b]) => a - b);
  const rank = share * (sorted.at(-1)?.[1] ?? 0);
  let [lower, below] = [0, 0];
  for (const [upper, count] of sorted) {
    if (count >= rank) return upper === Infinity ? lower : lower + ((upper - lower) * (rank - below)) / (count - below || 1);
    [lower, below] = [upper, count];
  }
  return null;
}

function milliseconds(seconds) {
  return seconds === null ? "" : Number((1_000 * seconds).toPrecision(2));
}

function table(title, names, rows, none) {
  if (!rows.length) return h("p", { class: "soft" }, t("{title}: {none}.", { title, none }));
  const kind = (value) => (typeof value === "number" ? "number" : "");
  const head = h("tr", {}, ...names.map((name, column) => h("th", { scope: "col", class: kind(rows[0][column]) }, name)));
  const body = rows.map(([first, ...others]) =>
    h("tr", {}, h("th", { scope: "row" }, first), ...others.map((value) => h("td", { class: kind(value) }, value.toLocaleString(language)))),
  );
  return h("div", {}, h("h2", {}, title), scrolling(title, h("table", {}, h("thead", {}, head), h("tbody", {}, ...body))));
}
