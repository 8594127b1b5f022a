/** `el("button", { class: "x", onclick: f }, "text", child)`: how the page makes its elements. */
export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Readonly<Record<string, unknown>> = {},
  ...children: readonly (Node | string)[]
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

/** Puts an element at a place of its positioned parent, in pixels. */
export function placeAt({ style }: HTMLElement, ...box: readonly [x: number, y: number, w: number, h: number]): void {
  [style.left, style.top, style.width, style.height] = box.map((v) => `${v}px`);
}

export function download(name: string, content: Blob): void {
  const link = el("a", { href: URL.createObjectURL(content), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
