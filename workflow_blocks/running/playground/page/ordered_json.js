// JSON whose objects keep the order of their keys. JavaScript's own objects put keys such as "2" and "10" first,
// sorted by number; the order of classes is that of their ids.

const STRINGS = /("[^"\\]*(?:\\.[^"\\]*)*")(\s*:)?/g;
const MARK = "_"; // before each key while it is in an object, so that no key looks like a number

// Like JSON.parse. `mapOf` reads the objects in it.
export function parseOrdered(text) {
  JSON.parse(text); // its errors name places in the text as it is
  return JSON.parse(text.replace(STRINGS, (all, string, colon) => (colon ? `"${MARK}${string.slice(1)}${colon}` : all)));
}

export const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

// The keys and values of an object of `parseOrdered`, as a Map.
export const mapOf = (object) => new Map(Object.entries(object).map(([key, value]) => [key.slice(MARK.length), value]));

// A value of `parseOrdered`, or a part of it, as JSON on one line.
export const textOf = (value) => JSON.stringify(value, (key, part) => (isObject(part) ? Object.fromEntries(mapOf(part)) : part));

// Like JSON.stringify; a Map becomes an object with its keys in their order.
export function toJson(value, indent = 0) {
  return write(value, indent, "\n");
}

function write(value, indent, line) {
  const isList = Array.isArray(value);
  if (!isList && !isObject(value)) return JSON.stringify(value);
  const inner = indent ? line + " ".repeat(indent) : "";
  const colon = indent ? ": " : ":";
  const items = isList
    ? value.map((item) => write(item, indent, inner))
    : entriesOf(value).map(([key, item]) => `${JSON.stringify(key)}${colon}${write(item, indent, inner)}`);
  const [open, close] = isList ? "[]" : "{}";
  if (!items.length) return open + close;
  return `${open}${inner}${items.join(`,${inner}`)}${indent ? line : ""}${close}`;
}

function entriesOf(object) {
  const entries = object instanceof Map ? [...object] : Object.entries(object);
  return entries.filter(([, value]) => value !== undefined);
}
