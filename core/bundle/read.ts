import { ROW_DTYPES, type RowDType } from "../dtype/dtype.ts";
import { type ErrorCode, FusedA2AError, InvalidFile, type Wait } from "../errors.ts";
import type { ByteSource } from "../io/bytes.ts";
import { openSafetensors, type SafetensorsFile } from "../io/safetensors/index.ts";
import { checkShape, rankRouting } from "../layout/routing.ts";
import type { Tensor } from "../tensor.ts";
import {
  BUNDLE_FORMAT,
  BUNDLE_OPERATIONS,
  BUNDLE_VERSION,
  type Bundle,
  type BundleHeader,
  type BundleOperation,
  type BundleRouting,
  type BundleRows,
} from "./format.ts";

const CODES: readonly ErrorCode[] = ["TIMEOUT", "BACKEND_FAILURE", "CONTRACT_MISMATCH"];

/** Whether the metadata of a safetensors file is a bundle's, of whatever version. */
export function isBundle(metadata: Readonly<Record<string, string>>): boolean {
  return metadata.format === BUNDLE_FORMAT;
}

/** Throws InvalidFile for a bundle of a version that this program does not know. */
export function checkBundleVersion(file: string, metadata: Readonly<Record<string, string>>): void {
  if (metadata.version === BUNDLE_VERSION) return;
  const received = metadata.version ?? "none";
  throw invalid(file, "version", BUNDLE_VERSION, received, "read it with the fused-a2a that wrote it");
}

/**
 * Reads a bundle and closes the source. Throws InvalidFile naming the file and the field for another format or version,
 * damaged metadata, or routing of the wrong form; the handle's arrays are taken as they are: whoever replays compares them.
 */
export async function readBundle(source: ByteSource): Promise<Bundle> {
  const file = await openSafetensors(source);
  try {
    if (!isBundle(file.metadata)) {
      const received = file.metadata.format ?? "none";
      throw invalid(file.name, "format", BUNDLE_FORMAT, received, "give a file that a failed operation wrote");
    }
    checkBundleVersion(file.name, file.metadata);
    const header = new Fields(file).header();
    const handle = new Map<string, Tensor>();
    const routing = new Map<number, BundleRouting>();
    for (const name of file.tensors.keys()) {
      const [, rank, what] = /^rank(\d+)\.(.*)$/.exec(name) ?? [];
      if (what?.startsWith("handle.")) handle.set(name, await file.read(name));
      if (what === "topk_idx") routing.set(Number(rank), await readRouting(file, header, Number(rank)));
    }
    return { header, routing: new Map([...routing].sort(([a], [b]) => a - b)), handle };
  } finally {
    await file.close();
  }
}

async function readRouting(file: SafetensorsFile, header: BundleHeader, rank: number): Promise<BundleRouting> {
  const { numRanks, numExperts } = header.shape;
  const name = `rank${rank}.topk_idx`;
  if (rank >= numRanks) {
    throw new InvalidFile({
      name,
      expected: `ranks 0..${numRanks - 1}`,
      received: `rank ${rank}`,
      where: { file: file.name },
      remedy: DAMAGED,
    });
  }
  const weightsName = `rank${rank}.topk_weights`;
  const ids = await file.read(name);
  const weights = file.tensors.has(weightsName) ? await file.read(weightsName) : null;
  try {
    rankRouting(rank, ids, weights, numExperts);
  } catch (error) {
    if (!(error instanceof FusedA2AError) || error.problem === undefined) throw error;
    const where = { ...error.problem.where, file: file.name };
    throw new InvalidFile({ ...error.problem, name, where, remedy: DAMAGED });
  }
  const topkIdx =
    ids.dtype === "i32"
      ? (ids as Tensor<"i32">)
      : { dtype: "i32" as const, shape: ids.shape, data: Int32Array.from(ids.data as BigInt64Array, Number) };
  return { topkIdx, topkWeights: weights as Tensor<"fp32"> | null };
}

const DAMAGED = "the bundle is damaged: take another process's";

/** The metadata's fields, checked one by one. */
class Fields {
  readonly #file: string;
  readonly #metadata: Readonly<Record<string, string>>;

  constructor({ name, metadata }: SafetensorsFile) {
    this.#file = name;
    this.#metadata = metadata;
  }

  header(): BundleHeader {
    const shape = {
      numRanks: this.#whole("num_ranks", 1),
      ranksPerNode: this.#whole("ranks_per_node", 1),
      numExperts: this.#whole("num_experts", 1),
    };
    checkShape(shape);
    const numProcesses = this.#whole("num_processes", 1);
    return {
      producer: this.#metadata.producer ?? "",
      source: this.#metadata.source ?? "",
      operation: this.#choice<BundleOperation>("operation", BUNDLE_OPERATIONS),
      sequence: this.#whole("sequence", 0),
      code: this.#choice<ErrorCode>("code", CODES),
      message: this.#metadata.message ?? "",
      waits: this.#list("waits", isWait) as Wait[],
      group: this.#metadata.group ?? "",
      process: this.#whole("process", 0, numProcesses - 1),
      numProcesses,
      shape,
      localRanks: this.#list("local_ranks", (rank) => Number.isInteger(rank)) as number[],
      topk: this.#whole("topk", 1),
      hidden: this.#whole("hidden", 1),
      dtype: this.#choice("dtype", ROW_DTYPES) as RowDType,
      style: this.#choice("style", ["fused", "hybrid-ep"] as const),
      settings: {
        expertAlignment: this.#whole("expert_alignment", 0),
        numWorstTokens: this.#whole("num_worst_tokens", 0),
        padMultiple: this.#whole("pad_multiple", 0),
        numPermutedTokens:
          this.#metadata.num_permuted_tokens === undefined ? null : this.#whole("num_permuted_tokens", 0),
      },
      rows: this.#rows(),
      missing: this.#list("missing", (reason) => typeof reason === "string") as string[],
    };
  }

  #rows(): BundleRows | null {
    if (this.#metadata.rows_seed === undefined) return null;
    return {
      seed: this.#whole("rows_seed", 0),
      layer: this.#whole("rows_layer", 0),
      dtype: this.#choice("rows_dtype", ROW_DTYPES) as RowDType,
    };
  }

  #whole(key: string, least: number, most = Number.MAX_SAFE_INTEGER): number {
    const text = this.#metadata[key];
    const value = Number(text);
    if (text !== undefined && text.trim() !== "" && Number.isSafeInteger(value) && value >= least && value <= most) {
      return value;
    }
    const expected = most === Number.MAX_SAFE_INTEGER ? `a whole number of at least ${least}` : `${least}..${most}`;
    throw this.#bad(key, expected);
  }

  #choice<T extends string>(key: string, choices: readonly T[]): T {
    const found = choices.find((choice) => choice === this.#metadata[key]);
    if (found !== undefined) return found;
    throw this.#bad(key, choices.join(", "));
  }

  #list(key: string, check: (item: unknown) => boolean): unknown[] {
    try {
      const value: unknown = JSON.parse(this.#metadata[key] ?? "[]");
      if (Array.isArray(value) && value.every(check)) return value;
    } catch {
      // Named below.
    }
    throw this.#bad(key, "a JSON list of the documented form");
  }

  #bad(key: string, expected: string): InvalidFile {
    const received = this.#metadata[key] ?? "nothing";
    return invalid(this.#file, key, expected, received.length > 60 ? `${received.slice(0, 57)}...` : received, DAMAGED);
  }
}

function isWait(item: unknown): boolean {
  const wait = item as Wait | null;
  return (
    typeof wait === "object" &&
    wait !== null &&
    Number.isInteger(wait.rank) &&
    Number.isInteger(wait.srcRank) &&
    [wait.phase, wait.expected, wait.received].every((text) => typeof text === "string")
  );
}

function invalid(file: string, key: string, expected: string, received: string, remedy: string): InvalidFile {
  return new InvalidFile({ name: `__metadata__.${key}`, expected, received, where: { file }, remedy });
}
