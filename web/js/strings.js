// What the page says, in the language of ComfyUI's settings.
import { app } from "../../../scripts/app.js";

const STRINGS = {
  en: {
    previous: "Previous frame",
    next: "Next frame",
    frame: "Frame {0} of {1}",
    gone: "The preview is no longer there. Queue again to see it.",
    queueForFaces: "Queue once to see the faces.",
    queueToCompare: "Queue once to compare before and after.",
    noFace: "No face found. A lower score or a smaller minimum size finds more.",
    faces: "Faces of the picture",
    face: "Face {0}, score {1}, {2} × {3} pixels",
    chosen: "{0} of {1} chosen",
    all: "All",
    none: "None",
    everyFrame: "The choice holds for every frame.",
    linked: "Another node makes the choice.",
    unreadable: "“{0}” is not a choice; click a face to start anew.",
    before: "Before",
    after: "After",
    slider: "Share of the picture that shows before",
  },
  de: {
    previous: "Voriges Bild",
    next: "Nächstes Bild",
    frame: "Bild {0} von {1}",
    gone: "Die Vorschau ist nicht mehr da. Ein neuer Lauf zeigt sie wieder.",
    queueForFaces: "Nach einem Lauf erscheinen hier die Gesichter.",
    queueToCompare: "Nach einem Lauf erscheint hier der Vergleich von vorher und nachher.",
    noFace: "Kein Gesicht gefunden. Ein niedrigerer Score oder eine kleinere Mindestgröße findet mehr.",
    faces: "Gesichter des Bildes",
    face: "Gesicht {0}, Score {1}, {2} × {3} Pixel",
    chosen: "{0} von {1} gewählt",
    all: "Alle",
    none: "Keins",
    everyFrame: "Die Wahl gilt für jedes Bild.",
    linked: "Ein anderer Node trifft die Wahl.",
    unreadable: "„{0}“ ist keine Wahl; ein Klick auf ein Gesicht beginnt neu.",
    before: "Vorher",
    after: "Nachher",
    slider: "Anteil des Bildes, der das Vorher zeigt",
  },
};

/** The string of a key, {0}, {1} ... replaced by the values. */
export function say(key, ...values) {
  const locale = app.ui.settings.getSettingValue("Comfy.Locale") ?? "en";
  const strings = STRINGS[locale.split("-")[0]] ?? STRINGS.en;
  return strings[key].replace(/\{(\d)\}/g, (_, index) => values[index]);
}
