// One image: its name, its picture with marks on it, and a note. What is marked and noted comes from subclasses.

import { element, seconds } from "./dom.js";

const MANY_MARKS = 40; // above, names are shown for the mark under the pointer only

const BUSY = "busy";

export class ImageCard {
  // `image.blob` is a function that gives the image's file; `image.path` is set for images of the server's folder.
  constructor(image, { busy, idle, stale }) {
    Object.assign(this, { image, name: image.name, texts: { busy, idle, stale } });
    this.answer = null;
    this.error = null;
    this._build();
  }

  _build() {
    this.enlarge = element("button", { type: "button", className: "quiet", textContent: "⤢", title: "Enlarge" });
    this.enlarge.setAttribute("aria-label", `Enlarge ${this.name}`);
    this.away = element("button", { type: "button", className: "quiet", textContent: "×", title: "Remove" });
    this.away.setAttribute("aria-label", `Remove ${this.name}`);
    const src = this.image.url;
    const seen = element("img", { alt: this.name, loading: "lazy", decoding: "async", draggable: false, src });
    seen.addEventListener("load", () => this._setSize(seen.naturalWidth, seen.naturalHeight));
    seen.addEventListener("error", () => this._showUnseen(seen));
    this.layer = element("div", { className: "boxes" });
    this.picture = element("div", { className: "picture", tabIndex: 0, role: "group" }, seen, this.layer);
    this.picture.addEventListener("keydown", (event) => {
      if (this._key(event)) event.preventDefault();
    });
    this.place = element("div", { className: "place" }, this.picture);
    this.note = element("p", { className: "note" }, "");
    const head = element("header", {}, this._title(), this.enlarge, this.away);
    this.node = element("article", { className: "card" }, head, this.place, this.note);
  }

  _title() {
    return element("div", { className: "title", title: this.name }, element("span", {}, this.name));
  }

  // Browsers cannot show all that the server can read, such as TIFF.
  _showUnseen(seen) {
    const text = "This browser cannot show this picture. The server may be able to read it.";
    this.picture.classList.add("unseen");
    seen.replaceWith(element("p", { className: "dim" }, text));
  }

  get isBusy() {
    return this.said === BUSY;
  }

  setBusy() {
    this.said = BUSY;
    this.node.classList.add("busy");
    this.note.textContent = this.texts.busy;
  }

  setError(message) {
    this.error = message;
    this.answer = null;
    this.layer.replaceChildren();
    this.showState();
  }

  // Shows the error, or what the answer holds: `parts` are short texts.
  _showState(parts, isStale) {
    const { answer, error, texts } = this;
    const known = answer && [...parts, seconds(answer.took), ...(isStale ? [texts.stale] : [])].join(" · ");
    const note = error ?? known ?? texts.idle;
    const said = `${Boolean(error)} ${isStale} ${note}`;
    if (said === this.said) return; // of thousands of cards, few change
    this.said = said;
    this.node.classList.remove("busy");
    this.node.classList.toggle("failed", Boolean(error));
    this.node.classList.toggle("stale", isStale);
    this.note.textContent = note;
    this.picture.setAttribute("aria-label", `${this.name}: ${note}`);
  }

  _showMany(count) {
    const isMany = count > MANY_MARKS;
    if (isMany !== this.isMany) this.picture.classList.toggle("many", isMany);
    this.isMany = isMany;
  }

  _setSize(width, height) {
    if (width && height) this.picture.style.setProperty("--ratio", width / height);
  }

  // Puts a mark on the picture, with its tag inside; `corners` are in pixels of an image of this size.
  _put(node, [left, top, right, bottom], { width, height }, colour) {
    node.style.cssText = `left:${(100 * left) / width}%;top:${(100 * top) / height}%;width:${(100 * (right - left)) / width}%;height:${(100 * (bottom - top)) / height}%`;
    node.style.setProperty("--colour", colour);
    node.classList.toggle("at-top", top < 0.06 * height);
    node.classList.toggle("at-right", left > 0.6 * width);
  }

  // Whether the key did something.
  _key(event) {
    if (event.key !== "Enter" || event.ctrlKey || event.metaKey) return false;
    this.enlarge.click();
    return true;
  }
}
