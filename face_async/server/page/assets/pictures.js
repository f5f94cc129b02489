// Pictures: chosen, dropped, pasted or taken by the camera; made smaller where the service would refuse them.

import { h, newestOnly, onChoice } from "./elements.js";
import { settings, t } from "./settings.js";

const TAKEN = ["image/jpeg", "image/png", "image/bmp", "image/webp"];
const SIDE = 1600; // pixels; faces in what is sent are still large

// Room for one picture in a request; the other fields and the form itself take some.
export const MAX_PICTURE_BYTES = settings.maxRequestBytes - 20_000;

// Return a picture that may be sent and has at most so many bytes: as it is, or made smaller. It is a copy: what is seen
// is what is sent, whatever becomes of the file on the disk.
export async function prepared(file, maxBytes = MAX_PICTURE_BYTES) {
  const read = new File([await contentOf(file)], file.name, { type: file.type });
  if (TAKEN.includes(read.type) && read.size <= maxBytes) return read;
  const whole = await decoded(read);
  for (let side = SIDE; ; side /= 1.5) {
    const scale = Math.min(1, side / Math.max(whole.width, whole.height));
    const copy = await drawn(whole, 0, 0, whole.width, whole.height, scale);
    if (copy.size <= maxBytes) return new File([copy], `${file.name || "picture"}.jpg`, { type: copy.type });
  }
}

// Return the part of a picture around a face's box, for a picture in which there are several.
export async function cropped(file, { x, y, width, height }) {
  const whole = await decoded(file);
  const [left, top] = [Math.max(0, x - width / 2), Math.max(0, y - height / 2)];
  const [right, bottom] = [Math.min(whole.width, x + 1.5 * width), Math.min(whole.height, y + 1.5 * height)];
  return new File([await drawn(whole, left, top, right - left, bottom - top, 1)], "face.jpg", { type: "image/jpeg" });
}

// A picture that may be sent, and the image that shows it.
async function readable(file) {
  const picture = await prepared(file);
  const image = h("img", { src: URL.createObjectURL(picture) });
  await image.decode();
  return { picture, image };
}

async function contentOf(file) {
  try {
    return await file.arrayBuffer();
  } catch {
    throw new Error(t("{picture} was changed or removed after it was chosen: choose it again.", { picture: file.name }));
  }
}

async function decoded(file) {
  try {
    return await createImageBitmap(file);
  } catch {
    throw new Error(t("This browser cannot read {picture}: take a JPEG, PNG, WebP or BMP.", { picture: file.name || t("the picture") }));
  }
}

function drawn(whole, x, y, width, height, scale) {
  const canvas = h("canvas", { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) });
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(whole, x, y, width, height, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
}

// A place for one picture (macros.html); onPicture gets each that is chosen, ready to be sent.
export class PicturePlace {
  constructor(element, onPicture, onError) {
    this.element = element;
    this.onError = onError;
    const show = (read) => {
      this.show(read);
      return onPicture(read.picture);
    };
    this.take = newestOnly(readable, show, onError);
    const drop = element.querySelector(".drop");
    onChoice(element.querySelector("input"), ([file]) => this.take(file));
    for (const kind of ["dragenter", "dragover"]) {
      drop.addEventListener(kind, (event) => {
        event.preventDefault();
        drop.classList.add("over");
      });
    }
    for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
    drop.addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files.length) this.take(event.dataTransfer.files[0]);
    });
    element.querySelector(".camera").addEventListener("click", () => this.photograph());
  }

  show({ picture, image }) {
    const shown = this.element.querySelector("img");
    URL.revokeObjectURL(shown.src);
    image.alt = shown.alt;
    shown.replaceWith(image);
    this.element.querySelector(".hint").hidden = true;
    this.element.querySelector(".frame").hidden = false;
    this.element.querySelector(".boxes").replaceChildren();
    this.picture = picture;
  }

  // Draw numbered boxes; sizes are in pixels of the picture.
  mark(boxes) {
    const image = this.element.querySelector("img");
    const percent = (part, whole) => `${(100 * part) / whole}%`;
    const drawn = boxes.map(({ x, y, width, height }, index) => {
      const box = h("span", {}, boxes.length > 1 ? h("b", {}, String(index + 1)) : null);
      box.style.left = percent(x, image.naturalWidth);
      box.style.top = percent(y, image.naturalHeight);
      box.style.width = percent(width, image.naturalWidth);
      box.style.height = percent(height, image.naturalHeight);
      return box;
    });
    this.element.querySelector(".boxes").replaceChildren(...drawn);
  }

  async photograph() {
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
    } catch {
      this.onError(new Error(t("There is no camera that this page may use. Browsers allow it on this machine and over https.")));
      return;
    }
    const video = h("video", { autoplay: true, playsinline: true, "aria-label": t("What the camera sees") });
    video.muted = true;
    video.srcObject = stream;
    const form = h(
      "form",
      { method: "dialog" },
      h("h2", {}, t("Camera")),
      video,
      h("p", { class: "row" }, h("button", { value: "take", class: "first" }, t("Take the picture")), h("button", { value: "" }, t("Cancel"))),
    );
    const dialog = h("dialog", { "aria-label": t("Camera") }, form);
    dialog.addEventListener("close", async () => {
      const still = dialog.returnValue === "take" ? await drawn(video, 0, 0, video.videoWidth, video.videoHeight, 1) : null;
      for (const track of stream.getTracks()) track.stop();
      dialog.remove();
      if (still) await this.take(new File([still], "camera.jpg", { type: "image/jpeg" }));
    });
    document.body.append(dialog);
    dialog.showModal();
  }
}

// What is pasted goes to the first place that has no picture, or else to the first.
export function onPaste(places) {
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find((each) => each.type.startsWith("image/"));
    if (file) (places.find((place) => !place.picture) ?? places[0]).take(file);
  });
}
