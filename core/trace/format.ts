/**
 * The trace: where every token went, and how long it took, over (step, layer) chunks, in one safetensors file that is
 * read lazily: the summary tensors come first, so that a first picture needs no token. docs/trace.md is this in prose.
 */
import type { DispatchSettings, Phase } from "../backend.ts";
import type { DType } from "../dtype/dtype.ts";
import { DTYPES } from "../dtype/dtype.ts";
import { InvalidFile } from "../errors.ts";
import type { HandleKind } from "../handle/handle.ts";
import { checkShape } from "../layout/routing.ts";

export const TRACE_FORMAT = "fused-a2a-trace";
export const TRACE_VERSION = "1";

/** Dense rank x rank summaries stop here; above, traffic is computed from a chunk when it is looked at. */
export const MAX_SUMMARY_CELLS = 8 << 20;

/** Columns of `summary.totals`. A row is one (token, destination rank): what fused dispatch sends. */
export const TOTALS = ["tokens", "empty_slots", "slots", "remote_slots", "rows", "remote_rows"] as const;
/** Columns of `summary.buffer_rows`: used + padding + tail = the rows of a rank's output; cut = slots that did not fit. */
export const BUFFER_ROWS = ["used", "padding", "tail", "cut"] as const;
/** Columns of `phases` (int64): times are whole nanoseconds, `name` indexes `__metadata__.phase_names`. */
export const PHASE_COLUMNS = ["rank", "name", "start_ns", "duration_ns", "waiting"] as const;

export interface TraceHeader {
  /** What wrote it, shown to people: "fused-a2a 0.1.0 run --backend wasm". */
  readonly producer: string;
  /** Whether the phase times were measured, come from the cost model, or there are none. */
  readonly clock: "measured" | "modelled" | "none";
  readonly numSteps: number;
  readonly numLayers: number;
  readonly numRanks: number;
  readonly ranksPerNode: number;
  /** Physical experts: what ids in topkIdx mean. */
  readonly numExperts: number;
  readonly topk: number;
  readonly hidden: number;
  readonly dtype: DType;
  /** Bytes of one row as it crosses a link: hidden, plus scales where there are any. */
  readonly rowBytes: number;
  /** Which dispatch: fixes what a buffer row is (design 2.3, 2.5). */
  readonly style: HandleKind;
  readonly settings: Omit<DispatchSettings, "numExperts">;
  /** Tokens per rank when every chunk has the same (checked against the chunks); leave it out for ragged steps. */
  readonly numTokens?: readonly number[];
  /** [numExperts] logical expert of each physical one (EPLB replicas): one map, or one per layer. */
  readonly physicalToLogical?: readonly (readonly number[])[];
}

/** One (step, layer). Row positions and overflow are not stored: they follow from the routing and the settings. */
export interface TraceChunk {
  /** Per rank [tokens, topk] expert ids, -1 = no choice. */
  readonly topkIdx: readonly Int32Array[];
  /** Per rank [tokens, topk]; null when only the movement is known. All chunks of a trace agree. */
  readonly topkWeights: readonly Float32Array[] | null;
  readonly phases: readonly Phase[];
  /** [numRanks, numRanks] how long row r waited for column s, in microseconds. All chunks of a trace agree. */
  readonly waitUs?: Float32Array | null;
}

const HEADER_KEY = "header";

export function encodeMetadata(header: TraceHeader, phaseNames: readonly string[]): Record<string, string> {
  return {
    format: TRACE_FORMAT,
    version: TRACE_VERSION,
    producer: header.producer,
    [HEADER_KEY]: JSON.stringify(header),
    phase_names: JSON.stringify(phaseNames),
    totals_columns: TOTALS.join(","),
    buffer_rows_columns: BUFFER_ROWS.join(","),
    phases_columns: PHASE_COLUMNS.join(","),
  };
}

/** Throws InvalidFile for a file that is no trace, a version this program does not know, or a damaged header. */
export function decodeMetadata(
  metadata: Readonly<Record<string, string>>,
  file: string,
): { header: TraceHeader; phaseNames: string[] } {
  const bad = (name: string, expected: string, received: string, remedy: string) =>
    new InvalidFile({ name, expected, received, where: { file }, remedy });
  if (metadata.format !== TRACE_FORMAT) {
    throw bad("__metadata__.format", TRACE_FORMAT, metadata.format ?? "none", "open a file that run --trace wrote");
  }
  if (metadata.version !== TRACE_VERSION) {
    throw bad("__metadata__.version", TRACE_VERSION, metadata.version ?? "none", "update fused-a2a or write it again");
  }
  let header: TraceHeader;
  let phaseNames: string[];
  try {
    header = JSON.parse(metadata[HEADER_KEY] ?? "");
    phaseNames = JSON.parse(metadata.phase_names ?? "");
  } catch (error) {
    throw bad("__metadata__.header", "JSON", `${(error as Error).message}`, "the file is damaged: write it again");
  }
  if (!Array.isArray(phaseNames)) {
    throw bad("__metadata__.phase_names", "a JSON list", typeof phaseNames, "the file is damaged: write it again");
  }
  checkHeader(header, (name, expected, received) =>
    bad(`__metadata__.header.${name}`, expected, received, "the file is damaged: write it again"),
  );
  return { header, phaseNames };
}

/** Throws what `bad` makes (or InvalidArgument for the shape of the group) unless the header's fields are legal. */
export function checkHeader(
  header: TraceHeader,
  bad: (name: string, expected: string, received: string) => Error,
): void {
  if (header === null || typeof header !== "object") throw bad("header", "an object", typeof header);
  for (const name of ["numSteps", "numLayers", "topk", "hidden", "rowBytes"] as const) {
    if (!Number.isSafeInteger(header[name]) || header[name] < 1) {
      throw bad(name, "a whole number of at least 1", `${header[name]}`);
    }
  }
  checkShape(header);
  if (header.style !== "fused" && header.style !== "hybrid-ep") throw bad("style", "fused or hybrid-ep", header.style);
  if (!["measured", "modelled", "none"].includes(header.clock)) {
    throw bad("clock", "measured, modelled or none", `${header.clock}`);
  }
  if (!DTYPES.includes(header.dtype)) throw bad("dtype", DTYPES.join(", "), `${header.dtype}`);
  if (header.settings === null || typeof header.settings !== "object") {
    throw bad("settings", "an object", typeof header.settings);
  }
  const maps = header.physicalToLogical;
  if (maps !== undefined && maps.length !== 1 && maps.length !== header.numLayers) {
    throw bad("physicalToLogical", `1 or ${header.numLayers} maps (numLayers)`, `${maps.length}`);
  }
  for (const map of maps ?? []) {
    if (map.length !== header.numExperts) {
      throw bad("physicalToLogical", `${header.numExperts} entries (numExperts)`, `${map.length}`);
    }
  }
}
