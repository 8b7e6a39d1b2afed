// Small helpers. Names and prompts become text nodes and properties, never HTML.

export const byId = (id) => document.getElementById(id);

// An element with properties (`dataset` and `on...` included) and children, which are nodes or text.
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "dataset") Object.assign(made.dataset, value);
    else if (name.startsWith("aria-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

const NUMBERS = new Intl.NumberFormat("en"); // made once: toLocaleString makes one at each call

export function counted(count, one, several = `${one}s`) {
  return `${NUMBERS.format(count)} ${count === 1 ? one : several}`;
}

export function seconds(milliseconds) {
  const value = milliseconds / 1000;
  return value < 10 ? `${value.toFixed(2)} s` : value < 90 ? `${value.toFixed(0)} s` : `${Math.round(value / 60)} min`;
}

// Saves a text or a blob as a file.
export function save(content, name) {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content]));
  download(url, name);
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

export function download(url, name = "") {
  element("a", { href: url, download: name }).click();
}

// A progress bar with the number of finished items and the time that is left.
export class Progress {
  constructor(node, total) {
    [this.bar, this.text] = node.children;
    this.node = node;
    this.total = total;
    this.start = performance.now();
    node.hidden = false;
    this.show(0);
  }

  show(done) {
    this.bar.max = this.total;
    if (done) this.bar.value = done;
    else this.bar.removeAttribute("value");
    const left = ((performance.now() - this.start) / done) * (this.total - done);
    this.text.textContent = `${done} of ${this.total}` + (done && left > 3000 ? `, ${seconds(left)} left` : "");
  }

  end() {
    this.node.hidden = true;
  }
}

// Copies a text, and says so on the button for a moment.
export async function copy(text, button) {
  if (navigator.clipboard) await navigator.clipboard.writeText(text);
  else copySelected(text); // browsers have a clipboard for encrypted and local pages only
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

function copySelected(text) {
  const area = element("textarea", { value: text });
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
