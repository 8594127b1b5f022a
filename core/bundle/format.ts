/**
 * The failure bundle: what one process of a group knew when an operation failed, in one safetensors file that
 * `fused-a2a verify` replays on one machine. docs/formats.md is this in prose.
 */
import type { DispatchSettings } from "../backend.ts";
import type { RowDType } from "../dtype/dtype.ts";
import type { ErrorCode, Wait } from "../errors.ts";
import type { HandleKind } from "../handle/handle.ts";
import type { SafetensorsEntry } from "../io/safetensors/index.ts";
import type { GroupShape } from "../layout/routing.ts";
import type { Tensor } from "../tensor.ts";

export const BUNDLE_FORMAT = "fused-a2a-bundle";
export const BUNDLE_VERSION = "1";

export const BUNDLE_OPERATIONS = ["dispatch", "cached dispatch", "combine"] as const;
export type BundleOperation = (typeof BUNDLE_OPERATIONS)[number];

/** How the rows of the run were made, where that is known: the same rows can then be made again. */
export interface BundleRows {
  readonly seed: number;
  readonly layer: number;
  /** Dtype of the dispatched rows: fp8e4m3 comes back to the combine as bf16. */
  readonly dtype: RowDType;
}

export interface BundleHeader {
  /** "fused-a2a 0.1.0" */
  readonly producer: string;
  /** Where the routing came from, for people; empty when not known. */
  readonly source: string;
  readonly operation: BundleOperation;
  /** Counts the operations of a group from 0, the same on every process. */
  readonly sequence: number;
  readonly code: ErrorCode;
  readonly message: string;
  /** The error's table of what was outstanding. */
  readonly waits: readonly Wait[];
  /** Identity of the group: equal in the bundles of one group, in no others. */
  readonly group: string;
  readonly process: number;
  readonly numProcesses: number;
  readonly shape: GroupShape;
  readonly localRanks: readonly number[];
  readonly topk: number;
  readonly hidden: number;
  readonly dtype: RowDType;
  readonly style: HandleKind;
  readonly settings: Omit<DispatchSettings, "numExperts">;
  readonly rows: BundleRows | null;
  /** What could not be had, and why: "handle: the device does not answer". */
  readonly missing: readonly string[];
}

/** One rank's routing in index form. */
export interface BundleRouting {
  /** [tokens, topk] */
  readonly topkIdx: Tensor<"i32">;
  readonly topkWeights: Tensor<"fp32"> | null;
}

export interface Bundle {
  readonly header: BundleHeader;
  /** By rank: the local ranks', or those of all ranks. */
  readonly routing: ReadonlyMap<number, BundleRouting>;
  /** `rank{r}.handle.NAME` as encodeHandle names them, as they lie in the file: not checked. Empty without a handle. */
  readonly handle: ReadonlyMap<string, Tensor>;
}

/** Settings in the metadata, and their names in DispatchSettings. */
export const SETTING_KEYS = {
  expert_alignment: "expertAlignment",
  num_worst_tokens: "numWorstTokens",
  pad_multiple: "padMultiple",
} as const;

export function encodeBundle(bundle: Bundle): { metadata: Record<string, string>; entries: SafetensorsEntry[] } {
  const { header } = bundle;
  const { shape, settings, rows } = header;
  const metadata: Record<string, string> = {
    format: BUNDLE_FORMAT,
    version: BUNDLE_VERSION,
    producer: header.producer,
    source: header.source,
    operation: header.operation,
    sequence: `${header.sequence}`,
    code: header.code,
    message: header.message,
    waits: JSON.stringify(header.waits),
    group: header.group,
    process: `${header.process}`,
    num_processes: `${header.numProcesses}`,
    num_ranks: `${shape.numRanks}`,
    ranks_per_node: `${shape.ranksPerNode}`,
    num_experts: `${shape.numExperts}`,
    local_ranks: JSON.stringify(header.localRanks),
    topk: `${header.topk}`,
    hidden: `${header.hidden}`,
    dtype: header.dtype,
    style: header.style,
    missing: JSON.stringify(header.missing),
  };
  for (const [key, name] of Object.entries(SETTING_KEYS)) metadata[key] = `${settings[name]}`;
  if (settings.numPermutedTokens !== null) metadata.num_permuted_tokens = `${settings.numPermutedTokens}`;
  if (rows !== null) {
    metadata.rows_seed = `${rows.seed}`;
    metadata.rows_layer = `${rows.layer}`;
    metadata.rows_dtype = rows.dtype;
  }
  const entries = [...bundle.handle].map(([name, tensor]) => ({ name, tensor }));
  for (const [rank, { topkIdx, topkWeights }] of bundle.routing) {
    entries.push({ name: `rank${rank}.topk_idx`, tensor: topkIdx });
    if (topkWeights !== null) entries.push({ name: `rank${rank}.topk_weights`, tensor: topkWeights });
  }
  return { metadata, entries };
}
