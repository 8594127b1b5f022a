/** What `run` and `verify` work on: routing from a file or a workload, rows from a seed, settings from the options. */
import { type Command, InvalidArgumentError, Option } from "commander";
import { ranksPerNodeOf } from "../backends/cuda/cluster/index.ts";
import type { BundleNotes } from "../backends/cuda/options.ts";
import { BACKEND_NAMES } from "../backends/index.ts";
import type { DispatchSettings } from "../core/backend.ts";
import type { RowDType, SumDType } from "../core/dtype/dtype.ts";
import { InvalidArgument } from "../core/errors.ts";
import type { HandleKind } from "../core/handle/handle.ts";
import { checkShape, type GroupShape } from "../core/layout/routing.ts";
import { generateRouting, WORKLOADS } from "../core/routing/generate.ts";
import { openRouting, splitRanks } from "../core/routing/import/index.ts";
import { type Tensor, tensor } from "../core/tensor.ts";
import { addClusterOptions, type ClusterFlags, placeOf } from "./cluster.ts";
import { openFile } from "./files.ts";
import { randomRows } from "./rows.ts";

export interface JobOptions extends ClusterFlags {
  readonly backend: string;
  readonly ranks: number;
  readonly ranksPerNode?: number;
  readonly workload: string;
  readonly tokens: number;
  readonly experts?: number;
  readonly topk: number;
  readonly layer?: number;
  readonly hidden: number;
  readonly dtype: RowDType;
  readonly style: HandleKind;
  readonly seed: number;
  readonly padMultiple: number;
  readonly expertAlignment: number;
  readonly numWorstTokens: number;
  readonly numPermutedTokens?: number;
  readonly workers?: number;
}

export interface JobLayer {
  readonly index: number;
  readonly name: string;
  /** Per rank [tokens, topk]. */
  readonly topkIdx: readonly Tensor<"i32">[];
  readonly topkWeights: readonly Tensor<"fp32">[];
}

export interface Job {
  readonly source: string;
  readonly shape: GroupShape;
  readonly topk: number;
  readonly hidden: number;
  readonly dtype: RowDType;
  readonly style: HandleKind;
  readonly settings: DispatchSettings;
  /** Most tokens of any layer, all ranks together. */
  readonly maxTokens: number;
  /** Which layers of the source to run. */
  readonly layers: readonly number[];
  layer(index: number): Promise<JobLayer>;
  /** [tokens, hidden] per rank: bf16 where the job dispatches fp8 (it is cast first), else the job's dtype. */
  rows(layer: JobLayer): Tensor[];
  /** What a failure bundle should know of the layer that was made last. */
  notes(): BundleNotes;
  close(): Promise<void>;
}

/** A whole number of at least `least`, for commander. */
export function whole(least: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (Number.isSafeInteger(value) && value >= least && text.trim() !== "") return value;
    throw new InvalidArgumentError(`Expected a whole number of at least ${least}.`);
  };
}

export const ROUTING_ARGUMENT = "routing file (safetensors, npy, or a dump that `convert` knows); none: a workload";

export function addJobOptions(command: Command): Command {
  const withJob = command
    .option("--backend <name>", `${BACKEND_NAMES.join(", ")}; default: cuda where there is a GPU, else wasm`, "auto")
    .option("--ranks <n>", "ranks of the group", whole(1), 8)
    .option("--ranks-per-node <n>", "ranks of one NVLink domain (default: all)", whole(1))
    .option("--workload <name>", [...WORKLOADS.keys()].join(", "), "realistic")
    .option("--tokens <n>", "tokens per rank of a workload", whole(0), 1024)
    .option("--experts <n>", "experts (default: 256 for a workload, else what the file says)", whole(1))
    .option("--topk <n>", "slots per token of a workload", whole(1), 8)
    .option("--layer <i>", "only this layer of a file (default: all)", whole(0))
    .option("--hidden <n>", "columns of a row", whole(1), 2048)
    .addOption(
      new Option("--dtype <d>", "dtype of the rows").choices(["bf16", "fp16", "fp32", "fp8e4m3"]).default("bf16"),
    )
    .addOption(
      new Option("--style <s>", "fused: one row per (token, rank); hybrid-ep: expert-major")
        .choices(["fused", "hybrid-ep"])
        .default("fused"),
    )
    .option("--seed <n>", "seed of workload and rows", whole(0), 1)
    .option("--pad-multiple <n>", "hybrid-ep: pads each expert's block", whole(0), 1)
    .option("--expert-alignment <n>", "fused: rounds the per-expert counts", whole(0), 1)
    .option("--num-worst-tokens <n>", "fused: fixed number of recv rows", whole(0), 0)
    .option("--num-permuted-tokens <n>", "hybrid-ep: fixed number of permuted rows", whole(0))
    .option("--workers <n>", "wasm: worker threads (default: one per core)", whole(0));
  return addClusterOptions(withJob, whole);
}

/** Opens the routing and checks that it fits the group. Throws InvalidArgument and InvalidFile. */
export async function openJob(path: string | undefined, options: JobOptions): Promise<Job> {
  const routing = path === undefined ? workloadLayers(options) : await fileLayers(path, options);
  const shape = {
    numRanks: options.ranks,
    ranksPerNode: options.ranksPerNode ?? ranksPerHost(options),
    numExperts: routing.numExperts,
  };
  checkShape(shape);
  let made: JobLayer | null = null;
  const { dtype, seed, hidden } = options;
  return {
    ...routing,
    layer: async (index) => {
      made = await routing.layer(index);
      return made;
    },
    notes: () =>
      made === null
        ? { source: routing.source }
        : { source: routing.source, routing: made, rows: { seed, dtype, layer: made.index } },
    shape,
    hidden,
    dtype,
    style: options.style,
    settings: {
      numExperts: shape.numExperts,
      expertAlignment: options.expertAlignment,
      numWorstTokens: options.numWorstTokens,
      padMultiple: options.padMultiple,
      numPermutedTokens: options.numPermutedTokens ?? null,
    },
    rows: (layer) => seededRows(layer, dtype, hidden, seed),
  };
}

/** Rows of a layer, the same for the same seed and layer whatever the routing: fp8 rows are cast from bf16 ones. */
export function seededRows(layer: JobLayer, dtype: RowDType, hidden: number, seed: number): Tensor[] {
  const made = dtype === "fp8e4m3" ? "bf16" : (dtype as SumDType);
  return layer.topkIdx.map((ids, rank) =>
    randomRows(made, ids.shape[0], hidden, seed * 1_000_003 + layer.index * 4099 + rank),
  );
}

/** What the processes of one host drive together. */
function ranksPerHost(options: JobOptions): number {
  const place = placeOf(options, options.backend);
  return place === null ? options.ranks : ranksPerNodeOf(place, options.ranks);
}

type Layers = Pick<Job, "source" | "topk" | "maxTokens" | "layers" | "layer" | "close"> & {
  readonly numExperts: number;
};

function workloadLayers(options: JobOptions): Layers {
  const numExperts = options.experts ?? 256;
  const { workload, seed, ranks, tokens, topk, ranksPerNode } = options;
  const layer = async (index: number): Promise<JobLayer> => {
    const request = {
      workload,
      seed,
      numRanks: ranks,
      numTokens: tokens,
      numExperts,
      topk,
      ranksPerNode,
      layer: index,
    };
    const made = generateRouting(request);
    return {
      index,
      name: `${index}`,
      topkIdx: made.map((rank) => rank.topkIdx),
      topkWeights: made.map((rank) => rank.topkWeights ?? evenWeights(rank.topkIdx)),
    };
  };
  const layers = [options.layer ?? 0];
  return {
    source: `workload ${workload}, seed ${seed}`,
    topk,
    numExperts,
    maxTokens: ranks * tokens,
    layers,
    layer,
    close: async () => {},
  };
}

async function fileLayers(path: string, options: JobOptions): Promise<Layers> {
  const file = await openRouting(
    await openFile(path),
    options.experts === undefined ? {} : { numExperts: options.experts },
  );
  const all = Array.from({ length: file.numLayers }, (_, index) => index);
  if (options.layer !== undefined && options.layer >= file.numLayers) {
    throw new InvalidArgument({
      name: "layer",
      expected: `0..${file.numLayers - 1}`,
      received: `${options.layer}`,
      where: { file: path },
      remedy: "choose a layer the file has",
    });
  }
  return {
    source: `${path} (${file.format})`,
    topk: file.topk,
    numExperts: file.numExperts,
    maxTokens: file.numTokens,
    layers: options.layer === undefined ? all : [options.layer],
    layer: async (index) => {
      const ranks = splitRanks(await file.layer(index), options.ranks);
      return {
        index,
        name: file.layerNames[index],
        topkIdx: ranks.map((rank) => rank.topkIdx),
        topkWeights: ranks.map((rank) => rank.topkWeights ?? evenWeights(rank.topkIdx)),
      };
    },
    close: () => file.close(),
  };
}

/** 1/topk for every choice: files of ids alone have no weights. */
export function evenWeights(topkIdx: Tensor<"i32">): Tensor<"fp32"> {
  const weight = Math.fround(1 / topkIdx.shape[1]);
  return tensor(
    "fp32",
    topkIdx.shape,
    Float32Array.from(topkIdx.data, (expert) => (expert < 0 ? 0 : weight)),
  );
}
