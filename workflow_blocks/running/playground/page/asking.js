// The tab that asks: questions, choices, captions and points.

import { AnswerCard } from "./answer_card.js";
import { definitionOf } from "./definition.js";
import { byId } from "./dom.js";
import { TASKS } from "./tasks.js";

const NAMES_OF_SKILLS = { detect: "detect", query: "answer questions", point: "point" };

export class Asking {
  run = "Ask";
  running = "Asking ...";
  said = "Choose a task, and press Ask.";
  file = "ask.py";
  cards = [];

  constructor(changed) {
    byId("task").addEventListener("change", () => this.showFields());
    byId("ask").addEventListener("input", changed);
    this.showFields();
  }

  get task() {
    return TASKS[byId("task").value];
  }

  get python() {
    return this.task.python;
  }

  // Shows the fields of the task.
  showFields() {
    for (const label of byId("ask").querySelectorAll("[data-field]"))
      label.hidden = !this.task.fields.includes(label.dataset.field);
  }

  get _values() {
    return {
      questions: linesOf("questions"),
      question: byId("question").value.trim(),
      choices: linesOf("choices"),
      things: linesOf("things"),
      caption: byId("caption").value,
      length: byId("length").valueAsNumber || 0,
    };
  }

  cardOf(image) {
    return new AnswerCard(image);
  }

  problem() {
    const missing = Object.keys(this.task.needs).find((name) => !this._values[name].length);
    return missing && this.task.needs[missing];
  }

  request(model) {
    return { task: this.task, definition: this.definition(model) };
  }

  definition(model) {
    const step = {
      type: "workflow_blocks/moondream2@v1",
      name: "answers",
      images: "$inputs.image",
      ...this.task.step(this._values),
      model_version: model,
    };
    return definitionOf(step, this.task.outputs);
  }

  show(card, answer, request) {
    card.setAnswer(answer, request);
  }

  // What a model cannot do, where that is known.
  hint({ skills }) {
    if (!skills) return null;
    const { skill } = this.task;
    const needed = typeof skill === "function" ? skill(this._values) : skill;
    if (skills.includes(needed)) return null;
    const has = skills.map((name) => NAMES_OF_SKILLS[name] ?? `write ${name.split(" ")[1]} captions`);
    return `This model was not made for this task. It can: ${has.join(", ") || "nothing of this page"}.`;
  }
}

function linesOf(id) {
  return byId(id).value.split("\n").map((line) => line.trim()).filter(Boolean);
}
