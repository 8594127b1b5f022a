import { InvalidArgument } from "../errors.ts";

export type Operation = "dispatch" | "combine";
export type Mode = "throughput" | "low-latency";

/**
 * HBM passes that a path cannot hide behind the link (docs/cost-model.md, section 7). r = ranks hit per token, k = slots.
 *   none          0
 *   fill          rows with several local experts read once more, their further slots written
 *   copy          2 r      staged, then copied row by row
 *   expand        r + k    staged, then written to every expert slot
 *   final-reduce  r + 1    rows lie in staging, one pass sums them
 *   pre-reduce    k + r    expert slots summed into rows before anything is sent
 */
export type ExposedPass = "none" | "fill" | "copy" | "expand" | "final-reduce" | "pre-reduce";

/** How a library moves rows: presets of one model, so that a difference between two of them has a reason. */
export interface DataPath {
  readonly name: string;
  readonly title: string;
  readonly mode: Mode;
  /** What an SM moves rows with: 16-byte loads and stores through ring queues, or bulk copies (TMA). */
  readonly engine: "load-store" | "bulk";
  /** Who starts a transfer across NVLink, per operation: documentation, the model treats both alike. */
  readonly direction: { readonly dispatch: "push" | "pull"; readonly combine: "push" | "pull" };
  /** Rows per (token, destination rank), or one message per (token, expert). */
  readonly dedup: "rank" | "none";
  /**
   * Across nodes: "rail" sends one row per (token, node) to the same local rank there and forwards over NVLink;
   * "direct" sends every row (or message) straight to its destination rank.
   */
  readonly crossNode: "rail" | "direct";
  /**
   * How the network hop and the NVLink hop overlap: "queued" (per-row queues: fully), "chunked" (chunk by chunk: the
   * parameter chunkedHopLoss says how much of the shorter hop shows), "serial" (one after the other).
   */
  readonly overlap: "queued" | "chunked" | "serial";
  readonly epilogue: { readonly dispatch: ExposedPass; readonly combine: ExposedPass };
  /** An all-gather of the bool routing map precedes dispatch (R T E bytes). */
  readonly gathersRoutingMap: boolean;
  readonly defaultSms: number;
  readonly source: string;
}

export const DATA_PATHS: readonly DataPath[] = [
  {
    name: "fused-a2a",
    title: "this project: rows straight to their final slots, local fill; push combine",
    mode: "throughput",
    engine: "bulk",
    direction: { dispatch: "push", combine: "push" },
    dedup: "rank",
    crossNode: "rail",
    overlap: "chunked",
    epilogue: { dispatch: "fill", combine: "final-reduce" },
    gathersRoutingMap: false,
    defaultSms: 24,
    source: "docs/cost-model.md section 7",
  },
  {
    name: "fused-a2a-ll",
    title: "this project, low latency: one message per (token, expert)",
    mode: "low-latency",
    engine: "bulk",
    direction: { dispatch: "push", combine: "push" },
    dedup: "none",
    crossNode: "direct",
    overlap: "queued",
    epilogue: { dispatch: "none", combine: "none" },
    gathersRoutingMap: false,
    defaultSms: 0,
    source: "docs/cost-model.md section 6",
  },
  {
    name: "deepep-v1",
    title: "DeepEP V1 and UCCL-EP, normal kernels: ring queues",
    mode: "throughput",
    engine: "load-store",
    direction: { dispatch: "push", combine: "push" },
    dedup: "rank",
    crossNode: "rail",
    overlap: "queued",
    epilogue: { dispatch: "none", combine: "none" },
    gathersRoutingMap: false,
    defaultSms: 24,
    source: "DeepEP csrc/kernels/legacy/intranode.cu, internode.cu",
  },
  {
    name: "deepep-v2",
    title: "DeepEP V2 elastic: bulk stores into fixed buffers, then a copy or reduce kernel",
    mode: "throughput",
    engine: "bulk",
    direction: { dispatch: "push", combine: "push" },
    dedup: "rank",
    crossNode: "rail",
    overlap: "queued",
    epilogue: { dispatch: "copy", combine: "final-reduce" },
    gathersRoutingMap: false,
    defaultSms: 24,
    source: "DeepEP deep_ep/include/deep_ep/impls",
  },
  {
    name: "hybrid-ep",
    title: "HybridEP: chunked bulk-copy pipeline, copies around it",
    mode: "throughput",
    engine: "bulk",
    direction: { dispatch: "push", combine: "pull" },
    dedup: "rank",
    crossNode: "rail",
    overlap: "chunked",
    epilogue: { dispatch: "copy", combine: "copy" },
    gathersRoutingMap: true,
    defaultSms: 16,
    source: "DeepEP hybrid-ep branch, csrc/hybrid_ep/backend",
  },
  {
    name: "nccl-ep",
    title: "NCCL-EP, high throughput, flat layout",
    mode: "throughput",
    engine: "bulk",
    direction: { dispatch: "push", combine: "pull" },
    dedup: "rank",
    crossNode: "rail",
    overlap: "chunked",
    epilogue: { dispatch: "copy", combine: "none" },
    gathersRoutingMap: false,
    defaultSms: 16,
    source: "nccl contrib/nccl_ep",
  },
  {
    name: "deepep-ll",
    title: "DeepEP V1 low latency: one message per (token, expert)",
    mode: "low-latency",
    engine: "load-store",
    direction: { dispatch: "push", combine: "push" },
    dedup: "none",
    crossNode: "direct",
    overlap: "queued",
    epilogue: { dispatch: "none", combine: "none" },
    gathersRoutingMap: false,
    defaultSms: 0,
    source: "DeepEP csrc/kernels/legacy/internode_ll.cu",
  },
  {
    name: "nccl-ep-ll",
    title: "NCCL-EP low latency: one message per (token, expert)",
    mode: "low-latency",
    engine: "bulk",
    direction: { dispatch: "push", combine: "push" },
    dedup: "none",
    crossNode: "direct",
    overlap: "queued",
    epilogue: { dispatch: "none", combine: "none" },
    gathersRoutingMap: false,
    defaultSms: 0,
    source: "nccl contrib/nccl_ep",
  },
  {
    name: "alltoallv",
    title: "plain all-to-all: one row per (token, destination rank), no dedup per node",
    mode: "throughput",
    engine: "bulk",
    direction: { dispatch: "push", combine: "push" },
    dedup: "rank",
    crossNode: "direct",
    overlap: "queued",
    epilogue: { dispatch: "expand", combine: "pre-reduce" },
    gathersRoutingMap: false,
    defaultSms: 16,
    source: "permute, NCCL all-to-all, unpermute",
  },
  {
    name: "rail-serial",
    title: "rail-aligned as fused-a2a, but the network hop ends before the NVLink hop starts",
    mode: "throughput",
    engine: "bulk",
    direction: { dispatch: "push", combine: "push" },
    dedup: "rank",
    crossNode: "rail",
    overlap: "serial",
    epilogue: { dispatch: "fill", combine: "final-reduce" },
    gathersRoutingMap: false,
    defaultSms: 24,
    source: "docs/cost-model.md section 5",
  },
];

/** The data path of that name. Throws InvalidArgument that lists the names. */
export function dataPath(name: string): DataPath {
  const found = DATA_PATHS.find((path) => path.name === name);
  if (found) return found;
  throw new InvalidArgument({
    name: "path",
    expected: DATA_PATHS.map((path) => path.name).join(", "),
    received: name,
    remedy: "name one of these",
  });
}
