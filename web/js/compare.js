// @ts-check
// The before/after slider of GFPRestorePhoto and GFPPasteBack; on the former with the faces to click,
// and what was done.
import { app } from "../../../scripts/app.js";
import { makePicker } from "./face_picker.js";
import { addPanel, element, picture, pictureUrl } from "./panel.js";
import { say } from "./strings.js";

const MOST_ZOOM = 16;
const GRIP = 16; // pixels beside the divider in which a drag moves it, also when zoomed

/** The sentence of a node's report, in the page's language. */
function sentence(node) {
  const statements = node.properties.gfp_report ?? [];
  // A later version, which saved the workflow, may have said what this one does not know.
  const sentences = statements.map(({ key, values }) => say(key, ...values));
  const text = sentences.filter(Boolean).join(", ");
  return text && `${text[0].toUpperCase()}${text.slice(1)}`;
}

function addCompare(node) {
  let position = 50; // percent of the width that shows before; the same for every frame
  let view = { scale: 1, x: 0, y: 0 }; // x and y: pixels of the stage; the same for every frame too
  const drawFaces =
    node.comfyClass === "GFPRestorePhoto"
      ? makePicker(node, "gfp_compare", () => sentence(node))
      : null;

  function draw(frame, { stage, bar, fit, gone }) {
    const before = picture(frame.before, say("before"), gone);
    const after = picture(frame.after, say("after"), gone);
    before.className = "gfp-before";
    // The result may be larger; both fill the same box, which has the result's shape.
    after.addEventListener("load", () => fit(after.naturalWidth / after.naturalHeight));
    const layer = element("div", { className: "gfp-layer" }, after, before);
    const range = element("input", {
      type: "range",
      min: 0,
      max: 100,
      step: 1,
      value: position,
      title: say("sliderHelp"),
      attributes: { "aria-label": say("slider") },
    });

    /** Show the view and the divider; `--clip` is the divider's place in the zoomed picture. */
    function show() {
      const { clientWidth: width, clientHeight: height } = stage;
      view.x = Math.min(0, Math.max(width * (1 - view.scale), view.x));
      view.y = Math.min(0, Math.max(height * (1 - view.scale), view.y));
      layer.style.transform =
        view.scale === 1 ? "" : `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
      const clip = width ? ((position * width) / 100 - view.x) / view.scale / width : position / 100;
      range.value = position;
      stage.style.setProperty("--position", `${position}%`);
      layer.style.setProperty("--clip", `${100 * clip}%`);
      layer.style.setProperty("--zoom", view.scale);
      stage.classList.toggle("gfp-zoomed", view.scale > 1);
    }
    const move = (to) => {
      position = Math.min(100, Math.max(0, to));
      show();
    };

    /** Zoom about a point in pixels of the stage. */
    function zoom(scale, x, y) {
      const next = Math.min(MOST_ZOOM, Math.max(1, scale));
      const factor = next / view.scale;
      view = { scale: next, x: x - (x - view.x) * factor, y: y - (y - view.y) * factor };
      show();
    }
    /** A pointer's place in pixels of the stage, however far the canvas is zoomed. */
    const at = ({ clientX, clientY }) => {
      const { left, top, width } = stage.getBoundingClientRect();
      const canvas = width / stage.clientWidth || 1;
      return [(clientX - left) / canvas, (clientY - top) / canvas];
    };
    const full = () => Math.max(2, after.naturalWidth / stage.clientWidth || 2);

    range.addEventListener("input", () => move(Number(range.value)));
    range.addEventListener("keydown", (event) => {
      event.stopPropagation();
      const [x, y] = [(position * stage.clientWidth) / 100, stage.clientHeight / 2];
      if (event.key === "+") zoom(view.scale * 1.5, x, y);
      if (event.key === "-") zoom(view.scale / 1.5, x, y);
      if (event.key === "0") zoom(1, x, y);
    });

    /** @type {{x: number, y: number} | null} */
    let drag = null; // {x, y} of the view at its start where the picture is moved
    /** @type {number[]} */
    let earlier = []; // where the divider was before the last presses
    const fingers = new Map(); // where each pointer that is down was last, in pixels of the stage

    /** Two fingers: the picture follows both. */
    function pinch(event) {
      const [one, other] = fingers.keys();
      const still = fingers.get(event.pointerId === one ? other : one);
      const before = fingers.get(event.pointerId);
      const now = at(event);
      const apart = (point) => Math.hypot(point[0] - still[0], point[1] - still[1]) || 1;
      view.x += (now[0] - before[0]) / 2;
      view.y += (now[1] - before[1]) / 2;
      const middle = now.map((value, axis) => (value + still[axis]) / 2);
      zoom((view.scale * apart(now)) / apart(before), middle[0], middle[1]);
    }
    const lift = (event) => fingers.delete(event.pointerId);
    stage.addEventListener("pointerup", lift);
    stage.addEventListener("pointercancel", lift);
    stage.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || event.target.closest(".gfp-chip")) return;
      event.preventDefault(); // no text is selected, and the range keeps the focus
      stage.setPointerCapture(event.pointerId);
      range.focus({ preventScroll: true });
      const [x, y] = at(event);
      fingers.set(event.pointerId, [x, y]);
      if (fingers.size > 1) return;
      earlier = [...earlier, position].slice(-2);
      const near = Math.abs(x - (position * stage.clientWidth) / 100) < GRIP;
      drag = view.scale > 1 && !near ? { x: x - view.x, y: y - view.y } : null;
      if (!drag) move((100 * x) / stage.clientWidth);
    });
    stage.addEventListener("pointermove", (event) => {
      if (!stage.hasPointerCapture(event.pointerId)) return;
      if (fingers.size > 1) {
        if (fingers.size === 2) pinch(event);
        fingers.set(event.pointerId, at(event));
        return;
      }
      const [x, y] = at(event);
      fingers.set(event.pointerId, [x, y]);
      if (!drag) return move((100 * x) / stage.clientWidth);
      [view.x, view.y] = [x - drag.x, y - drag.y];
      show();
    });
    stage.addEventListener("dblclick", (event) => {
      if (event.target.closest(".gfp-chip")) return;
      move(earlier[0] ?? position);
      zoom(view.scale > 1 ? 1 : full(), ...at(event));
    });
    // The wheel zooms the picture once it was clicked, and with Ctrl or two fingers at once; else it
    // is the canvas's.
    stage.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey && !stage.contains(document.activeElement)) return;
        event.preventDefault();
        event.stopPropagation();
        zoom(view.scale * Math.exp(-event.deltaY / (event.ctrlKey ? 100 : 400)), ...at(event));
      },
      { passive: false },
    );

    stage.classList.add("gfp-compare");
    stage.append(
      layer,
      range,
      element("div", { className: "gfp-divider" }),
      element("span", { className: "gfp-tag gfp-tag-before", textContent: say("before") }),
      element("span", { className: "gfp-tag gfp-tag-after", textContent: say("after") }),
    );
    drawFaces?.(frame, { layer, bar });
    const url = pictureUrl(frame.after);
    const link = (className, text, title, more) =>
      element("a", { className, textContent: text, title, href: url, ...more });
    bar.append(
      element(
        "span",
        { className: "gfp-buttons" },
        link("gfp-open", "⤢", say("open"), { target: "_blank" }),
        link("gfp-save", "⤓", say("save"), { download: frame.after.filename }),
      ),
    );
    requestAnimationFrame(show);
    show();
  }

  addPanel(node, "gfp_compare", { empty: "runToCompare", draw, keep: ["gfp_report"] });
}

app.registerExtension({
  name: "gfp.compare",
  nodeCreated(node) {
    if (["GFPRestorePhoto", "GFPPasteBack"].includes(node.comfyClass)) addCompare(node);
  },
});
