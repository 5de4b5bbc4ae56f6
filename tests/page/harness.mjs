// What the pack's scripts need of a browser and of ComfyUI's page, as far as the tests here go.
// The scripts are imported as ComfyUI serves them: scripts/ stands for its own modules, beside
// extensions/. Prints as JSON what the scenario named by the argument returns.

class Element extends EventTarget {
  constructor(tag) {
    super();
    Object.assign(this, { tag, children: [], attributes: {}, className: "", clientWidth: 400, clientHeight: 400 });
    this.style = { setProperty: () => {} };
    this.classList = {
      add: (...names) => (this.className = [this.className, ...names].join(" ").trim()),
      contains: (name) => this.className.split(" ").includes(name),
      toggle: () => {},
    };
  }
  get childElementCount() {
    return this.children.length;
  }
  append(...children) {
    this.children.push(...children);
  }
  replaceChildren(...children) {
    this.children = children;
  }
  setAttribute(name, value) {
    this.attributes[name] = value;
  }
  /** The class names of this and all below it. */
  classes() {
    return [this.className, ...this.children.flatMap((each) => each.classes?.() ?? [])].filter(Boolean);
  }
}

globalThis.document = {
  head: new Element("head"),
  createElement: (tag) => new Element(tag),
  createElementNS: (_, tag) => new Element(tag),
  querySelector: () => null,
};
globalThis.requestAnimationFrame = () => {};
globalThis.setTimeout = () => {}; // nothing here waits

const { app, extensions } = await import("./scripts/app.js");
const { api } = await import("./scripts/api.js");
const load = (name) => import(`./extensions/pack/js/${name}.js`);

/** A node of the page, new, with the scripts' panels and widgets on it. */
function makeNode(comfyClass) {
  const node = {
    comfyClass,
    properties: {},
    size: [400, 300],
    widgets: [{ name: "which", value: "all" }],
    inputs: [],
    addDOMWidget(name, type, root) {
      this.root = root;
      this.widgets.push({ name, type, element: root });
      return this.widgets.at(-1);
    },
    computeSize: () => [400, 300],
    setSize() {},
    setDirtyCanvas() {},
  };
  for (const extension of extensions) extension.nodeCreated?.(node);
  app.graph.nodes.push(node);
  return node;
}
const file = (filename) => ({ filename, subfolder: "", type: "temp" });
const pair = { before: file("a.jpg"), after: file("b.jpg"), count: 1 };
const face = { number: 0, box: [1, 1, 9, 9], landmarks: [[2, 2]], score: 0.9, chosen: true };
const frame = { ...pair, frame: 0, width: 10, height: 10, faces: [face] };

const SCENARIOS = {
  /** A workflow is loaded that was saved with a result. */
  async saved(properties) {
    await load("compare");
    const node = makeNode("GFPRestorePhoto");
    Object.assign(node.properties, properties);
    node.onConfigure({});
    node.onConnectionsChange?.();
    return node.root.classes();
  },

  /** A run is cancelled after a picture of its progress. */
  async ended(how) {
    await load("compare");
    const node = makeNode("GFPRestorePhoto");
    node.onExecuted({ gfp_compare: [frame], gfp_report: [{ key: "restored", values: [1, 1] }] });
    const finished = node.root.classes();
    node.onExecutionStart();
    node.imgs = [{ naturalWidth: 2, naturalHeight: 1 }];
    node.onDrawBackground();
    const running = node.root.classes();
    api.dispatchEvent(new Event(how));
    return { finished, running, ended: node.root.classes() };
  },

  /** A template is opened whose picture is neither in the input folder nor in the pack's. */
  async example(status) {
    await load("examples");
    const uploads = [];
    globalThis.fetch = async () => new Response("a page that says what is wrong", { status });
    api.fetchApi = async (route) => {
      uploads.push(route);
      return new Response("{}");
    };
    console.warn = () => {};
    const widget = { name: "image", value: "gfp_photo.jpg", options: { values: ["mine.jpg"] } };
    app.graph.nodes.push({
      type: "LoadImage",
      widgets: [widget],
      widgets_values: ["gfp_photo.jpg"],
      setDirtyCanvas() {},
    });
    for (const extension of extensions) await extension.afterConfigureGraph?.();
    return { uploads, offered: widget.options.values };
  },
};

const [scenario, argument] = process.argv.slice(2);
console.log(JSON.stringify(await SCENARIOS[scenario](JSON.parse(argument))));
