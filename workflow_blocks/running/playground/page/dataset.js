// Sends the kept images and boxes to the server, which writes the dataset, and downloads it.

import { base64, post, remove, ServerError } from "./api.js";
import { download } from "./dom.js";

let unfinished = null; // the address of the dataset that is being made

addEventListener("pagehide", () => {
  if (unfinished) remove(unfinished, { keepalive: true });
});

// `entries` are cards; `failed` is called with a card and an error, and the others go on.
// Returns how many images went to each split.
export async function makeDataset(entries, { format, classNames, split }, progress, failed) {
  const { dataset } = await (await post("/playground/api/datasets", { format, class_names: classNames })).json();
  const address = `/playground/api/datasets/${dataset}`;
  unfinished = address;
  let done = 0;
  const sizes = new Map();
  try {
    for (const card of entries) {
      try {
        const { path, blob } = card.image;
        const image = path === undefined ? { content: await base64(await blob()) } : { path };
        const body = { name: card.name, labels: card.labels, split, ...image };
        const added = await (await post(`${address}/images`, body)).json();
        sizes.set(added.split, (sizes.get(added.split) ?? 0) + 1);
      } catch (error) {
        if (!(error instanceof ServerError)) throw error;
        failed(card, error);
      }
      progress.show(++done);
    }
    if (sizes.size) download(address);
    else await remove(address);
  } finally {
    unfinished = null;
  }
  return sizes;
}
