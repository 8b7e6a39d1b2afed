// Workflow definitions that do what the page does, as JSON and as Python.

import { toJson } from "./ordered_json.js";

const INFERENCE_IMAGE = { type: "InferenceImage", name: "image" };

// A definition of one step, with these outputs of it.
export function definitionOf(step, outputs) {
  return {
    version: "1.0",
    inputs: [INFERENCE_IMAGE],
    steps: [step],
    outputs: outputs.map((name) => ({ type: "JsonField", name, selector: `$steps.${step.name}.${name}` })),
  };
}

export const asJson = (definition) => `${toJson(definition, 2)}\n`;

// A definition holds texts, numbers, lists and objects only: JSON and Python write them alike.
export function asPython(definition, server, print) {
  return `from inference_sdk import InferenceHTTPClient

definition = ${toJson(definition, 4)}

client = InferenceHTTPClient(api_url=${JSON.stringify(server)})
(result,) = client.run_workflow(specification=definition, images={"image": "photo.jpg"})
${print}
`;
}
