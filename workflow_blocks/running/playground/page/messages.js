// Lines above the results: errors, and what was done.

import { byId, element } from "./dom.js";

const MAX_MESSAGES = 6;

// `about` is what the user did; messages about it go when the same is done again.
export function tell(text, { about, kind = "error" } = {}) {
  const away = element("button", { type: "button", className: "quiet", textContent: "×" });
  away.setAttribute("aria-label", "Close the message");
  const line = element("li", { className: kind, dataset: { about } }, element("span", {}, text), away);
  away.addEventListener("click", () => line.remove());
  byId("messages").prepend(line);
  while (byId("messages").children.length > MAX_MESSAGES) byId("messages").lastElementChild.remove();
}

export function tellAll(lines, options) {
  for (const line of lines.slice(0, MAX_MESSAGES - 1).reverse()) tell(line, options);
  if (lines.length >= MAX_MESSAGES) tell(`... and ${lines.length - MAX_MESSAGES + 1} more`, options);
}

export function forget(about) {
  for (const line of [...byId("messages").children]) if (line.dataset.about === about) line.remove();
}
