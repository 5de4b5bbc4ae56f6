// @ts-check
// The face picker of GFPDetectFaces and GFPRestorePhoto: numbered boxes over the picture; a click on
// one chooses the face or leaves it out, and writes the choice into the widget `which`, which is all
// the server reads.
import { app } from "../../../scripts/app.js";
import { addPanel, element, picture } from "./panel.js";
import { say } from "./strings.js";

/** "all", "none", "first 2" or "0, 2" as a function of a face's number; null for anything else. */
export function parseChoice(text) {
  const words = String(text).trim().toLowerCase();
  if (words === "all") return () => true;
  if (words === "none") return () => false;
  const first = /^first(?:\s+(\d+))?$/.exec(words);
  if (first) return (number) => number < Number(first[1] ?? 1);
  if (!/^\d+(\s*[,;\s]\s*\d+)*$/.test(words)) return null;
  const numbers = new Set((words.match(/\d+/g) ?? []).map(Number));
  return (number) => numbers.has(number);
}

/** The text of a choice among faces 0 to count - 1. */
export function writeChoice(chosen, count) {
  const numbers = [...Array(count).keys()].filter(chosen);
  if (numbers.length === count) return "all";
  return numbers.length ? numbers.join(", ") : "none";
}

/**
 * What draws the faces of a frame over its picture, and lets them be chosen; null without `which`.
 *
 * @param node the node with the widget
 * @param key the property that holds the frames, each with its width, height and faces
 * @param report a function that gives what the bar says as long as the choice is that of the last
 *   run; by default how many are chosen
 * @returns draw(frame, {layer, bar}), which puts the faces into the layer and the rest into the bar
 */
export function makePicker(node, key, report) {
  const which = node.widgets?.find((widget) => widget.name === "which");
  if (!which) return null;
  /** @type {any} */
  let drawn = null; // the faces on show: {face, button} of each, and the bar's text

  /** The most faces that any frame has: numbers are ranks within a frame. */
  const count = () => Math.max(0, ...node.properties[key].map(({ faces }) => faces?.length ?? 0));
  const linked = () =>
    node.inputs?.some((input) => input.widget?.name === "which" && input.link != null);
  const choice = () => parseChoice(which.value);

  function choose(chosen) {
    if (linked()) return;
    app.canvas.emitBeforeChange?.(); // one step to undo
    which.value = writeChoice(chosen, count());
    which.callback?.(which.value, app.canvas, node);
    app.canvas.emitAfterChange?.();
    node.setDirtyCanvas(true, true);
  }

  function toggle(number) {
    const chosen = choice() ?? (() => false);
    choose((one) => (one === number) !== chosen(one));
  }

  /** Show the choice that the widget holds; where a link brings it, the one last made. */
  function update() {
    if (!drawn) return;
    const fixed = linked();
    const chosen = choice();
    let number = 0;
    let changed = !fixed && !chosen;
    for (const { face, button } of drawn.boxes) {
      const isChosen = fixed ? face.chosen : Boolean(chosen?.(face.number));
      button.setAttribute("aria-pressed", isChosen);
      button.setAttribute("aria-disabled", Boolean(fixed));
      number += isChosen;
      changed ||= isChosen !== face.chosen;
    }
    for (const button of drawn.buttons) button.disabled = Boolean(fixed);
    const text = fixed || chosen ? say("chosen", number, drawn.boxes.length) : null;
    drawn.text.textContent =
      report && !changed ? report() : (text ?? say("unreadable", which.value));
    if (fixed) drawn.text.title = say("linked");
    else if (report && !changed) drawn.text.title = report();
    else drawn.text.title = node.properties[key].length > 1 ? say("everyFrame") : "";
  }

  function box(face, { width, height }, describe) {
    const [x1, y1, x2, y2] = face.box;
    const score = face.score.toFixed(2);
    const label = say("face", face.number, score, Math.round(x2 - x1), Math.round(y2 - y1));
    const chip = element("span", { className: "gfp-chip" }, `${face.number}`);
    if (!report && (x2 - x1) / width > 0.15) {
      chip.append(element("small", { textContent: score }));
    }
    const button = element("button", {
      type: "button",
      className: "gfp-face",
      title: label,
      attributes: { "aria-label": label, "data-number": face.number },
      onclick: () => toggle(face.number),
    });
    button.append(chip);
    button.classList.toggle("gfp-at-top", y1 / height < 0.1);
    const percent = (value, whole) => `${(100 * value) / whole}%`;
    button.style.left = percent(x1, width);
    button.style.top = percent(y1, height);
    button.style.width = percent(x2 - x1, width);
    button.style.height = percent(y2 - y1, height);
    for (const type of ["pointerenter", "focus"]) {
      button.addEventListener(type, () => describe(label));
    }
    for (const type of ["pointerleave", "blur"]) button.addEventListener(type, () => describe(null));
    return { face, button };
  }

  const edited = which.callback;
  which.callback = function () {
    const result = edited?.apply(this, arguments);
    update();
    return result;
  };
  const connected = node.onConnectionsChange;
  node.onConnectionsChange = function () {
    const result = connected?.apply(this, arguments);
    update();
    return result;
  };

  return function draw(frame, { layer, bar }) {
    const text = element("span", { className: "gfp-text", attributes: { "aria-live": "polite" } });
    if (!frame.faces?.length) {
      // Without the list: of a workflow that the first version saved, which showed no faces here.
      drawn = null;
      if (report) bar.append(Object.assign(text, { textContent: report(), title: report() }));
      return;
    }
    const describe = (label) => (label ? (text.textContent = label) : update());
    // Small faces above large ones, so that none is out of reach.
    const area = ({ box: [x1, y1, x2, y2] }) => (x2 - x1) * (y2 - y1);
    const byArea = [...frame.faces].sort((one, other) => area(other) - area(one));
    const boxes = byArea.map((face) => box(face, frame, describe));
    const inOrder = [...boxes].sort((one, other) => one.face.number - other.face.number);
    boxes.forEach(({ button }, rank) => (button.style.zIndex = rank + 1));
    const group = element("div", {
      className: "gfp-faces",
      attributes: { role: "group", "aria-label": say("faces") },
    });
    group.append(...inOrder.map(({ button }) => button)); // the keyboard's order is the numbers'
    layer.append(group);
    const all = element("button", { type: "button", className: "gfp-all", textContent: say("all") });
    all.onclick = () => choose(() => true);
    const none = element("button", { type: "button", className: "gfp-none", textContent: say("none") });
    none.onclick = () => choose(() => false);
    bar.append(text, element("span", { className: "gfp-buttons" }, all, none));
    drawn = { boxes, text, buttons: [all, none] };
    update();
  };
}

/** Dots of a fixed size on the screen: lines without length, with round ends. */
function landmarks({ width, height, faces }) {
  const points = faces.flatMap((face) => face.landmarks.map(([x, y]) => `M${x} ${y}h0`)).join("");
  const make = (tag, attributes, ...children) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };
  return make(
    "svg",
    {
      class: "gfp-landmarks",
      viewBox: `0 0 ${width} ${height}`,
      preserveAspectRatio: "none",
      "aria-hidden": true,
    },
    make("path", { class: "gfp-rim", d: points }),
    make("path", { d: points }),
  );
}

function addPicker(node) {
  const picker = makePicker(node, "gfp_faces");
  if (!picker) return;
  const drawFaces = picker; // not null, in the functions below too

  function draw(frame, { stage, bar, fit, gone }) {
    fit(frame.width / frame.height);
    stage.append(picture(frame.image, "", gone), landmarks(frame));
    if (!frame.faces.length) {
      stage.append(element("p", { className: "gfp-note", textContent: say("noFaceHelp") }));
    }
    drawFaces(frame, { layer: stage, bar });
  }

  addPanel(node, "gfp_faces", { empty: "runForFaces", draw });
}

app.registerExtension({
  name: "gfp.facePicker",
  nodeCreated(node) {
    if (node.comfyClass === "GFPDetectFaces") addPicker(node);
  },
});
