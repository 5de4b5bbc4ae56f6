// @ts-check
// The pack's templates: listed in their order, and the pictures that they name put into ComfyUI's input
// folder when one is opened, so that it runs at once. Files of the user are never written over.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const EXAMPLES = [
  "gfp_photo.jpg",
  "gfp_old_photo.jpg",
  "gfp_group.jpg",
  "gfp_person.jpg",
  "gfp_glasses.jpg",
  "gfp_learn_good.jpg",
  "gfp_learn_old.jpg",
  "gfp_clip.mp4",
];
const LOADERS = { LoadImage: "image", LoadVideo: "file" };

/** Put an example into the input folder. */
async function putIntoInput(name) {
  const example = await fetch(new URL(`../examples/${name}`, import.meta.url));
  if (!example.ok) throw new Error(`${name}: ${example.status} ${example.statusText}`);
  const file = await example.blob();
  const body = new FormData();
  body.append("image", new File([file], name, { type: file.type }));
  const answer = await api.fetchApi("/upload/image", { method: "POST", body });
  if (!answer.ok) throw new Error(`${name}: ${answer.status} ${answer.statusText}`);
}

/** Let a loader see a file that has come since its list was made. */
async function offer(node, name) {
  const widget = node.widgets?.find((one) => one.name === LOADERS[node.type]);
  const values = widget?.options?.values;
  if (!Array.isArray(values) || values.includes(name)) return;
  await putIntoInput(name);
  values.push(name);
  widget.value = name;
  widget.callback?.(name);
  node.setDirtyCanvas(true, true);
}

/** Let the page list the pack's templates by their numbers; the server lists files as they come. */
function sortTemplates() {
  const [, pack] = /\/extensions\/([^/]+)\//.exec(import.meta.url) ?? [];
  const list = api.getWorkflowTemplates?.bind(api);
  if (!pack || !list) return;
  api.getWorkflowTemplates = async () => {
    const templates = await list();
    templates[decodeURIComponent(pack)]?.sort();
    return templates;
  };
}

app.registerExtension({
  name: "gfp.examples",
  init: sortTemplates,
  async afterConfigureGraph() {
    for (const node of app.graph.nodes) {
      const name = LOADERS[node.type] && node.widgets_values?.[0];
      if (!EXAMPLES.includes(name)) continue;
      try {
        await offer(node, name);
      } catch (error) {
        console.warn("GFP: an example could not be put into the input folder:", error);
      }
    }
  },
});
