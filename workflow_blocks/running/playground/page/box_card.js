// An image with the boxes that were found, and what the user keeps of it.

import { counted, element } from "./dom.js";
import { ImageCard } from "./image_card.js";

const TEXTS = { busy: "detecting ...", idle: "not searched yet", stale: "of other prompts" };

export class BoxCard extends ImageCard {
  constructor(image, changed) {
    super(image, TEXTS);
    this.changed = changed;
    this.isKept = true;
    this.boxes = [];
    this.layer.addEventListener("click", (event) => {
      const found = event.target.closest(".box");
      if (found) this._toggle(this.boxes.find((box) => box.node === found));
    });
    this.showState();
  }

  _title() {
    this.keep = element("input", { type: "checkbox", checked: true });
    this.keep.setAttribute("aria-label", `Keep ${this.name} in the dataset`);
    this.keep.addEventListener("change", () => this.setKept(this.keep.checked));
    return element("label", { className: "title", title: this.name }, this.keep, element("span", {}, this.name));
  }

  // Draws an answer of the server to a request of `Detection`.
  setAnswer({ outputs, took }, { classes, byName, model }) {
    const { image, predictions } = outputs.predictions;
    const prompts = new Map(outputs.attributes.map((one) => [one.detection_id, one.prompt]));
    this._setSize(image.width, image.height);
    this.answer = { took, model, prompts: new Map(classes) };
    this.error = null;
    this.boxes = predictions.map((found) => ({
      of: byName.get(found.class),
      confidence: found.confidence,
      prompt: prompts.get(found.detection_id),
      corners: [found.x - found.width / 2, found.y - found.height / 2, found.x + found.width / 2, found.y + found.height / 2],
      isKept: true,
      isShown: true,
    }));
    this._draw(image);
    this.showState();
  }

  setError(message) {
    this.boxes = [];
    super.setError(message);
  }

  // Shows the boxes that pass the thresholds; of one class, or of all.
  filter(classes, only) {
    for (const box of this.boxes) {
      if (only && box.of !== only) continue;
      const isShown = classes.has(box.of) && box.confidence >= box.of.threshold;
      if (isShown !== box.isShown) {
        box.isShown = isShown;
        box.node.hidden = !isShown;
      }
    }
    this.showState();
  }

  rename() {
    for (const box of this.boxes) label(box);
  }

  // Whether the answer is for other prompts or another model.
  isStale({ classes, model }) {
    if (!this.answer) return !this.error;
    const { prompts, model: answered } = this.answer;
    return answered !== model || classes.some(([one, texts]) => prompts.get(one) !== texts);
  }

  get shown() {
    return this.boxes.filter((box) => box.isShown);
  }

  get labels() {
    return this.shown
      .filter((box) => box.isKept)
      .map(({ of, corners, confidence, prompt }) => ({ class_name: of.name, box: corners, score: confidence, prompt }));
  }

  get lowestScore() {
    return Math.min(2, ...this.shown.map((box) => box.confidence));
  }

  setKept(isKept) {
    this.isKept = isKept;
    this.keep.checked = isKept;
    this.node.classList.toggle("left-out", !isKept);
    this.changed();
  }

  showState(isStale = false) {
    const { shown } = this;
    const leftOut = shown.filter((box) => !box.isKept).length;
    this._showMany(shown.length);
    this._showState([counted(shown.length, "box", "boxes"), ...(leftOut ? [`${leftOut} left out`] : [])], isStale);
  }

  _draw(size) {
    // The smallest boxes come last, so that each can be clicked.
    const order = [...this.boxes].sort((one, other) => area(other) - area(one));
    const nodes = order.map((box) => {
      box.tag = element("span", { className: "tag" });
      box.node = element("button", { type: "button", className: "box", tabIndex: -1, role: "checkbox" }, box.tag);
      this._put(box.node, box.corners, size, box.of.colour);
      label(box);
      return box.node;
    });
    this.layer.replaceChildren(...nodes);
  }

  _toggle(box) {
    box.isKept = !box.isKept;
    label(box);
    this.showState();
    this.changed();
  }

  _key(event) {
    const boxes = this.shown;
    const at = boxes.findIndex((box) => box.node === document.activeElement);
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step && boxes.length) {
      const next = at < 0 ? (step > 0 ? 0 : boxes.length - 1) : (at + step + boxes.length) % boxes.length;
      boxes[next].node.focus();
    } else if (event.key.toLowerCase() === "x" && !event.ctrlKey && !event.metaKey) this.setKept(!this.isKept);
    else if (event.key === "Delete" && at >= 0) this._toggle(boxes[at]);
    else if (event.key === "Escape" && at >= 0) {
      this.picture.focus();
      event.stopPropagation();
    } else return at < 0 && super._key(event);
    return true;
  }
}

function label(box) {
  const text = `${box.of.name} ${box.confidence.toFixed(2)}`;
  box.tag.textContent = text;
  box.node.title = box.prompt === box.of.name ? text : `${text}, found by: ${box.prompt}`;
  box.node.setAttribute("aria-checked", box.isKept);
  box.node.setAttribute("aria-label", box.node.title);
}

function area({ corners: [left, top, right, bottom] }) {
  return (right - left) * (bottom - top);
}
