/** Every way a file comes into the page: the address, a sample, the disk, a drop, the page around this one. */
import { memorySource } from "../../core/io/bytes.ts";
import { SAMPLES, type SampleName } from "../model/sample-names.ts";
import { el } from "./dom.ts";
import { blobSource, urlSource } from "./sources.ts";
import type { Side, Store } from "./store.ts";

/** Opens what the address names and is not open yet. */
export async function openFromAddress(store: Store): Promise<void> {
  const params = new URLSearchParams(location.hash.slice(1));
  const sides = [
    ["a", "url", "sample"],
    ["b", "url2", "sample2"],
  ] as const;
  for (const [side, url, sample] of sides) {
    const address = params.get(url);
    const name = params.get(sample);
    const open = store.origins[side]?.link ?? null;
    if (open === urlLink(address ?? "") || open === `sample=${name}`) continue;
    if (address !== null) await openUrl(store, side, address);
    else if (name !== null && name in SAMPLES) await openSample(store, side, name as SampleName);
  }
}

function urlLink(url: string): string {
  return `url=${encodeURIComponent(url)}`;
}

function openUrl(store: Store, side: Side, url: string): Promise<boolean> {
  return store.open(side, { open: (options) => urlSource(url, options), link: urlLink(url) }, `Reading ${url}`);
}

export function openSample(store: Store, side: Side, name: SampleName): Promise<boolean> {
  const open = async () => {
    const { sampleTrace } = await import("../model/sample.ts");
    return memorySource(await sampleTrace(name), `sample ${name}`);
  };
  return store.open(side, { open, link: `sample=${name}` }, "Making the sample");
}

/** Two files at once become A and B. */
async function openFiles(store: Store, files: readonly File[], side: Side): Promise<void> {
  const sides: Side[] = [side, "b"];
  for (const [i, file] of files.slice(0, side === "a" ? 2 : 1).entries()) {
    const { name } = file;
    await store.open(sides[i], { open: async () => blobSource(file, name), link: null }, `Reading ${name}`);
  }
}

/** Lets the reader choose from the disk. */
export function chooseFile(store: Store, side: Side): void {
  const input = el("input", { type: "file", multiple: side === "a" });
  input.addEventListener("change", () => void openFiles(store, [...(input.files ?? [])], side));
  input.click();
}

export function acceptDrops(store: Store): void {
  const drop = (event: DragEvent, over: boolean) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    document.documentElement.classList.toggle("dropping", over);
  };
  window.addEventListener("dragover", (event) => drop(event, true));
  window.addEventListener("dragleave", (event) => drop(event, false));
  window.addEventListener("drop", (event) => {
    drop(event, false);
    const files = [...(event.dataTransfer?.files ?? [])];
    // With Shift the file is put beside the open one.
    if (files.length > 0) void openFiles(store, files, event.shiftKey && store.files.a ? "b" : "a");
  });
}

/** For pages that embed the viewer: PING is answered, {open: ArrayBuffer, name} from the embedding page is opened. */
export function acceptMessages(store: Store): void {
  window.addEventListener("message", (event) => {
    if (event.source === null || event.source !== window.parent || window.parent === window) return;
    if (event.data === "PING") window.parent.postMessage("PONG", event.origin);
    const { open, name = "embedded file" } = (event.data ?? {}) as { open?: unknown; name?: string };
    if (open instanceof ArrayBuffer) {
      const source = async () => memorySource(new Uint8Array(open), String(name));
      void store.open("a", { open: source, link: null }, `Reading ${name}`);
    }
  });
}
