// What can be asked: the fields of each task, its step in a definition, and how its outputs are read.
//
// `read` gives groups (a question with its answers, or a thing with its points), and all points.

import { normalized } from "./classes.js";
import { newColour } from "./colours.js";

const PRINT_CHOICES = `for choice in result["predictions"]["predictions"]:
    print(choice["class"], round(choice["confidence"], 3))`;

export const TASKS = {
  questions: {
    skill: "query",
    fields: ["questions", "length"],
    needs: { questions: "Ask a question." },
    step: ({ questions, length }) => ({ task_type: "visual-question-answering", prompt: questions, max_tokens: length }),
    outputs: ["output", "probability"],
    read: ({ output, probability }, { prompt }) => ({
      groups: prompt.map((title, at) => ({ title, answers: [{ text: output[at], probability: probability[at] }] })),
    }),
    python: `for answer, probability in zip(result["output"], result["probability"]):
    print(answer, round(probability, 3))`,
  },
  choices: {
    skill: "query",
    fields: ["question", "choices"],
    needs: { choices: "Name the choices." },
    step: ({ question, choices }) => ({
      task_type: "classification",
      ...(question && { prompt: question }),
      classes: choices,
    }),
    outputs: ["output", "probability", "predictions"],
    read: ({ output, predictions }, { prompt }) => ({
      groups: [{ title: prompt, answers: byProbability(predictions.predictions, (one) => one.class === output) }],
    }),
    python: PRINT_CHOICES,
  },
  each: {
    skill: "query",
    fields: ["things"],
    needs: { things: "Name what may be in the image." },
    step: ({ things }) => ({ task_type: "multi-label-classification", classes: things }),
    outputs: ["output", "probability", "predictions"],
    read: ({ output, predictions }, { classes }) => ({
      groups: [
        {
          title: "In the image",
          answers: asAsked(predictions.predictions, classes).map(([text, { confidence }]) => ({
            text,
            probability: confidence,
            isChosen: output.includes(text),
          })),
        },
      ],
    }),
    python: `for name, found in result["predictions"]["predictions"].items():
    print(name, round(found["confidence"], 3))`,
  },
  caption: {
    skill: ({ caption }) => `caption ${{ caption: "short", "detailed-caption": "normal" }[caption] ?? "long"}`,
    fields: ["caption", "length"],
    needs: {},
    step: ({ caption, length }) => ({ task_type: caption, max_tokens: length }),
    outputs: ["output", "probability"],
    read: ({ output, probability }) => ({ groups: [{ answers: [{ text: output, probability }] }] }),
    python: `print(result["output"], round(result["probability"], 3))`,
  },
  point: {
    skill: "point",
    fields: ["things"],
    needs: { things: "Name what to point at." },
    step: ({ things }) => ({ task_type: "pointing", classes: things }),
    outputs: ["predictions", "counts", "points"],
    read: readPoints,
    python: `print(result["counts"])
for point in result["predictions"]["predictions"]:
    print(point["class"], round(point["confidence"], 3), point["x"], point["y"])`,
  },
};

function byProbability(predictions, isChosen) {
  return predictions
    .map((one) => ({ text: one.class, probability: one.confidence, isChosen: isChosen(one) }))
    .sort((one, other) => other.probability - one.probability);
}

// The entries of an object of the server in the order of the things that were asked for.
function asAsked(object, things) {
  const names = new Set([...things.map(normalized), ...Object.keys(object)]);
  return [...names].filter((name) => Object.hasOwn(object, name)).map((name) => [name, object[name]]);
}

function readPoints({ predictions, counts }, { classes }) {
  const used = [];
  const points = [];
  const groups = asAsked(counts, classes).map(([title, count]) => {
    const colour = newColour(used, used.length);
    used.push(colour);
    const answers = predictions.predictions
      .filter((one) => one.class === title)
      .map((one, at) => ({ text: `${title} ${at + 1}`, x: one.x, y: one.y, probability: one.confidence, colour }));
    points.push(...answers);
    return { title, colour, count, answers };
  });
  return { groups, points };
}
