// The classes to find: their names, prompts, thresholds and colours, and the rows that edit them.

import { newColour } from "./colours.js";
import { element } from "./dom.js";
import { isObject, mapOf, parseOrdered, textOf, toJson } from "./ordered_json.js";

// Blanks as the server reads them.
export const normalized = (text) => text.trim().replace(/\s+/g, " ");

const OTHER_CLASSES = "*"; // in the field `confidence`

const isText = (value) => typeof value === "string" && normalized(value) !== "";

// Raises "change" when other boxes would be found, "threshold" (its detail is the class) and "rename".
export class Classes extends EventTarget {
  constructor(list) {
    super();
    this.list = list;
    this.all = [];
    this.limits = { max_prompts: Infinity, max_prompt_length: Infinity };
  }

  // Adds a class whose only prompt is its name.
  add(text) {
    const name = normalized(text);
    if (!name) return;
    const known = this.all.find((one) => one.name === name);
    if (known) {
      known.row.querySelector(".name").focus();
      return;
    }
    this._append({ name, prompts: [name], threshold: 0 });
    this._emit("change");
  }

  // What a `prompts.json` holds replaces all classes; raises an Error that names the class.
  read(text) {
    const found = parsePrompts(text);
    this.all = [];
    this.list.replaceChildren();
    for (const one of found) this._append(one);
    this._emit("change");
  }

  // The block's field `prompts`: a list where every class is its own prompt, else a Map.
  prompts() {
    if (this.all.every(isItsPrompt)) return this.all.map((one) => one.name);
    return new Map(this.all.map(({ name, prompts }) => [name, prompts.length === 1 ? prompts[0] : prompts]));
  }

  // The block's field `confidence`: a number, or a Map where classes that are left out have the threshold 0.
  confidence() {
    const [first, ...others] = this.all.map((one) => one.threshold);
    if (others.every((other) => other === first)) return first ?? 0;
    // The threshold of a class of this name holds for all that are left out.
    const needsAll = this.all.some((one) => one.name === OTHER_CLASSES);
    return new Map(
      this.all.filter((one) => needsAll || one.threshold > 0).map((one) => [one.name, one.threshold]),
    );
  }

  // As `evaluate` writes it.
  file() {
    const prompts = new Map(this.all.map(({ name, prompts }) => [name, prompts]));
    const confidence = new Map(this.all.map(({ name, threshold }) => [name, threshold]));
    return `${toJson({ prompts, confidence }, 2)}\n`;
  }

  problem() {
    if (!this.all.length) return "Name something to find.";
    const names = new Set(this.all.map((one) => one.name));
    if (names.size < this.all.length) return "Two classes have the same name.";
    const prompts = new Set(this.all.flatMap((one) => one.prompts));
    const { max_prompts, max_prompt_length } = this.limits;
    if (prompts.size > max_prompts) return `There are more than ${max_prompts} different prompts.`;
    const long = [...names, ...prompts].find((text) => [...text].length > max_prompt_length);
    return long && `${long.slice(0, 40)}... is longer than ${max_prompt_length} characters.`;
  }

  _append(one) {
    const used = this.all.map((other) => other.colour);
    one.colour = newColour(used, this.all.length);
    this.all.push(one);
    one.row = this._row(one);
    this.list.append(one.row);
  }

  _row(one) {
    const name = element("input", { className: "name", value: one.name, "aria-label": "Name of the class" });
    name.addEventListener("change", () => this._rename(one, name));
    one.count = element("output", { className: "count" });
    const away = element("button", { type: "button", className: "quiet", textContent: "×", title: "Remove the class" });
    away.setAttribute("aria-label", `Remove ${one.name}`);
    away.addEventListener("click", () => this._remove(one));
    const slider = element("input", { type: "range", min: 0, max: 1, step: 0.01, value: one.threshold });
    slider.setAttribute("aria-label", `Lowest score of ${one.name}`);
    const shown = element("output", { className: "threshold", value: `≥ ${one.threshold.toFixed(2)}` });
    slider.addEventListener("input", () => {
      one.threshold = slider.valueAsNumber;
      shown.value = `≥ ${one.threshold.toFixed(2)}`;
      this._emit("threshold", one);
    });
    const prompts = element("div", { className: "prompts" });
    const threshold = element("label", { className: "slider", title: "Lowest score of the boxes" }, slider, shown);
    const row = element(
      "li",
      {},
      element("div", { className: "row" }, name, one.count, away),
      prompts,
      element("div", { className: "row" }, this._more(one, prompts), threshold),
    );
    row.style.setProperty("--colour", one.colour);
    this._showPrompts(one, prompts);
    return row;
  }

  _more(one, place) {
    const more = element("input", { className: "more", placeholder: "+ wording", autocomplete: "off" });
    more.setAttribute("aria-label", `Another prompt for ${one.name}`);
    const add = () => {
      const prompt = normalized(more.value);
      more.value = "";
      if (prompt && !one.prompts.includes(prompt)) this._setPrompts(one, place, [...one.prompts, prompt]);
    };
    more.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      add();
    });
    more.addEventListener("change", add);
    return more;
  }

  _showPrompts(one, place) {
    const others = one.prompts.length > 1;
    const chips = one.prompts.map((prompt) => {
      const chip = element("span", { className: "chip" }, prompt);
      if (others) {
        const away = element("button", { type: "button", textContent: "×" });
        away.setAttribute("aria-label", `Remove the prompt ${prompt}`);
        away.addEventListener("click", () => this._setPrompts(one, place, one.prompts.filter((p) => p !== prompt)));
        chip.append(away);
      }
      return chip;
    });
    place.replaceChildren(...(isItsPrompt(one) ? [] : chips));
  }

  _setPrompts(one, place, prompts) {
    one.prompts = prompts;
    this._showPrompts(one, place);
    this._emit("change");
  }

  _rename(one, field) {
    const name = normalized(field.value);
    field.value = name || one.name;
    if (!name || name === one.name) return;
    one.name = name;
    this._showPrompts(one, one.row.querySelector(".prompts"));
    this._emit("rename");
  }

  _remove(one) {
    this.all = this.all.filter((other) => other !== one);
    one.row.remove();
    this._emit("change");
  }

  _emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

const isItsPrompt = (one) => one.prompts.length === 1 && one.prompts[0] === one.name;

// Classes of `{"prompts": ..., "confidence": ...}`, or of prompts alone: a text, a list or a dictionary.
function parsePrompts(text) {
  const { prompts, confidence } = partsOf(parseJson(text));
  const found = new Map();
  for (const [key, value] of promptsByClass(prompts)) {
    const own = typeof value === "string" ? [value] : value;
    if (!isText(key)) throw new Error("a class has no name");
    if (!Array.isArray(own) || !own.length || !own.every(isText)) {
      throw new Error(`the class ${shown(key)} has the prompts ${shown(value)}; give a text, or a list of texts`);
    }
    const name = normalized(key);
    if (found.has(name)) throw new Error(`there are two classes ${shown(name)}`);
    found.set(name, { name, prompts: [...new Set(own.map(normalized))] });
  }
  const thresholds = thresholdsOf(confidence, found);
  for (const one of found.values()) one.threshold = thresholds.get(one.name) ?? thresholds.get(OTHER_CLASSES) ?? 0;
  return [...found.values()];
}

function partsOf(document) {
  const parts = isObject(document) ? mapOf(document) : new Map();
  const isPair = parts.has("prompts") && [...parts.keys()].every((key) => ["prompts", "confidence"].includes(key));
  return isPair ? { prompts: parts.get("prompts"), confidence: parts.get("confidence") ?? 0 } : { prompts: document, confidence: 0 };
}

// Pairs of a class and what it has as prompts.
function promptsByClass(prompts) {
  const list = typeof prompts === "string" ? [prompts] : prompts;
  if (Array.isArray(list)) {
    const bad = list.find((prompt) => !isText(prompt));
    if (bad !== undefined) throw new Error(`the prompt ${shown(bad)} is not a text`);
  }
  const pairs = Array.isArray(list)
    ? [...new Set(list.map(normalized))].map((prompt) => [prompt, prompt])
    : isObject(list) ? [...mapOf(list)] : [];
  if (!pairs.length) {
    throw new Error('it holds no prompts, such as {"prompts": {"helmet": ["hard hat", "safety helmet"]}}');
  }
  return pairs;
}

// A Map of class to threshold, with `OTHER_CLASSES` for the rest.
function thresholdsOf(confidence, classes) {
  if (!isObject(confidence)) return new Map([[OTHER_CLASSES, checkedThreshold(confidence, "`confidence`")]]);
  const thresholds = new Map();
  for (const [key, value] of mapOf(confidence)) {
    const name = normalized(key);
    if (name !== OTHER_CLASSES && !classes.has(name)) {
      throw new Error(`\`confidence\` has a threshold for ${shown(name)}, which is no class`);
    }
    thresholds.set(name, checkedThreshold(value, `the confidence of ${shown(name)}`));
  }
  return thresholds;
}

function checkedThreshold(value, what) {
  if (typeof value === "number" && value >= 0 && value <= 1) return value;
  throw new Error(`${what} is ${shown(value)}; give a number from 0 to 1`);
}

function parseJson(text) {
  try {
    return parseOrdered(text);
  } catch (error) {
    if (!(error instanceof SyntaxError) || /\bline \d/.test(error.message)) throw error;
    throw new Error(`line ${lineOfError(text)}: ${error.message}`);
  }
}

// The line on which the shortest part of a text ends that cannot be the start of JSON.
function lineOfError(text) {
  let [good, bad] = [0, text.length];
  while (bad - good > 1) {
    const middle = (good + bad) >> 1;
    if (canGoOn(text.slice(0, middle))) good = middle;
    else bad = middle;
  }
  return text.slice(0, bad).split("\n").length;
}

function canGoOn(start) {
  try {
    JSON.parse(start);
    return true;
  } catch ({ message }) {
    const [, position] = /position (\d+)/.exec(message) ?? [];
    return position ? Number(position) >= start.length : /end of/.test(message);
  }
}

function shown(value) {
  let text;
  try {
    text = textOf(value);
  } catch {
    return "a value that is nested too deep";
  }
  return text.length > 80 ? `${text.slice(0, 80)}...` : text;
}
