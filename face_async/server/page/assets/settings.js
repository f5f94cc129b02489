// What the server tells every view, and its texts in the language of the page.

export const settings = JSON.parse(document.querySelector("meta[name=settings]").content);

// Return a text in the language of the page, with values in place of {name}.
export function t(text, values = {}) {
  return (settings.texts[text] ?? text).replaceAll(/\{(\w+)\}/g, (_, name) => values[name]);
}

// How numbers and times are written there.
export const language = document.documentElement.lang;
