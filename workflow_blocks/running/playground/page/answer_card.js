// An image with the answers about it, their probabilities, and points.

import { counted, element } from "./dom.js";
import { ImageCard } from "./image_card.js";

const TEXTS = { busy: "asking ...", idle: "not asked yet", stale: "of other questions" };

export class AnswerCard extends ImageCard {
  constructor(image) {
    super(image, TEXTS);
    this.scores = [];
    this.list = element("ul", { className: "answers" });
    this.place.after(this.list);
    this.showState();
  }

  // Shows an answer of the server to a request of `Asking`.
  setAnswer({ outputs, took }, { definition, task }) {
    const { groups, points } = task.read(outputs, definition.steps[0]);
    this.answer = { took, points, key: JSON.stringify(definition) };
    this.error = null;
    this.scores = groups.flatMap((group) => group.answers.map((one) => one.probability));
    this.list.replaceChildren(...groups.map(groupNode));
    this.layer.replaceChildren(...(points ?? []).map((point) => this._point(point, outputs.predictions.image)));
    this._showMany(points?.length);
    this.showState();
  }

  setError(message) {
    this.scores = [];
    this.list.replaceChildren();
    super.setError(message);
  }

  isStale({ definition }) {
    return this.answer ? this.answer.key !== JSON.stringify(definition) : !this.error;
  }

  get lowestScore() {
    return Math.min(2, ...this.scores);
  }

  showState(isStale = false) {
    const points = this.answer?.points;
    this._showState(points ? [counted(points.length, "point")] : [], isStale);
  }

  _point({ text, x, y, probability, colour }, size) {
    const title = `${text}: ${shownProbability(probability)}`;
    const node = element("span", { className: "point", title }, element("span", { className: "tag" }, title));
    this._put(node, [x, y, x, y], size, colour);
    return node;
  }
}

// A question with its answers, or a thing with its points.
function groupNode({ title, colour, count, answers }) {
  const head = element("p", { className: "question" }, title);
  if (colour) {
    head.classList.add("coloured");
    head.style.setProperty("--colour", colour);
    head.append(": ", element("b", {}, counted(count, "point")));
  }
  return element("li", {}, ...(title ? [head] : []), ...answers.map(answerNode));
}

function answerNode({ text, probability, isChosen = true }) {
  const kind = text === "" ? "empty-answer" : isChosen ? "chosen" : "other";
  const words = element("span", { className: `words ${kind}` }, text || "(an empty answer)");
  const bar = element("span", { className: "bar", "aria-hidden": "true" }, element("span"));
  bar.firstChild.style.width = `${100 * probability}%`;
  const number = element("output", { className: "probability", title: `probability ${probability}` });
  number.value = shownProbability(probability);
  return element("div", { className: "answer" }, words, bar, number);
}

function shownProbability(value) {
  return value > 0 && value < 0.005 ? "< 0.01" : value.toFixed(2);
}
