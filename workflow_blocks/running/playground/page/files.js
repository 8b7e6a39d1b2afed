// Images that a user drops or chooses, samples, and the images of the server's folder.

import { getBlob, getJson } from "./api.js";
import { byId, counted, element } from "./dom.js";

const IMAGE_NAMES = /\.(jpe?g|jpe|jfif|png|bmp|dib|webp|tiff?|gif|jp2|pbm|pgm|ppm|pnm)$/i;

export const isImage = (file) => file.type.startsWith("image/") || IMAGE_NAMES.test(file.name);

export function ofFile(file) {
  return { name: file.name, url: URL.createObjectURL(file), blob: async () => file, size: file.size };
}

export function ofSample(name) {
  const url = `/playground/api/samples/${encodeURIComponent(name)}`;
  return { name, url, blob: () => getBlob(url) };
}

function ofFolder(path) {
  const query = `path=${encodeURIComponent(path)}`;
  const name = path.slice(path.lastIndexOf("/") + 1);
  return {
    name,
    path,
    url: `/playground/api/folder/preview?${query}`,
    blob: () => getBlob(`/playground/api/folder/image?${query}`),
  };
}

// All files that were dropped, also those in folders.
export async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const files = [...transfer.files];
  if (!entries.some((entry) => entry.isDirectory)) return files;
  return (await Promise.all(entries.map(filesBelow))).flat();
}

async function filesBelow(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    found.push(...some);
  }
  return (await Promise.all(found.map(filesBelow))).flat();
}

// The dialog that walks through the server's folder.
export class FolderDialog {
  constructor(root, add, fail) {
    this.root = root;
    this.fail = fail;
    this.dialog = byId("folder");
    byId("add-folder").addEventListener("click", () => {
      add(this.images.map((name) => ofFolder(join(this.path, name))));
      this.dialog.close();
    });
  }

  async open(path = "") {
    let listing;
    try {
      listing = await getJson(`/playground/api/folder?path=${encodeURIComponent(path)}`);
    } catch (error) {
      this.dialog.close();
      this.fail(error);
      return;
    }
    this.path = path;
    this.images = listing.images;
    byId("folder-title").textContent = join(this.root, path);
    const up = path ? [this._row("..", path.slice(0, Math.max(0, path.lastIndexOf("/"))))] : [];
    byId("folders").replaceChildren(...up, ...listing.folders.map((name) => this._row(name, join(path, name))));
    byId("folder-note").textContent = [
      counted(listing.images.length, "image"),
      ...(listing.is_cut ? ["only the first are listed"] : []),
      ...(listing.skipped ? [`${listing.skipped} other files`] : []),
    ].join(", ");
    byId("add-folder").textContent = `Add ${counted(listing.images.length, "image")}`;
    byId("add-folder").disabled = !listing.images.length;
    if (!this.dialog.open) this.dialog.showModal();
  }

  _row(name, path) {
    const button = element("button", { type: "button", textContent: `${name}/` });
    button.addEventListener("click", () => this.open(path));
    return element("li", {}, button);
  }
}

const join = (folder, name) => [folder, name].filter(Boolean).join("/");
