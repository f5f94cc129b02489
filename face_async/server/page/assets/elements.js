// What all views are made of.

export const byId = (id) => document.getElementById(id);

// h("li", { class: "same", onclick: work }, "text", child): a new element. Texts are never read as HTML.
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// Tell those who hear the page.
export function say(text) {
  byId("said").textContent = text;
}

export function showError(place, error) {
  place.replaceChildren(h("p", { class: "card error", role: "alert" }, error.message));
}

// Call take with the files that are chosen, each time: a browser does not tell an input of the same ones it has already.
export function onChoice(input, take) {
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = "";
    take(files);
  });
}

// A function that may be called again before it is done: work fetches, and changes nothing that is seen; show gets what
// it returned, and complain what it threw, of the newest call alone, in whatever order the answers come.
export function newestOnly(work, show, complain) {
  let newest = 0;
  return async (...values) => {
    newest += 1;
    const mine = newest;
    try {
      const outcome = await work(...values);
      if (mine === newest) await show(outcome);
    } catch (error) {
      if (mine === newest) complain(error);
    }
  };
}

// A face's thumbnail; nothing where none was kept.
export function thumbnail(folder, faceId) {
  const image = h("img", { src: folder + faceId, alt: "", loading: "lazy" });
  image.addEventListener("error", () => image.remove());
  return image;
}

// A table that may be wider than the screen, and is scrolled by keyboard, too.
export function scrolling(label, table) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, table);
}

// A confidence of 0 to 100 as a line of text over a bar with a mark at the threshold.
export function bar(name, confidence, threshold) {
  const fill = h("i");
  const mark = h("b");
  fill.style.width = `${Math.min(100, Math.max(0, confidence))}%`;
  mark.style.left = `${threshold}%`;
  return h(
    "li",
    { class: confidence >= threshold ? "same" : "" },
    h("span", { class: "name" }, name),
    h("span", { class: "number" }, confidence.toFixed(1)),
    h("span", { class: "bar", "aria-hidden": "true" }, fill, mark),
  );
}

// The slider of the threshold, which all views share and the browser remembers.
export function threshold(standard, onChange) {
  const slider = byId("threshold");
  const shown = slider.parentElement.querySelector("output");
  slider.value = localStorage.getItem("threshold") ?? standard;
  shown.value = slider.value;
  slider.addEventListener("input", () => {
    localStorage.setItem("threshold", slider.value);
    shown.value = slider.value;
    onChange();
  });
  return () => Number(slider.value);
}

// A dialog's form: what is sent goes to work(value of the button); the dialog closes unless that throws.
export function onSubmit(dialog, work) {
  const form = dialog.querySelector("form");
  const complaint = dialog.querySelector("[role=alert]");
  let isWorking = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    complaint.textContent = "";
    const buttons = [...form.querySelectorAll("button")].filter((button) => !button.disabled);
    for (const button of buttons) button.disabled = true;
    isWorking = true;
    try {
      await work(event.submitter?.value);
      dialog.close();
    } catch (error) {
      complaint.textContent = error.message;
      complaint.scrollIntoView({ block: "nearest" });
    } finally {
      isWorking = false;
      for (const button of buttons) button.disabled = false;
    }
  });
  dialog.addEventListener("cancel", (event) => isWorking && event.preventDefault()); // by the Escape key
  form.querySelector(".cancel").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => (complaint.textContent = ""));
}
