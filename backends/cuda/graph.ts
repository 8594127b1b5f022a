import type { EventOverlap } from "../../core/event.ts";
import { native } from "./errors.ts";
import { deviceEvent } from "./event.ts";
import type { NativeGraph } from "./native.ts";
import type { TensorOwner } from "./tensor.ts";

/** Operations recorded once and replayed with whatever their tensors hold then; keeps tensors and handles alive. */
export class CudaGraph {
  readonly #owner: TensorOwner;
  readonly #graph: NativeGraph;

  constructor(owner: TensorOwner, graph: NativeGraph) {
    this.#owner = owner;
    this.#graph = graph;
  }

  /** Enqueues one replay on all local ranks, ordered like an operation with `asyncFinish`. */
  launch(): Promise<EventOverlap> {
    const { addon, turns } = this.#owner;
    return turns.take(() => native(async () => deviceEvent(addon, await addon.graphLaunch(this.#graph))));
  }

  free(): void {
    this.#owner.addon.graphFree(this.#graph);
  }
}
