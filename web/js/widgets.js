// @ts-check
// Widgets of the pack's nodes on the classic page: advanced inputs wait behind a button, as they do in
// "Nodes 2.0", weights that are not here say how large their download is, and what other packs call
// otherwise is called as here where the page puts our nodes in place of theirs.
import { app } from "../../../scripts/app.js";
import { say } from "./strings.js";

const specs = {}; // of each node: its inputs by name
const NAMES = { which: { largest: "first 1" } }; // of ReActor's face_selection; ours begins with the largest

/**
 * Hide advanced inputs until they are asked for, or one of them has another value than its own. What
 * the page itself knows as advanced it only leaves out of the drawing, and keeps its room.
 */
function foldAdvanced(node) {
  const advanced = node.widgets.filter((widget) => specs[node.comfyClass][widget.name]?.[1]?.advanced);
  if (!advanced.length) return;
  const isNew = () => Boolean(globalThis.LiteGraph?.vueNodesMode); // has such a button of its own
  /** @type {any} */
  let button = null;
  let isMeasured = false;
  const hide = (widget, condition) => {
    Object.defineProperty(widget, "hidden", { configurable: true, get: condition, set: () => {} });
    let own = widget.computeSize;
    Object.defineProperty(widget, "computeSize", {
      configurable: true,
      get: () => (condition() ? () => [0, -4] : own), // older pages make room for hidden ones too
      set: (value) => {
        own = value;
      },
    });
  };
  for (const widget of advanced) {
    hide(widget, () => isMeasured || Boolean(button && !isNew() && !node.properties.gfp_more));
  }
  // "Nodes 2.0" leaves advanced inputs out, but takes the height for all of them.
  const compute = node.computeSize;
  node.computeSize = function () {
    isMeasured = isNew() && !this.showAdvanced;
    try {
      return compute.apply(this, arguments);
    } finally {
      isMeasured = false;
    }
  };
  if (isNew()) {
    node.setSize(node.computeSize());
    return;
  }

  const fit = () => {
    node.setSize([node.size[0], Math.max(node.computeSize()[1], node.size[1])]);
    node.setDirtyCanvas(true, true);
  };
  const toggle = () => {
    const before = node.computeSize()[1];
    node.properties.gfp_more = !node.properties.gfp_more;
    node.setSize([node.size[0], node.size[1] + node.computeSize()[1] - before]);
    fit();
  };
  button = node.addWidget("button", "gfp_more_button", null, toggle, { serialize: false });
  button.serialize = false; // nor among the workflow's values
  hide(button, isNew);
  Object.defineProperty(button, "label", {
    get: () => say(node.properties.gfp_more ? "fewer" : "more"),
    set: () => {},
  });
  const panel = node.widgets.findIndex(({ name, element }) => element && name.startsWith("gfp_"));
  if (panel >= 0) node.widgets.splice(panel, 0, node.widgets.pop()); // above the picture
  node.setSize([node.size[0], node.computeSize()[1]]);

  const configured = node.onConfigure;
  node.onConfigure = function () {
    configured?.apply(this, arguments);
    const isChanged = ({ name, value }) => {
      const own = specs[node.comfyClass][name][1].default;
      return own !== undefined && value !== own;
    };
    if (this.properties.gfp_more === undefined && advanced.some(isChanged)) {
      this.properties.gfp_more = true;
      fit();
    }
  };
}

function labelWeights(node) {
  for (const widget of node.widgets) {
    const labels = specs[node.comfyClass][widget.name]?.[1]?.gfp_labels;
    if (!labels) continue;
    widget.options.getOptionLabel = (name) => labels[name] ?? name ?? "";
  }
}

/** Take what the page hands on from another pack's node, for which it has made room only. */
function translateNames(node) {
  let isAdded = false;
  const added = node.onAdded;
  node.onAdded = function () {
    isAdded = true;
    return added?.apply(this, arguments);
  };
  for (const widget of node.widgets) {
    const names = specs[node.comfyClass][widget.name]?.[1]?.gfp_names ?? NAMES[widget.name];
    if (!names) continue;
    const ours = new Map(Object.entries(names));
    const called = widget.callback;
    widget.callback = function (value, ...more) {
      const name = ours.get(String(value).toLowerCase());
      if (name) widget.value = value = name;
      if (node.graph && !isAdded) node.onAdded(node.graph); // else its panel would not be shown
      const [width, height] = node.computeSize();
      if (node.graph && node.size[1] < height) node.setSize([Math.max(width, node.size[0]), height]);
      return called?.call(this, value, ...more);
    };
  }
}

app.registerExtension({
  name: "gfp.widgets",
  beforeRegisterNodeDef(_, { name, input }) {
    if (name.startsWith("GFP")) specs[name] = { ...input.required, ...input.optional };
  },
  nodeCreated(node) {
    if (!specs[node.comfyClass] || !node.widgets) return;
    labelWeights(node);
    translateNames(node);
    foldAdvanced(node);
  },
});
