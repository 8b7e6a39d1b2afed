// The page: what the user gives, what the server answers, and what is shown of it.

import { getJson, runWorkflow, ServerError } from "./api.js";
import { Asking } from "./asking.js";
import { Classes } from "./classes.js";
import { makeDataset } from "./dataset.js";
import { asJson, asPython } from "./definition.js";
import { Detection } from "./detection.js";
import { byId, copy, counted, element, Progress, save, seconds } from "./dom.js";
import { filesOf, FolderDialog, isImage, ofFile, ofSample } from "./files.js";
import { forget, tell, tellAll } from "./messages.js";
import { connectTabs } from "./tabs.js";

const AT_ONCE = 2; // requests: while one image is searched, the next is on its way
const TYPING_MS = 300; // after the last key, the name of a model counts as complete
const FIRST_PROMPTS = ["car", "elephant", "wine glass"];
const RUNTIMES = { workflow_blocks: "this plugin's runtime", inference: "Inference's own class" };

const classes = new Classes(byId("classes"));
const detection = new Detection(classes);
const asking = new Asking(() => changeOfQuestions());
const modes = { detect: detection, ask: asking };
const grid = byId("grid");
let images = [];
let mode = detection; // what the selected tab does
let limits = {};
let running = null; // an AbortController
let about = {}; // the model, as the server knows it

const model = () => byId("model").value.trim();
const isAsking = () => mode === asking;

// Images

function addImages(added) {
  images.push(...added);
  showCards();
  selectResult(byId("tab-images"));
}

// Puts the cards of the selected tab into the grid; those of new images are made.
function showCards() {
  const made = new Map(mode.cards.map((card) => [card.image, card]));
  mode.cards = images.map((image) => made.get(image) ?? cardOf(image));
  grid.replaceChildren(...mode.cards.map((card) => card.node));
  refresh();
}

function cardOf(image) {
  const card = mode.cardOf(image, refresh);
  if (image.size > limits.max_image_bytes) {
    card.setError(`larger than ${(limits.max_image_bytes / 2 ** 20).toFixed(0)} MiB, the limit of this page`);
    card.isTooLarge = true;
  }
  card.enlarge.addEventListener("click", () => enlarge(card));
  card.away.addEventListener("click", () => removeImages([image]));
  return card;
}

async function addFiles(files) {
  forget("files");
  const skipped = [];
  const added = [];
  for (const file of files) {
    if (isImage(file)) added.push(ofFile(file));
    else if (/\.json$/i.test(file.name) && files.length === 1) await openPrompts(file);
    else skipped.push(`${file.name} is not an image`);
  }
  tellAll(skipped, { about: "files" });
  if (added.length) addImages(added);
}

function removeImages(removed) {
  const gone = new Set(removed);
  images = images.filter((image) => !gone.has(image));
  for (const one of Object.values(modes)) one.cards = one.cards.filter((card) => !gone.has(card.image));
  for (const { url } of removed) if (url.startsWith("blob:")) URL.revokeObjectURL(url);
  showCards();
}

function enlarge(card) {
  byId("large-name").textContent = card.name;
  byId("large-picture").append(card.picture);
  byId("large").onclose = () => {
    card.place.append(card.picture);
    card.picture.focus();
  };
  byId("large").showModal();
  card.picture.focus();
}

// Requests for the images

async function run() {
  const problem = mode.problem() ?? (images.length ? null : "Add an image first.") ?? (model() ? null : "Name a model.");
  if (running) return undefined;
  forget("run");
  if (problem) return tell(problem, { about: "run" });
  const asked = mode;
  const version = model();
  const request = asked.request(version);
  const able = asked.cards.filter((card) => !card.isTooLarge);
  const stale = able.filter((card) => card.error || card.isStale(request));
  const queue = stale.length ? stale : [...able];
  const start = performance.now();
  const progress = new Progress(byId("progress"), queue.length);
  running = new AbortController();
  showRunning();
  let done = 0;
  let answered = 0;
  const next = async () => {
    for (let card = queue.shift(); card && !running.signal.aborted; card = queue.shift()) {
      if (await runOne(asked, card, request)) answered += 1;
      progress.show(++done);
    }
  };
  selectResult(byId("tab-images"));
  if (matchMedia("(max-width: 60rem)").matches) byId("tabs").scrollIntoView();
  await Promise.all(Array.from({ length: AT_ONCE }, next));
  progress.end();
  running = null;
  showRunning();
  refresh();
  if (answered) await showAnswered(asked, version, answered, performance.now() - start);
  return undefined;
}

// Whether the server answered.
async function runOne(asked, card, request) {
  card.setBusy();
  try {
    const answer = await runWorkflow(request.definition, await card.image.blob(), running.signal);
    const start = performance.now();
    asked.show(card, answer, request);
    afterPaint(() => performance.measure("playground:boxes", { start }));
    return true;
  } catch (error) {
    if (error.name === "AbortError") card.showState(Boolean(card.answer));
    else if (error instanceof ServerError) card.setError(error.message);
    else throw error;
    return false;
  } finally {
    refresh();
  }
}

// Says which model and runtime answered.
async function showAnswered(asked, version, count, took) {
  const parts = [version];
  try {
    const about = await aboutOf(version);
    if (about.runtime === "remote") parts.push(`on ${about.server}`);
    else if (about.runtime) parts.push(RUNTIMES[about.runtime] ?? about.runtime);
    parts.push(...[about.device, about.dtype].filter(Boolean));
  } catch (error) {
    if (!(error instanceof ServerError)) throw error;
  }
  asked.said = `${parts.join(" · ")} · ${counted(count, "image")} in ${seconds(took)}`;
  byId("answered").textContent = mode.said;
}

const aboutOf = (version) => getJson(`/playground/api/model?version=${encodeURIComponent(version)}`);

const afterPaint = (act) => requestAnimationFrame(() => setTimeout(act));

function showRunning() {
  byId("run").disabled = Boolean(running);
  byId("run").textContent = running ? mode.running : mode.run;
  byId("stop").hidden = !running;
}

// What is shown

function setThreshold(one) {
  const start = performance.now();
  detection.filter(one);
  refresh();
  performance.measure("playground:slider", { start });
}

function selectMode(tab) {
  mode = modes[tab.dataset.mode];
  for (const node of document.querySelectorAll("[data-only]"))
    node.hidden = modes[node.dataset.only] !== mode;
  if (isAsking() && byId("tab-dataset").ariaSelected === "true") selectResult(byId("tab-images"));
  byId("python-file").dataset.name = mode.file;
  byId("python-file").textContent = `Save ${mode.file}`;
  byId("answered").textContent = mode.said;
  showRunning();
  showHint();
  showCards();
}

function changeOfQuestions() {
  showHint();
  refresh();
}

let isWaiting = false;

// Shows counts, order and texts again, at most once a frame.
function refresh() {
  if (isWaiting) return;
  isWaiting = true;
  requestAnimationFrame(() => {
    const start = performance.now();
    isWaiting = false;
    const request = mode.request(model());
    for (const card of mode.cards) if (!card.isBusy) card.showState(Boolean(card.answer) && card.isStale(request));
    if (!isAsking()) showCounts();
    arrange();
    showTexts();
    performance.measure("playground:refresh", { start });
  });
}

function showCounts() {
  const counts = new Map();
  for (const card of detection.cards)
    for (const box of card.shown) counts.set(box.of, (counts.get(box.of) ?? 0) + 1);
  const isAnswered = detection.cards.some((card) => card.answer);
  for (const one of classes.all) one.count.value = isAnswered ? counted(counts.get(one) ?? 0, "box", "boxes") : "";
}

function arrange() {
  const { cards } = mode;
  const shows = {
    all: () => true,
    found: (card) => card.shown.length > 0,
    empty: (card) => card.answer && !card.shown.length,
    failed: (card) => Boolean(card.error),
    dropped: (card) => !card.isKept || card.shown.some((box) => !box.isKept),
  }[isAsking() ? "all" : byId("show").value];
  for (const card of cards) {
    const isHidden = !shows(card);
    if (card.node.hidden !== isHidden) card.node.hidden = isHidden;
  }
  const ordered = byId("order").value === "added" ? cards : [...cards].sort((a, b) => a.lowestScore - b.lowestScore);
  if (ordered.some((card, at) => grid.children[at] !== card.node)) grid.append(...ordered.map((card) => card.node));
  const failed = cards.filter((card) => card.error).length;
  byId("summary").textContent = counted(cards.length, "image") + (failed ? `, ${failed} failed` : "");
  byId("nothing").hidden = cards.length > 0;
  byId("keys").hidden = isAsking() || !cards.some((card) => card.boxes.length);
}

function showTexts() {
  const definition = mode.definition(model());
  byId("definition-text").textContent = asJson(definition);
  byId("python-text").textContent = asPython(definition, location.origin, mode.python);
  if (!isAsking()) showDatasetSummary();
}

function showDatasetSummary() {
  if (byId("dataset").hidden) return;
  const entries = datasetEntries();
  const labels = entries.reduce((count, card) => count + card.labels.length, 0);
  const others = detection.cards.length - entries.length;
  byId("dataset-summary").textContent =
    `${counted(entries.length, "image")} with ${counted(labels, "box", "boxes")}` +
    (others ? `; ${counted(others, "image")} not in it: left out, failed, or not searched yet` : "");
  byId("make").disabled = !entries.length;
}

function datasetEntries() {
  const withEmpty = byId("with-empty").checked;
  return detection.cards.filter((card) => card.answer && card.isKept && (withEmpty || card.labels.length));
}

const selectResult = connectTabs(byId("tabs"), (selected) => {
  for (const tab of byId("tabs").children) byId(tab.getAttribute("aria-controls")).hidden = tab !== selected;
  showDatasetSummary();
});

// Files in and out

async function openPrompts(file) {
  forget("prompts");
  try {
    classes.read(await file.text());
  } catch (error) {
    tell(`${file.name}: ${error.message}`, { about: "prompts" });
  }
}

async function downloadDataset() {
  const about = "dataset";
  forget(about);
  const problem = classes.problem();
  if (problem) return tell(problem, { about });
  const split = {};
  for (const name of ["train", "valid", "test"]) split[name] = byId(`share-${name}`).valueAsNumber || 0;
  if (!Object.values(split).some((share) => share > 0)) return tell("Give a share to one of the splits.", { about });
  const entries = datasetEntries();
  const progress = new Progress(byId("dataset-progress"), entries.length);
  byId("make").disabled = true;
  const failures = [];
  try {
    const options = { format: byId("format").value, classNames: classes.all.map((one) => one.name), split };
    const failed = (card, error) => failures.push(`${card.name}: ${error.message}`);
    showSplits(await makeDataset(entries, options, progress, failed), split);
  } catch (error) {
    if (!(error instanceof ServerError)) throw error;
    failures.push(error.message);
  } finally {
    progress.end();
    byId("make").disabled = false;
  }
  return tellAll(failures, { about });
}

function showSplits(sizes, shares) {
  if (!sizes.size) return;
  const about = "dataset";
  const parts = [...sizes].map(([name, size]) => `${counted(size, "image")} in ${name}`);
  const empty = Object.keys(shares).filter((name) => shares[name] > 0 && !sizes.has(name));
  if (empty.length) {
    tell(
      `No image is in ${empty.join(" and ")}: the content of each image decides where it goes. ` +
        "Add more images, or download the dataset again with other shares.",
      { about },
    );
  }
  tell(`The dataset has ${parts.join(", ")}.`, { about, kind: "done" });
}

// Events

function connect() {
  byId("setup").addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run();
  });
  byId("stop").addEventListener("click", () => running?.abort());
  const addClass = () => {
    classes.add(byId("new-class").value);
    byId("new-class").value = "";
  };
  byId("add-class").addEventListener("click", addClass);
  byId("new-class").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    addClass();
  });
  byId("files").addEventListener("change", async ({ target }) => {
    await addFiles([...target.files]);
    target.value = "";
  });
  byId("open-prompts").addEventListener("change", async ({ target }) => {
    if (target.files.length) await openPrompts(target.files[0]);
    target.value = "";
  });
  byId("save-prompts").addEventListener("click", () => {
    forget("prompts");
    const problem = classes.problem();
    if (problem) tell(problem, { about: "prompts" });
    else save(classes.file(), "prompts.json");
  });
  byId("clear").addEventListener("click", () => removeImages(images));
  byId("size").addEventListener("input", ({ target }) => {
    grid.style.setProperty("--size", `${target.value}px`);
    grid.classList.toggle("small", target.valueAsNumber < 280);
  });
  for (const id of ["show", "order", "with-empty"]) byId(id).addEventListener("change", refresh);
  let typing;
  byId("model").addEventListener("input", () => {
    about = {};
    showHint();
    refresh();
    clearTimeout(typing);
    typing = setTimeout(askAboutModel, TYPING_MS);
  });
  byId("make-dataset").addEventListener("submit", (event) => {
    event.preventDefault();
    downloadDataset();
  });
  for (const button of document.querySelectorAll("[data-copy]"))
    button.addEventListener("click", () => copy(byId(button.dataset.copy).textContent, button));
  for (const button of document.querySelectorAll("[data-save]"))
    button.addEventListener("click", () => save(byId(button.dataset.save).textContent, button.dataset.name));
  for (const button of document.querySelectorAll("[data-close]"))
    button.addEventListener("click", () => button.closest("dialog").close());
  connectTabs(byId("modes"), selectMode);
  connectDrops();
  classes.addEventListener("change", () => {
    detection.filter();
    refresh();
  });
  classes.addEventListener("threshold", ({ detail }) => setThreshold(detail));
  classes.addEventListener("rename", () => {
    for (const card of detection.cards) card.rename();
    refresh();
  });
}

function connectDrops() {
  let depth = 0;
  const show = () => document.body.classList.toggle("dropping", depth > 0);
  const isFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragenter", (event) => {
    if (isFiles(event)) depth += 1;
    show();
  });
  document.addEventListener("dragleave", (event) => {
    if (isFiles(event)) depth -= 1;
    show();
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    depth = 0;
    show();
    if (!isFiles(event)) return;
    try {
      await addFiles(await filesOf(event.dataTransfer));
    } catch (error) {
      tell(`The files cannot be read: ${error.message}`, { about: "files" });
    }
  });
}

// What the model cannot do is said before it is asked, where the server knows it.
async function askAboutModel() {
  const version = model();
  let known = {};
  try {
    if (version) known = await aboutOf(version);
  } catch (error) {
    if (!(error instanceof ServerError)) throw error; // the answer to a request will be the same error
  }
  if (version !== model()) return;
  about = known;
  showHint();
}

function showHint() {
  const isBundled = model() === byId("models").options[0]?.value;
  const wait = isBundled ? "" : "The first answer waits until the model is loaded.";
  byId("model-hint").textContent = mode.hint(about, isBundled) ?? wait;
}

async function start() {
  connect();
  try {
    limits = await getJson("/playground/api/info");
  } catch (error) {
    tell(error.message);
    return;
  }
  classes.limits = limits;
  byId("models").append(...limits.models.map((value) => element("option", { value })));
  [byId("model").value] = limits.models;
  for (const name of limits.samples) {
    const src = `/playground/api/thumbnails/${encodeURIComponent(name)}`;
    const button = element("button", { type: "button", title: `Add ${name}` }, element("img", { src, alt: name }));
    button.addEventListener("click", () => addImages([ofSample(name)]));
    byId("samples").append(button);
  }
  if (limits.folder !== null) {
    const dialog = new FolderDialog(limits.folder, addImages, (error) => tell(error.message, { about: "folder" }));
    byId("open-folder").textContent = `Open the server's folder ${limits.folder} ...`;
    byId("open-folder").hidden = false;
    byId("open-folder").addEventListener("click", () => {
      forget("folder");
      dialog.open();
    });
  }
  for (const prompt of FIRST_PROMPTS) classes.add(prompt);
  addImages(limits.samples.slice(2, 4).map(ofSample)); // two, so that the page is small
  await askAboutModel();
}

start();
