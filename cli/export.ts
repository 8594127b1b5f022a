import { extname } from "node:path";
import { Command, Option } from "commander";
import { FusedA2AError, InvalidArgument, Unavailable } from "../core/errors.ts";
import { type Dataset, type Frame, loadFrame } from "../viz/model/dataset.ts";
import { openDataset } from "../viz/model/open.ts";
import { fromHash, type ViewId, type ViewState } from "../viz/model/state.ts";
import { toCsv } from "../viz/model/table.ts";
import { type Content, comparison, contentOf, contentSvg } from "../viz/views/content.ts";
import { VIEWS } from "../viz/views/index.ts";
import { DARK, LIGHT, type Theme } from "../viz/views/theme.ts";
import { openFile, writeFileWith } from "./files.ts";
import { printResult } from "./output.ts";
import { progressBar } from "./progress.ts";

interface ExportOptions {
  readonly view: Exclude<ViewId, "run">;
  readonly output: string;
  readonly step: string;
  readonly layer: string;
  readonly width: string;
  readonly theme: "light" | "dark";
  readonly state: string;
  readonly ranks?: string;
  readonly nodes?: string;
  readonly json?: boolean;
}

const HELP = `
The picture is the viewer's own, with title, axes and legend; the CSV holds the same numbers in full. --state takes what the
viewer writes behind the # of its address: selections and options, e.g. "metric=bytes&src=0-3" or "unit=rank&padding=1".
With a second file the output shows both and B - A.

  fused-a2a export t.safetensors --view traffic -o traffic.svg
  fused-a2a export a.safetensors b.safetensors --view load --layer 3 -o load.csv`;

export function exportView(): Command {
  return new Command("export")
    .description("save a view of a trace, routing or handle file as SVG, PNG or CSV, without a browser")
    .argument("<file>", "trace, routing or handle file")
    .argument("[file2]", "second file, to compare with")
    .addOption(
      new Option("--view <name>", "what to save").choices([...Object.keys(VIEWS), "compare"]).default("overview"),
    )
    .requiredOption("-o, --output <file>", "where to: the ending says .svg, .png or .csv")
    .option("--step <n>", "step", "0")
    .option("--layer <n>", "layer", "0")
    .option("--width <px>", "width of the picture", "1100")
    .addOption(new Option("--theme <name>", "colours").choices(["light", "dark"]).default("light"))
    .option("--state <text>", "selections and options as in the viewer's address", "")
    .option("--ranks <n>", "ranks a routing file is laid on")
    .option("--nodes <n>", "nodes those ranks are in")
    .option("--json", "print what was written as JSON")
    .addHelpText("after", HELP)
    .action(run);
}

async function run(first: string, second: string | undefined, options: ExportOptions): Promise<void> {
  const format = extname(options.output).slice(1).toLowerCase();
  if (!["svg", "png", "csv"].includes(format)) {
    const problem = { name: "--output", expected: "a name ending in .svg, .png or .csv", received: options.output };
    throw new InvalidArgument({ ...problem, remedy: "choose one of them" });
  }
  if (options.view === "compare" && second === undefined) {
    const problem = { name: "file2", expected: "a second file for --view compare", received: "none" };
    throw new InvalidArgument({ ...problem, remedy: "give two files" });
  }
  const width = wholeNumber("--width", options.width, 200, 8000);
  const theme = options.theme === "dark" ? DARK : LIGHT;
  const state = stateOf(options);
  const bar = progressBar("reading");
  const datasets: Dataset[] = [];
  try {
    for (const path of second === undefined ? [first] : [first, second]) {
      const progress = (fraction: number) => bar.update(fraction);
      datasets.push(await openDataset(await openFile(path), { placement: state.placement, progress }));
    }
    const content = await contentFor(datasets, state, theme);
    const bytes = await encode(content, format, width, theme);
    bar.done();
    await writeFileWith(options.output, (sink) => sink.write(bytes));
    const { title, description } = content;
    const result = { output: options.output, view: state.view, format, bytes: bytes.length, title, description };
    printResult(
      result,
      () => `${title}\n${description}\nwrote ${options.output} (${bytes.length} bytes)`,
      options.json,
    );
  } finally {
    bar.done();
    for (const dataset of datasets) await dataset.close();
  }
}

function stateOf(options: ExportOptions): ViewState {
  const state = fromHash(options.state);
  const { placement } = state;
  const ranks = options.ranks === undefined ? placement.ranks : wholeNumber("--ranks", options.ranks, 1, 4096);
  const nodes = options.nodes === undefined ? placement.nodes : wholeNumber("--nodes", options.nodes, 1, ranks);
  if (ranks % nodes !== 0) {
    const problem = { name: "--nodes", expected: `a divisor of ${ranks} ranks`, received: `${nodes}` };
    throw new InvalidArgument({ ...problem, remedy: "every node holds the same number of ranks" });
  }
  const [step, layer] = [wholeNumber("--step", options.step, 0, 1e9), wholeNumber("--layer", options.layer, 0, 1e9)];
  // A step or layer in --state counts unless the option says otherwise.
  return {
    ...state,
    view: options.view,
    step: step || state.step,
    layer: layer || state.layer,
    placement: { ...placement, ranks, nodes },
  };
}

async function contentFor(datasets: readonly Dataset[], state: ViewState, theme: Theme): Promise<Content> {
  for (const { header, name } of datasets) {
    for (const [what, value, count] of [
      ["--step", state.step, header.numSteps],
      ["--layer", state.layer, header.numLayers],
    ] as const) {
      if (value < count) continue;
      const problem = { name: what, expected: `0..${count - 1}`, received: `${value}`, where: { file: name } };
      throw new InvalidArgument({ ...problem, remedy: "choose one the file has" });
    }
  }
  const frames: Frame[] = [];
  for (const dataset of datasets) {
    const view = state.view === "compare" || state.view === "run" ? null : VIEWS[state.view];
    frames.push(await loadFrame(dataset, state.step, state.layer, view === null || view.needsChunk(state, dataset)));
  }
  const [a, b = null] = frames;
  if (b !== null && state.view === "compare") return comparison({ a, b }, state, theme);
  return contentOf(VIEWS[state.view as keyof typeof VIEWS], { a, b }, state, theme);
}

async function encode(content: Content, format: string, width: number, theme: Theme): Promise<Uint8Array> {
  if (format === "csv") return new TextEncoder().encode(toCsv(content.table()));
  const svg = await contentSvg(content, width, theme);
  return format === "svg" ? new TextEncoder().encode(svg) : drawPng(svg);
}

/** The SVG at twice its size, drawn with the fonts of this machine. */
async function drawPng(svg: string): Promise<Uint8Array> {
  const resvg = await import("@resvg/resvg-js").catch((error: unknown) => {
    throw new Unavailable(
      {
        name: "png",
        expected: "the optional package @resvg/resvg-js",
        received: error instanceof Error ? error.message.split("\n")[0] : String(error),
        remedy: "npm install @resvg/resvg-js, or save .svg and convert it",
      },
      { cause: error },
    );
  });
  try {
    const font = { loadSystemFonts: true, defaultFontFamily: "Liberation Sans", sansSerifFamily: "Liberation Sans" };
    return new resvg.Resvg(svg, { font, fitTo: { mode: "zoom", value: 2 } }).render().asPng();
  } catch (error) {
    if (error instanceof FusedA2AError) throw error;
    throw new Unavailable(`png: ${error instanceof Error ? error.message : error}; save .svg instead`, {
      cause: error,
    });
  }
}

function wholeNumber(name: string, text: string, least: number, most: number): number {
  const value = Number(text);
  if (/^\d{1,10}$/.test(text) && value >= least && value <= most) return value;
  const problem = { name, expected: `a whole number in ${least}..${most}`, received: text };
  throw new InvalidArgument({ ...problem, remedy: "correct the option" });
}
