// The before/after slider of GFPRestorePhoto and GFPPasteBack.
import { app } from "../../../scripts/app.js";
import { addPanel, element, picture } from "./panel.js";
import { say } from "./strings.js";

function addCompare(node) {
  let position = 50; // percent of the width that shows before; the same for every frame

  function draw(frame, { stage, fit, gone }) {
    const before = picture(frame.before, say("before"), gone);
    const after = picture(frame.after, say("after"), gone);
    before.className = "gfp-before";
    // The result may be larger; both fill the same box, which has the result's shape.
    after.addEventListener("load", () => fit(after.naturalWidth / after.naturalHeight));
    const range = element("input", {
      type: "range",
      min: 0,
      max: 100,
      step: 1,
      value: position,
      attributes: { "aria-label": say("slider") },
    });
    const move = (to) => {
      position = Math.min(100, Math.max(0, to));
      range.value = position;
      stage.style.setProperty("--position", `${position}%`);
    };
    range.addEventListener("input", () => move(Number(range.value)));
    range.addEventListener("keydown", (event) => event.stopPropagation());

    const follow = ({ clientX }) => {
      const { left, width } = stage.getBoundingClientRect();
      move((100 * (clientX - left)) / width);
    };
    stage.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault(); // no text is selected, and the range keeps the focus
      stage.setPointerCapture(event.pointerId);
      range.focus({ preventScroll: true });
      follow(event);
    });
    stage.addEventListener("pointermove", (event) => {
      if (stage.hasPointerCapture(event.pointerId)) follow(event);
    });

    stage.classList.add("gfp-compare");
    stage.append(
      after,
      before,
      range,
      element("div", { className: "gfp-divider" }),
      element("span", { className: "gfp-tag gfp-tag-before", textContent: say("before") }),
      element("span", { className: "gfp-tag gfp-tag-after", textContent: say("after") }),
    );
    move(position);
  }

  addPanel(node, "gfp_compare", { empty: "queueToCompare", draw });
}

app.registerExtension({
  name: "gfp.compare",
  nodeCreated(node) {
    if (["GFPRestorePhoto", "GFPPasteBack"].includes(node.comfyClass)) addCompare(node);
  },
});
