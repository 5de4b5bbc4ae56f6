// @ts-check
// A panel below a node's widgets that shows the frames of its last result. The result is kept in the
// node's properties, and so is there again after a reload, and in a copy of the node.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { say } from "./strings.js";

const EMPTY_HEIGHT = 64;
const LEAST_HEIGHT = 160;
const MOST_HEIGHT_AT_FIRST = 480;
const BAR_HEIGHT = 28;
const MARGIN = 10; // the frontend's own, around each DOM widget

const style = document.createElement("link");
style.rel = "stylesheet";
style.href = new URL("../css/page.css", import.meta.url).href;
document.head.append(style);

/**
 * An element with properties (class names in `className`), attributes in `attributes`, children.
 *
 * @param {string} tag
 * @param {{attributes?: Record<string, any>, [property: string]: any}} [options]
 * @param {...any} children
 * @returns {any}
 */
export function element(tag, { attributes = {}, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Where a picture of ComfyUI's folders is fetched. */
export function pictureUrl({ filename, subfolder = "", type = "temp" }) {
  return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);
}

/** A picture of ComfyUI's folders; `onMissing` is called when it is no longer there. */
export function picture(file, alt, onMissing) {
  const image = element("img", { alt, draggable: false });
  image.addEventListener("error", onMissing, { once: true });
  image.src = pictureUrl(file);
  return image;
}

/**
 * Take away the pictures of a run's progress, which the page leaves on a node after the run, from our
 * nodes and from the subgraphs they are in, to which the page hands the same pictures.
 */
function forgetLivePictures() {
  const root = app.rootGraph ?? app.graph;
  const nodeOf = (locator) => {
    const [id, subgraph] = locator.split(":").reverse();
    return (subgraph ? root.subgraphs?.get(subgraph) : root)?.getNodeById(id);
  };
  // The page's state, which "Nodes 2.0" draws from; the older object is what the canvas draws from.
  const vue = /** @type {any} */ (document.querySelector("#vue-app"))?.__vue_app__;
  const state = vue?.config.globalProperties.$pinia?.state.value.nodeOutput?.nodePreviewImages;
  const lists = [state, app.nodePreviewImages].filter(Boolean);
  const entries = lists.flatMap((list) => Object.entries(list));
  const isOurs = (locator) => nodeOf(locator)?.comfyClass?.startsWith("GFP");
  const urls = new Set(entries.flatMap(([locator, list]) => (isOurs(locator) ? (list ?? []) : [])));
  for (const [locator, pictures] of entries) {
    if (!pictures?.some((url) => urls.has(url))) continue;
    for (const list of lists) delete list[locator];
    const node = nodeOf(locator);
    if (!node || app.nodeOutputs?.[locator]?.images?.length) continue;
    node.imgs = undefined;
    const preview = node.widgets?.findIndex(({ name }) => name === "$$canvas-image-preview") ?? -1;
    if (preview >= 0) {
      node.widgets.splice(preview, 1);
      node.setSize([node.size[0], node.computeSize()[1]]); // without the room for it
    }
    node.setDirtyCanvas(true, true);
  }
}

/** Show the last result again on nodes whose run was cancelled or failed. */
function endRuns() {
  const root = app.rootGraph ?? app.graph;
  const graphs = [root, ...(root?.subgraphs?.values() ?? [])];
  for (const node of graphs.flatMap((graph) => graph?.nodes ?? [])) node.gfpEndRun?.();
}

for (const type of ["execution_success", "execution_error", "execution_interrupted"]) {
  api.addEventListener(type, endRuns);
  // After the page's own answer, and after the last picture, which it may still be reading.
  api.addEventListener(type, () => setTimeout(forgetLivePictures, 500));
}

/** The canvas goes on zooming with the wheel and moving with the middle button over the panel. */
function handOnToCanvas(root) {
  const handOn = (event) => {
    event.preventDefault();
    event.stopPropagation();
    app.canvas.canvas.dispatchEvent(new event.constructor(event.type, event));
  };
  root.addEventListener("wheel", handOn, { passive: false });
  for (const type of ["pointerdown", "pointermove", "pointerup"]) {
    root.addEventListener(type, (event) => {
      if (event.button === 1 || event.buttons & 4) handOn(event);
    });
  }
}

/**
 * Add the panel to a node.
 *
 * @param node a node that has just been made
 * @param key the list in the node's UI output that holds one entry a frame; the property's name too
 * @param empty the key of the string shown before the first result
 * @param draw draws one entry: draw(frame, {stage, bar, fit, gone}) puts the picture into the stage
 *   and what belongs below it into the bar, calls fit(ratio) with the picture's width / height, and
 *   gone() when the picture is no longer there
 * @param keep further lists of the UI output that the drawing needs, kept as properties too
 */
export function addPanel(node, key, { empty, draw, keep = /** @type {string[]} */ ([]) }) {
  const root = element("div", { className: "gfp-panel" });
  let index = 0;
  let first = false; // the frame on show is the first that this node has ever shown
  let running = false;
  /** @type {any} */
  let live = null; // the picture that came with the progress of a run
  const frames = () => (Array.isArray(node.properties?.[key]) ? node.properties[key] : []);
  const leastHeight = () => (frames().length || live ? LEAST_HEIGHT : EMPTY_HEIGHT);

  const widget = node.addDOMWidget(key, "gfp_panel", root, {
    serialize: false, // not in the prompt
    hideOnZoom: false,
    margin: MARGIN,
    getMinHeight: leastHeight,
  });
  widget.serialize = false; // nor among the workflow's values
  handOnToCanvas(root);

  function step(by) {
    index = (index + by + frames().length) % frames().length;
    show();
    root.querySelector(by < 0 ? ".gfp-previous" : ".gfp-next").focus({ preventScroll: true });
  }

  function stepper() {
    const button = (className, label, sign, by) =>
      element("button", {
        type: "button",
        className,
        title: label,
        textContent: sign,
        attributes: { "aria-label": label },
        onclick: () => step(by),
      });
    const all = frames()[index].count ?? frames().length;
    const where = say("frame", index + 1, all);
    const rest = all > frames().length ? ` (${all})` : "";
    return element(
      "span",
      { className: "gfp-stepper" },
      button("gfp-previous", say("previous"), "‹", -1),
      element("span", {
        textContent: `${index + 1} / ${frames().length}${rest}`,
        title: rest && say("firstFrames", frames().length, all),
        attributes: { role: "status", "aria-label": where },
      }),
      button("gfp-next", say("next"), "›", 1),
    );
  }

  function show() {
    index = Math.min(index, Math.max(frames().length - 1, 0));
    root.style.minHeight = `${leastHeight() - 2 * MARGIN}px`;
    root.classList.toggle("gfp-empty", !frames().length && !live);
    if (live) {
      const stage = element("div", { className: "gfp-stage" }, live);
      root.style.setProperty("--ratio", live.naturalWidth / live.naturalHeight);
      root.replaceChildren(element("div", { className: "gfp-room" }, stage));
      return;
    }
    if (!frames().length) {
      root.replaceChildren(element("p", { textContent: say(empty) }));
      return;
    }
    const stage = element("div", { className: "gfp-stage" });
    const bar = element("div", { className: "gfp-bar" });
    const gone = () => {
      if (stage.classList.contains("gfp-gone")) return;
      stage.classList.add("gfp-gone");
      stage.append(element("p", { className: "gfp-note", textContent: say("gone") }));
    };
    const fit = (ratio) => {
      root.style.setProperty("--ratio", ratio);
      if (first) requestAnimationFrame(() => grow(ratio, bar.hidden ? 0 : BAR_HEIGHT));
      first = false;
    };
    draw(frames()[index], { stage, bar, fit, gone });
    if (frames().length > 1) bar.append(stepper());
    root.replaceChildren(element("div", { className: "gfp-room" }, stage), bar);
    bar.hidden = !bar.childElementCount;
  }

  /** Make room for the first picture: as much as it wants at the node's width. */
  function grow(ratio, below) {
    const wanted = (node.size[0] - 2 * MARGIN) / ratio + below + 2 * MARGIN;
    const more = Math.max(0, Math.min(wanted, MOST_HEIGHT_AT_FIRST) - LEAST_HEIGHT);
    node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1] + more)]);
    node.setDirtyCanvas(true, true);
  }

  // The core would show pictures of a run's progress in a widget of its own, which stays after it.
  const background = node.onDrawBackground;
  node.onDrawBackground = function () {
    if (this.imgs?.length && running) {
      live = this.imgs[0];
      show();
    }
    this.imgs = undefined;
    background?.apply(this, arguments);
  };

  const started = node.onExecutionStart;
  node.onExecutionStart = function () {
    started?.apply(this, arguments);
    running = true;
  };

  node.gfpEndRun = () => {
    running = false;
    if (!live) return;
    live = null;
    show();
    node.setDirtyCanvas(true, true);
  };

  const executed = node.onExecuted;
  node.onExecuted = function (output) {
    executed?.apply(this, arguments);
    if (!Array.isArray(output?.[key])) return;
    running = false;
    live = null;
    first = !frames().length;
    node.properties[key] = output[key];
    for (const name of keep) node.properties[name] = output[name] ?? [];
    show();
    node.setDirtyCanvas(true, true);
  };

  const configured = node.onConfigure;
  node.onConfigure = function () {
    configured?.apply(this, arguments);
    show();
  };

  show();
}
