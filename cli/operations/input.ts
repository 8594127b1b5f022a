import type { Group, RoutingInput } from "../../core/backend.ts";
import { InvalidArgument } from "../../core/errors.ts";
import { decodeHandle } from "../../core/handle/encode.ts";
import { Handle } from "../../core/handle/handle.ts";
import type { SafetensorsFile } from "../../core/io/safetensors/index.ts";
import type { Tensor } from "../../core/tensor.ts";

/** Settings of `apply`, strings in `__metadata__` (docs/formats.md); each with its default, null = none. */
const SETTINGS = {
  num_ranks: null,
  num_experts: null,
  ranks_per_node: null,
  expert_alignment: 1,
  num_worst_tokens: 0,
  pad_multiple: 1,
  num_permuted_tokens: null,
} as const;
export type Setting = keyof typeof SETTINGS;

/** The input file of `apply`: `rank{r}.NAME` tensors, settings and maybe a handle. */
export class ApplyInput {
  readonly file: SafetensorsFile;

  constructor(file: SafetensorsFile) {
    this.file = file;
  }

  /** A setting as a number, its default, or null. Throws InvalidArgument when it is not a whole number. */
  setting(name: Setting): number | null {
    const given = this.file.metadata[name];
    if (given === undefined || given === "" || given === "None") return SETTINGS[name];
    if (/^-?\d+$/.test(given)) return Number(given);
    throw this.#problem(`__metadata__.${name}`, "a whole number", given, "write the setting as digits");
  }

  /** num_ranks, or else the ranks the tensors name. */
  numRanks(): number {
    const stated = this.setting("num_ranks");
    if (stated !== null) return stated;
    const ranks = [...this.file.tensors.keys()].map((name) => /^rank(\d+)\./.exec(name)?.[1]);
    const most = Math.max(-1, ...ranks.flatMap((rank) => (rank === undefined ? [] : [Number(rank)])));
    if (most >= 0) return most + 1;
    throw this.#problem("__metadata__.num_ranks", "the number of ranks", "none", "name tensors rank0.x, rank1.x, ...");
  }

  /** ranks_per_node, or else the handle's, or else one node. */
  async ranksPerNode(): Promise<number> {
    const meta = this.hasHandle() ? await this.file.read("rank0.handle.meta") : null;
    return this.setting("ranks_per_node") ?? (meta === null ? this.numRanks() : Number(meta.data[3]));
  }

  numExperts(): number {
    const stated = this.setting("num_experts");
    if (stated !== null) return stated;
    throw this.#problem("__metadata__.num_experts", "the number of experts", "none", "add num_experts to the metadata");
  }

  has(name: string): boolean {
    return this.file.tensors.has(`rank0.${name}`);
  }

  /** NAME of every rank. Throws InvalidFile naming the first that is missing. */
  async read(name: string): Promise<Tensor[]> {
    const tensors: Tensor[] = [];
    for (let rank = 0; rank < this.numRanks(); rank++) tensors.push(await this.file.read(`rank${rank}.${name}`));
    return tensors;
  }

  async readOptional(name: string): Promise<Tensor[] | null> {
    return this.has(name) ? this.read(name) : null;
  }

  hasHandle(): boolean {
    return this.has("handle.meta");
  }

  async handle(group: Group): Promise<Handle> {
    const read = async (name: string) => (this.file.tensors.has(name) ? this.file.read(name) : undefined);
    return Handle.of(await decodeHandle(group.localRanks, read));
  }

  /** Routing in either form, or null when there is none. */
  async routing(): Promise<RoutingInput | null> {
    if (this.has("topk_idx")) {
      return { topkIdx: await this.read("topk_idx"), topkWeights: await this.readOptional("topk_weights") };
    }
    if (!this.has("routing_map")) return null;
    return { routingMap: await this.read("routing_map"), probs: await this.readOptional("probs") };
  }

  /** Experts of the routing: the multihot form carries them. */
  async routingExperts(): Promise<number> {
    if (this.has("topk_idx") || this.setting("num_experts") !== null) return this.numExperts();
    return this.file.tensors.get("rank0.routing_map")?.shape[1] ?? this.numExperts();
  }

  #problem(name: string, expected: string, received: string, remedy: string): InvalidArgument {
    return new InvalidArgument({ name, expected, received, where: { file: this.file.name }, remedy });
  }
}
