import { uniformTraffic } from "./closedForm.ts";
import { operationCost, type RowKind, type Scope } from "./cost.ts";
import { parseCsv, tableError } from "./csv.ts";
import { type DataPath, dataPath, type Operation } from "./dataPath.ts";
import type { Machine } from "./machine.ts";
import { findMachine, withNic } from "./machinePresets.ts";
import type { Parameters } from "./parameters.ts";
import type { Traffic } from "./traffic.ts";

/** Which bytes a printed bandwidth counts (docs/cost-model.md, section 2); "time" when microseconds were printed. */
export type Definition = "nvlink" | "rdma" | "messages" | "wire-nvlink" | "wire-nic" | "time";

/** One published number: a bandwidth or a time of one operation of one system. */
export interface Figure {
  /** Row of the table, 1 = the first below the header. */
  readonly row: number;
  readonly system: string;
  readonly label: string;
  readonly machine: Machine;
  readonly path: DataPath;
  readonly operation: Operation;
  readonly rowKind: RowKind;
  readonly scope: Scope;
  readonly definition: Definition;
  /** GB/s, or microseconds when the definition is "time". */
  readonly value: number;
  readonly hidden: number;
  readonly topk: number;
  readonly numExperts: number;
  readonly numSms: number;
  readonly traffic: Traffic;
  /** "fit", "hold" or a reason to set the row aside; "" when the table does not say. */
  readonly use: string;
}

const NEEDED = ["system", "gpu", "ranks", "nodes", "tokens", "hidden", "topk"] as const;

/** The figures of a table of published rows. Throws InvalidFile that names the row for what it cannot read. */
export function readFigures(text: string, file: string): Figure[] {
  const figures: Figure[] = [];
  const seen = new Set<string>();
  parseCsv(text, file).forEach((cells, i) => {
    const row = i + 1;
    for (const name of NEEDED) {
      if (!cells[name])
        throw tableError(file, row, `a value in column ${name}`, name in cells ? "nothing" : "no such column");
    }
    for (const figure of rowFigures(cells, row, file)) {
      // Tables repeat a combine figure beside every dispatch dtype; it is one measurement.
      const { system, gpu, nic, ranks, nodes, tokens, hidden, topk, experts, sms } = cells;
      const key = [system, gpu, nic, ranks, nodes, tokens, hidden, topk, experts, sms, figure.operation, figure.value];
      if (figure.operation === "combine" && seen.has(key.join("|"))) continue;
      seen.add(key.join("|"));
      figures.push(figure);
    }
  });
  return figures;
}

function rowFigures(cells: Record<string, string>, row: number, file: string): Figure[] {
  const whole = (name: string, fallback?: number): number => {
    if (!cells[name] && fallback !== undefined) return fallback;
    const value = Number(cells[name]);
    if (Number.isSafeInteger(value) && value >= 1) return value;
    throw tableError(file, row, `a whole number in column ${name}`, cells[name] || "nothing");
  };
  const numRanks = whole("ranks");
  const nodes = whole("nodes");
  if (numRanks % nodes !== 0) throw tableError(file, row, "ranks divisible by nodes", `${numRanks} and ${nodes}`);
  const path = pathOf(cells, file, row);
  const machine = machineOf(cells, nodes, file, row);
  const topk = whole("topk");
  const numExperts = whole("experts", 256);
  if (topk > numExperts) throw tableError(file, row, `topk up to ${numExperts} (experts)`, `${topk}`);
  const nodeLimit = /top-(\d+) groups/.exec(cells.notes ?? "")?.[1];
  const traffic = uniformTraffic({
    numRanks,
    ranksPerNode: numRanks / nodes,
    numTokens: whole("tokens"),
    topk,
    numExperts,
    nodeLimit: nodeLimit === undefined ? undefined : Number(nodeLimit),
  });
  const common = {
    row,
    system: cells.system,
    machine,
    path,
    scope: scopeOf(cells, path),
    hidden: whole("hidden"),
    topk,
    numExperts,
    numSms: path.mode === "low-latency" ? 0 : whole("sms", path.defaultSms),
    traffic,
    use: cells.use ?? "",
  };
  const operations: Figure[] = [];
  for (const operation of ["dispatch", "combine"] as const) {
    const us = cells[`${operation}_us`];
    const gbps = cells[`${operation}_GBps`];
    if (!us && !gbps) continue;
    const value = Number(us || gbps);
    if (!(value > 0)) throw tableError(file, row, `a number above 0 for ${operation}`, us || gbps);
    const rowKind = operation === "combine" ? "bf16" : kindOf(cells.dtype_dispatch, file, row);
    const definition = us ? "time" : definitionOf(cells.bandwidth_definition ?? "", path, nodes);
    const label = `${cells.system} ${cells.gpu} EP${numRanks}${nodes > 1 ? ` (${nodes} nodes)` : ""} ${rowKind} ${operation}${common.numSms ? `, ${common.numSms} SMs` : ""}, ${common.scope}`;
    operations.push({ ...common, operation, rowKind, definition, value, label });
  }
  return operations;
}

function kindOf(text: string | undefined, file: string, row: number): RowKind {
  if (!text || /fp8|e4m3/i.test(text)) return "fp8";
  if (/bf16|fp16/i.test(text)) return "bf16";
  throw tableError(file, row, "fp8 or bf16 in column dtype_dispatch", text);
}

function pathOf(cells: Record<string, string>, file: string, row: number): DataPath {
  if (cells.path) return dataPath(cells.path);
  const system = cells.system;
  const low = /low.?latency|\bLL\b/i.test(`${system} ${cells.bandwidth_definition ?? ""}`);
  if (/nccl/i.test(system)) return dataPath(low ? "nccl-ep-ll" : "nccl-ep");
  if (/hybrid/i.test(system)) return dataPath("hybrid-ep");
  if (/fused-a2a/i.test(system)) return dataPath(low ? "fused-a2a-ll" : "fused-a2a");
  if (low) return dataPath("deepep-ll");
  if (/v2|elastic/i.test(system)) return dataPath("deepep-v2");
  if (/deepep|uccl/i.test(system)) return dataPath("deepep-v1");
  throw tableError(file, row, "a system named DeepEP, UCCL, HybridEP, NCCL-EP or fused-a2a, or a column path", system);
}

function machineOf(cells: Record<string, string>, nodes: number, file: string, row: number): Machine {
  const machine = findMachine(cells.gpu);
  if (!machine) throw tableError(file, row, "a known GPU in column gpu", cells.gpu);
  const nic = cells.nic ?? "";
  const gbps = /(?:(\d+)\s*x\s*)?(\d+)\s*Gb/i.exec(nic);
  if (gbps) return withNic(machine, Number(gbps[1] ?? 1) * Number(gbps[2]));
  if (/cx-?8/i.test(nic)) return withNic(machine, 800);
  if (nodes > 1 && /none/i.test(nic)) throw tableError(file, row, "a NIC for several nodes", nic);
  return machine;
}

function scopeOf(cells: Record<string, string>, path: DataPath): Scope {
  const text = `${cells.system} ${cells.bandwidth_definition ?? ""} ${cells.notes ?? ""}`;
  if (/main kernel|kernel only|only kernel/i.test(text)) return "main";
  if (/\bAPI\b|payload|end.to.end/i.test(text)) return "call";
  return path.name === "hybrid-ep" ? "main" : "kernels";
}

function definitionOf(text: string, path: DataPath, nodes: number): Definition {
  if (/wire|busbw/i.test(text) && !/wire\s*=/i.test(text)) return nodes > 1 ? "wire-nic" : "wire-nvlink";
  if (/logical rdma/i.test(text)) return "rdma";
  if (/logical nvlink|payload/i.test(text)) return "nvlink";
  if (path.mode === "low-latency") return "messages";
  if (/rdma/i.test(text)) return "rdma";
  if (/nvlink/i.test(text)) return "nvlink";
  return nodes > 1 ? "rdma" : "nvlink";
}

/** What the model says, in the unit that was printed. */
export function predictFigure(figure: Figure, parameters: Parameters): number {
  const cost = operationCost({ ...figure, parameters, explains: false });
  const perUs = (bytes: number) => bytes / cost.timeUs / 1e3;
  switch (figure.definition) {
    case "time":
      return cost.timeUs;
    case "nvlink":
      return perUs(cost.logical.nvlink);
    case "rdma":
      return perUs(cost.logical.rdma);
    case "messages":
      return perUs(cost.logical.messages);
    case "wire-nvlink":
      return perUs(cost.nvlinkInBytes[0]);
    case "wire-nic":
      return perUs(cost.nicInBytes[0]);
  }
}

/** predicted / published - 1, in the printed unit. */
export function figureError(figure: Figure, parameters: Parameters): number {
  return predictFigure(figure, parameters) / figure.value - 1;
}

export interface ErrorSummary {
  readonly count: number;
  readonly median: number;
  readonly mean: number;
  readonly worst: number;
}

/** Count, median, mean and maximum of |error|. */
export function summarizeErrors(errors: readonly number[]): ErrorSummary {
  if (errors.length === 0) return { count: 0, median: Number.NaN, mean: Number.NaN, worst: Number.NaN };
  const sorted = errors.map(Math.abs).sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return {
    count: sorted.length,
    median: sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2,
    mean: sorted.reduce((sum, e) => sum + e, 0) / sorted.length,
    worst: sorted[sorted.length - 1],
  };
}
