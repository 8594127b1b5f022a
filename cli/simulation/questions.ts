import { InvalidArgument } from "../../core/errors.ts";
import {
  contiguousPlacement,
  countLayer,
  DATA_PATHS,
  type Diagnosis,
  describeBottleneck,
  diagnose,
  FITTED,
  findDeadlock,
  MACHINE_FIELDS,
  MACHINE_SCHEMA,
  MACHINES,
  PARAMETER_NAMES,
  PARAMETERS,
  phaseOperation,
  SCENARIOS,
  type ScalingPoint,
  scaling,
  usualFaults,
  whatIf,
} from "../../core/topology/index.ts";
import { openTrace } from "../../core/trace/read.ts";
import { openFile } from "../files.ts";
import { formatBytes, printResult, table } from "../output.ts";
import { progressBar } from "../progress.ts";
import {
  badOption,
  generatedOptions,
  groupSize,
  numPhysicalExperts,
  openSource,
  readMachine,
  readParameters,
  readSetup,
  type SimulateOptions,
  whole,
} from "./options.ts";
import { us } from "./report.ts";

/** `--scaling`: one workload on growing groups. */
export async function runScaling(options: SimulateOptions): Promise<void> {
  const machine = await readMachine(options);
  const sizes = scalingSizes(options.scaling ?? "");
  const ranksPerNode = options.ranksPerNode
    ? whole("ranks-per-node", options.ranksPerNode)
    : machine.ranksPerDomain.value;
  for (const size of sizes)
    groupSize({ ...options, ranks: `${size}`, ranksPerNode: `${Math.min(size, ranksPerNode)}` }, machine, size);
  const setup = await readSetup(options, machine, { numRanks: sizes[0], ranksPerNode });
  const bar = progressBar("counting");
  const points = await scaling(sizes, { ...generatedOptions(options), ranksPerNode }, setup, (fraction, ranks) =>
    bar.update(fraction, `counting ${ranks} ranks`),
  );
  bar.done();
  const rows = points.map((point) => ({
    ...scalingRow(point),
    efficiency: points[0].prediction.timeUs / point.prediction.timeUs,
  }));
  printResult(
    { machine: machine.name, path: setup.path.name, points: rows },
    () =>
      table([
        [
          "ranks",
          "nodes",
          "experts",
          "dispatch us",
          "combine us",
          "NVLink/rank",
          "NIC/rank",
          "dispatch bound by",
          "combine bound by",
          "against first",
        ],
        ...rows.map((row) => [
          row.numRanks,
          row.numNodes,
          row.numPhysical,
          us(row.dispatchUs),
          us(row.combineUs),
          formatBytes(row.nvlinkBytes),
          formatBytes(row.nicBytes),
          row.dispatchBound,
          row.combineBound,
          `${(1 / row.efficiency).toFixed(2)}x`,
        ]),
      ]),
    options.json,
  );
}

function scalingSizes(text: string): number[] {
  const [, from, to] = /^(\d+)\.\.(\d+)$/.exec(text) ?? [];
  if (from === undefined) return text.split(",").map((part) => whole("scaling", part));
  const sizes: number[] = [];
  for (let size = whole("scaling", from); size <= Number(to); size *= 2) sizes.push(size);
  if (sizes.length === 0) throw badOption("scaling", "sizes such as 8..2048 or 8,16", text);
  return sizes;
}

function scalingRow({ numRanks, numNodes, numPhysical, prediction }: ScalingPoint) {
  const [dispatch, combine] = prediction.phases;
  const most = (values: Float64Array) => Math.round(values.reduce((a, b) => Math.max(a, b), 0));
  return {
    numRanks,
    numNodes,
    numPhysical,
    dispatchUs: dispatch.timeUs,
    combineUs: combine.timeUs,
    nvlinkBytes: most(dispatch.nvlinkInBytes),
    nicBytes: most(dispatch.nicInBytes),
    dispatchBound: describeBottleneck(dispatch),
    combineBound: describeBottleneck(combine),
  };
}

/** `--what-if`: the healthy dispatch against one culprit at a time. */
export async function runWhatIf(routing: string | undefined, options: SimulateOptions): Promise<void> {
  const machine = await readMachine(options);
  const { source, group, close } = await openSource(routing, options, machine);
  try {
    const setup = await readSetup(options, machine, group);
    const culprit =
      typeof options.whatIf === "string" ? whole("what-if", options.whatIf, 0) : Math.min(3, group.numRanks - 1);
    if (culprit >= group.numRanks) throw badOption("what-if", `a rank 0..${group.numRanks - 1}`, `${culprit}`);
    const placement = contiguousPlacement(source.numExperts, numPhysicalExperts(options, source.numExperts), group);
    const counter = await countLayer(source, 0, 0, placement, { choice: options.replicaChoice, keepPairs: true });
    const { operation } = phaseOperation("dispatch");
    const input = { ...setup, counter, operation, numChunks: whole("chunks", options.chunks) };
    const { healthy, cases } = whatIf(input, (healthyUs) => usualFaults(counter, healthyUs, culprit));
    printResult(
      {
        healthyUs: healthy.timeUs,
        cases: cases.map((c) => ({ ...c, result: { timeUs: c.result.timeUs, waitUs: c.result.waitUs } })),
      },
      () =>
        [
          `dispatch of ${group.numRanks} ranks on ${machine.title}, ${setup.path.name}: ${us(healthy.timeUs)} us when all is well (chunk by chunk, main kernel)`,
          table([
            ["what if", "us", "against healthy", "the wait matrix says"],
            ...cases.map((c) => [c.fault, us(c.result.timeUs), `${c.ratio.toFixed(2)}x`, c.diagnosis.words[0]]),
          ]),
          ...(group.numRanks > MAX_MATRIX
            ? []
            : cases.map((c) => `\n${c.fault}\n${waitTable(c.result.waitUs, group.numRanks)}`)),
        ].join("\n"),
      options.json,
    );
  } finally {
    await close();
  }
}

/** Larger wait matrices are for the viewer. */
const MAX_MATRIX = 16;

function waitTable(waitUs: Float32Array, numRanks: number): string {
  const ranks = Array.from({ length: numRanks }, (_, r) => r);
  const rows = ranks.map((r) => [`${r}`, ...ranks.map((s) => (r === s ? "-" : us(waitUs[r * numRanks + s])))]);
  return table([["us, row waits for", ...ranks.map((r) => `${r}`)], ...rows]);
}

/** `--diagnose`: the wait matrices of a trace, measured or modelled. Exit code 1 when something stands out. */
export async function runDiagnose(options: SimulateOptions): Promise<void> {
  const path = options.diagnose ?? "";
  const trace = await openTrace(await openFile(path));
  try {
    const { header } = trace;
    if (!trace.hasWaits) {
      throw new InvalidArgument({
        name: "trace",
        expected: "wait matrices (wait_us)",
        received: "a trace without",
        where: { file: path },
        remedy: "record waits with `run --trace`, or simulate with --events --trace",
      });
    }
    const found: { step: number; layer: number; diagnosis: Diagnosis }[] = [];
    for (let step = 0; step < header.numSteps; step++) {
      for (let layer = 0; layer < header.numLayers; layer++) {
        const { waitUs } = await trace.chunk(step, layer);
        if (waitUs) found.push({ step, layer, diagnosis: diagnose(waitUs, header) });
      }
    }
    if (found.some(({ diagnosis }) => diagnosis.findings.length > 0)) process.exitCode = 1;
    printResult(
      { file: path, clock: header.clock, chunks: found },
      () =>
        found
          .flatMap(({ step, layer, diagnosis }) =>
            diagnosis.words.map((words) => `step ${step}, layer ${layer}: ${words}`),
          )
          .join("\n"),
      options.json,
    );
  } finally {
    await trace.close();
  }
}

/** `--deadlock`: a group's calls without data, until they end or nothing moves. Exit code 1 when they do not complete. */
export function runDeadlock(options: SimulateOptions): void {
  const scenario = SCENARIOS.find(({ name }) => name === options.deadlock) ?? SCENARIOS[0];
  const numRanks = options.ranks === undefined ? 8 : whole("ranks", options.ranks, 2);
  const odd = Math.min(3, numRanks - 1);
  const report = findDeadlock(scenario.make(numRanks, odd));
  if (!report.completes) process.exitCode = 1;
  printResult(
    { scenario: scenario.name, title: scenario.title, expected: scenario.expected, ...report },
    () =>
      [
        `${scenario.name}: ${scenario.title} (rank ${odd})`,
        ...(report.blocked.length === 0
          ? []
          : [
              table([
                ["rank", "call", "communicator", "number", "state", "waits for ranks"],
                ...report.blocked.map((b) => [
                  `${b.rank}`,
                  b.op,
                  b.communicator,
                  `${b.sequence}`,
                  b.state,
                  b.waitsFor.join(" "),
                ]),
              ]),
            ]),
        `${report.completes ? "completes" : "hangs"}: ${report.words.join("; ")}`,
      ].join("\n"),
    options.json,
  );
}

/** `--machines`, `--machine-schema`, `--paths`, `--parameters-table`. */
export async function runLists(options: SimulateOptions): Promise<void> {
  if (options.machineSchema)
    return printResult(MACHINE_SCHEMA, () => JSON.stringify(MACHINE_SCHEMA, null, 2), options.json);
  if (options.machines) {
    const text = () =>
      MACHINES.map((machine) => {
        const rows = MACHINE_FIELDS.map((field) => [`  ${field}`, `${machine[field].value}`, machine[field].source]);
        return `${machine.name}: ${machine.title} (${machine.family})\n${table([["  number", "value", "source"], ...rows])}`;
      }).join("\n\n");
    return printResult(MACHINES, text, options.json);
  }
  if (options.paths) {
    const rows = DATA_PATHS.map((path) => [
      path.name,
      path.mode,
      path.engine,
      path.dedup === "none" ? "slot" : "rank",
      path.crossNode,
      path.overlap,
      `${path.epilogue.dispatch} / ${path.epilogue.combine}`,
      path.title,
    ]);
    const header = ["path", "mode", "engine", "row per", "across nodes", "hops", "epilogue d / c", "what"];
    return printResult(DATA_PATHS, () => table([header, ...rows]), options.json);
  }
  const values = await readParameters(options);
  const rows = PARAMETER_NAMES.map((name) => {
    const { unit, prior, spread, fitted, meaning } = PARAMETERS[name];
    const known = fitted ? `${prior} x/ ${Math.exp(spread).toFixed(2)}` : `${prior} (fixed)`;
    return [name, Number(values[name].toPrecision(4)), unit, known, meaning];
  });
  printResult(
    { fitted: FITTED, values, parameters: PARAMETERS },
    () =>
      `${options.parameters ?? `fit of ${FITTED.date}, ${FITTED.numFigures} figures, rows of table \`${FITTED.table}\``}\n${table([["parameter", "value", "unit", "known before", "meaning"], ...rows])}`,
    options.json,
  );
}
