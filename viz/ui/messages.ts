import { button, el } from "./dom.ts";
import type { Part } from "./page.ts";
import type { Store } from "./store.ts";

/** The last error, until it is dismissed. */
export function alertBox(store: Store): Part {
  const element = el("div");
  const render = () => {
    const { error, files } = store;
    element.replaceChildren();
    if (!error) return;
    const kept = files.a ? ` ${files.a.name} stays open.` : "";
    const diagnostics = () =>
      void navigator.clipboard?.writeText(
        `${error.name}: ${error.message}\n${error.stack ?? ""}\n${navigator.userAgent}\n${location.href}`,
      );
    element.append(
      el(
        "div",
        { class: "alert", role: "alert" },
        el("p", {}, `${error.message}.${kept}`),
        button("Copy diagnostics", diagnostics),
        button("Dismiss", () => store.dismiss()),
      ),
    );
  };
  return { element, render };
}

/** What is being read, how far it is, and a way to stop it. */
export function loadingBox(store: Store): Part {
  const element = el("div");
  const render = () => {
    const { busy } = store;
    element.replaceChildren();
    if (!busy) return;
    const percent = Math.round(busy.fraction * 100);
    element.append(
      el(
        "div",
        { class: "loading", role: "status" },
        el("progress", { max: "100", value: percent, "aria-label": busy.label }),
        el("span", {}, `${busy.label} (${percent} %)`),
        button("Cancel", busy.cancel),
      ),
    );
  };
  return { element, render };
}
