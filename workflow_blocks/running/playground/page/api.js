// Requests to the server. Its errors are shown as it wrote them.

import { toJson } from "./ordered_json.js";

export class ServerError extends Error {
  constructor(message, type = null) {
    super(message);
    this.type = type; // of Inference's errors
  }
}

// The answer of a request. Raises ServerError with the server's own message.
async function send(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(`The server does not answer: ${error.message}`);
  }
  if (!answer.ok) throw errorOf(await answer.text(), answer.status);
  return answer;
}

function errorOf(text, status) {
  try {
    const { message, detail, error_type: type, inner_error_message: inner } = JSON.parse(text);
    if (typeof message === "string") return new ServerError(withInner(message, inner), type);
    if (detail) return new ServerError(`HTTP ${status}: ${JSON.stringify(detail)}`);
  } catch {
    // Not JSON: the text itself is all there is.
  }
  return new ServerError(`HTTP ${status}: ${text.slice(0, 500) || "no message"}`);
}

// Inference writes "None" where there is no inner error.
function withInner(message, inner) {
  return inner && inner !== "None" && !message.includes(inner) ? `${message}\n${inner}` : message;
}

export async function getJson(path) {
  return (await send(path)).json();
}

export async function getBlob(path) {
  return (await send(path)).blob();
}

export async function post(path, body, signal) {
  return send(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: toJson(body),
    signal,
  });
}

export async function remove(path, options = {}) {
  return send(path, { method: "DELETE", ...options });
}

// The outputs of a workflow for one image, and the milliseconds that the request took.
export async function runWorkflow(specification, blob, signal) {
  if (!blob.size) throw new ServerError("The file is empty.");
  const image = { type: "base64", value: await base64(blob) };
  const start = performance.now();
  const answer = await (await postImage({ specification, inputs: { image } }, signal)).json();
  return { outputs: answer.outputs[0], took: performance.now() - start };
}

async function postImage(body, signal) {
  try {
    return await post("/workflows/run", body, signal);
  } catch (error) {
    // The image is the only input of the page's definitions.
    if (error.type === "RuntimeInputError") throw new ServerError("The file is not an image that the server can read.");
    throw error;
  }
}

export function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new ServerError(`The file cannot be read: ${reader.error.message}`));
    reader.readAsDataURL(blob);
  });
}
