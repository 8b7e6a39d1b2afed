// The tab that detects: what is asked for, and the boxes of each image.

import { BoxCard } from "./box_card.js";
import { definitionOf } from "./definition.js";

const OUTPUTS = ["predictions", "counts", "attributes"];

export class Detection {
  run = "Detect";
  running = "Detecting ...";
  said = "Name what to find, and press Detect.";
  file = "detect.py";
  python = `print(result["counts"])
for box in result["predictions"]["predictions"]:
    print(box["class"], round(box["confidence"], 2), box["x"], box["y"], box["width"], box["height"])`;
  cards = [];

  constructor(classes) {
    this.classes = classes;
  }

  cardOf(image, changed) {
    return new BoxCard(image, changed);
  }

  problem() {
    return this.classes.problem();
  }

  get known() {
    return new Set(this.classes.all);
  }

  // With the threshold 0 the server gives all boxes, so that sliders need no other request.
  request(model) {
    const { all } = this.classes;
    return {
      model,
      definition: this._definition(model, 0),
      classes: all.map((one) => [one, one.prompts.join("\n")]),
      byName: new Map(all.map((one) => [one.name, one])),
    };
  }

  definition(model) {
    return this._definition(model, this.classes.confidence());
  }

  _definition(model, confidence) {
    const step = {
      type: "workflow_blocks/moondream2_prompt_detection@v1",
      name: "detection",
      images: "$inputs.image",
      prompts: this.classes.prompts(),
      model_version: model,
      confidence,
    };
    return definitionOf(step, OUTPUTS);
  }

  show(card, answer, request) {
    card.setAnswer(answer, request);
    card.filter(this.known);
  }

  filter(only) {
    const { known } = this;
    for (const card of this.cards) if (card.boxes.length || !only) card.filter(known, only);
  }

  hint({ skills }, isBundled) {
    if (skills && !skills.includes("detect")) return "This model cannot detect.";
    return isBundled ? "It knows drawn things and coloured shapes, no photographs." : null;
  }
}
