import kernels from "../../backends/wasm/kernels.wasm?url";
import singleKernels from "../../backends/wasm/kernels-single.wasm?url";
import type { Backend } from "../../core/backend.ts";
import { createOracleBackend } from "../../core/oracle/group.ts";
import { WORKLOADS } from "../../core/routing/generate.ts";
import type { Dataset } from "../model/dataset.ts";
import { text } from "../model/numbers.ts";
import { type RunRequest, type RunResult, runOnce } from "../model/run.ts";
import type { Table } from "../model/table.ts";
import { button, el } from "./dom.ts";
import { pagedTable } from "./table.ts";

const FIELDS: readonly (readonly [keyof RunRequest & string, string, number, number, number])[] = [
  ["numRanks", "Ranks", 8, 1, 64],
  ["numNodes", "Nodes", 2, 1, 64],
  ["numExperts", "Experts", 32, 1, 1024],
  ["topk", "Experts per token", 4, 1, 64],
  ["tokensPerRank", "Tokens per rank", 64, 0, 4096],
  ["hidden", "Hidden size", 256, 1, 8192],
  ["padMultiple", "Pad blocks to a multiple of", 16, 1, 1024],
  ["seed", "Seed", 1, 0, 1_000_000],
];

/** The backends that run in a page, best first. */
const LOADERS: readonly (readonly [name: string, load: () => Promise<Backend>])[] = [
  ["webgpu", async () => (await import("../../backends/webgpu/browser.ts")).createWebGpuBackend()],
  [
    "wasm",
    async () => {
      const { createWasmBackend } = await import("../../backends/wasm/browser.ts");
      return createWasmBackend({ kernelUrl: (name) => (name === "kernels.wasm" ? kernels : singleKernels) });
    },
  ],
  ["oracle", async () => createOracleBackend()],
];

/** A small dispatch and combine in the page, checked against the oracle and opened in the views. */
export function runForm(open: (dataset: Dataset) => void, announce: (message: string) => void): HTMLElement {
  const form = el("form", { class: "run" });
  const inputs = new Map<string, HTMLInputElement | HTMLSelectElement>();
  const field = (name: string, label: string, input: HTMLInputElement | HTMLSelectElement) => {
    inputs.set(name, input);
    form.append(el("label", {}, label, input));
  };
  const options = (...values: string[]) => values.map((value) => el("option", { value }, value));
  field("backend", "Backend", el("select", {}, ...options("best available", ...LOADERS.map(([name]) => name))));
  field("style", "Style", el("select", {}, ...options("fused", "hybrid-ep")));
  field("workload", "Routing", el("select", {}, ...options(...WORKLOADS.keys())));
  for (const [name, label, value, min, max] of FIELDS) {
    field(name, label, el("input", { type: "number", value, min, max, step: 1, required: true }));
  }
  const submit = el("button", { type: "submit" }, "Run");
  const output = el("div", { "aria-live": "polite" });
  form.append(el("div", { class: "tools" }, submit));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    submit.disabled = true;
    output.replaceChildren(el("p", {}, "Running..."));
    try {
      const value = (name: string) => inputs.get(name)?.value ?? "";
      const request = {
        ...Object.fromEntries(FIELDS.map(([name]) => [name, Number(value(name))])),
        style: value("style"),
        workload: value("workload"),
      } as unknown as RunRequest;
      const { backend, tried } = await chooseBackend(value("backend"));
      const result = await runOnce(backend, request).finally(() => backend.close());
      output.replaceChildren(...report(result, tried, open));
      announce(result.verdict);
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      output.replaceChildren(el("div", { class: "alert", role: "alert" }, el("p", {}, message)));
    } finally {
      submit.disabled = false;
    }
  });
  return el("div", {}, form, output);
}

async function chooseBackend(wanted: string): Promise<{ backend: Backend; tried: string[] }> {
  const tried: string[] = [];
  for (const [name, load] of LOADERS) {
    if (wanted !== "best available" && wanted !== name) continue;
    try {
      return { backend: await load(), tried };
    } catch (error) {
      const reason = `${name}: ${error instanceof Error ? error.message : String(error)}`;
      if (wanted === name) throw error;
      tried.push(reason);
    }
  }
  throw new Error(`no backend could run: ${tried.join("; ")}`);
}

function report(result: RunResult, tried: readonly string[], open: (dataset: Dataset) => void): (Node | string)[] {
  const table: Table = {
    title: "Run",
    columns: ["output", "ranks", "bytes", "bytes that differ from the oracle"],
    rows: result.checks.map((check) => [check.name, check.numRanks, check.numBytes, check.numDifferent]),
    numKeys: 1,
  };
  return [
    el("p", { class: "verdict", "data-ok": String(result.ok) }, `${result.ok ? "\u2713" : "\u26a0"} ${result.verdict}`),
    el(
      "p",
      { class: "note" },
      `${text(result.numRows)} rows. Times are this page's clock around each call, all ranks together.`,
    ),
    ...tried.map((reason) => el("p", { class: "note" }, `Not used: ${reason}`)),
    pagedTable(table),
    el(
      "div",
      { class: "tools" },
      button("Open in the views", () => open(result.dataset)),
    ),
  ];
}
