type Attributes = Readonly<Record<string, unknown>>;
type Children = readonly (Node | string)[];

/** `el("button", { class: "x", onclick: f }, "text", child)`: how the page makes its elements. */
export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Children
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value as EventListener);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children);
  return node;
}

/** A button that does `act` when it is pressed. */
export function button(
  label: string,
  act: () => void,
  attributes: Attributes = {},
  ...children: Children
): HTMLButtonElement {
  return el("button", { type: "button", ...attributes, onclick: act }, label, ...children);
}

/** Puts an element at a place of its positioned parent, in pixels. */
export function placeAt({ style }: HTMLElement, ...box: readonly [x: number, y: number, w: number, h: number]): void {
  [style.left, style.top, style.width, style.height] = box.map((v) => `${v}px`);
}

export function download(name: string, content: Blob): void {
  const link = el("a", { href: URL.createObjectURL(content), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
