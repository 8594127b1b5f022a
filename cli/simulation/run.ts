/** What `simulate` works on, and what it found, for the modules that report it. */
import type {
  Degradation,
  LayerPrediction,
  PhaseName,
  PipelineResult,
  RoutingSource,
  Setup,
} from "../../core/topology/index.ts";
import type { GroupSize, SimulateOptions } from "./options.ts";

/** One (step, layer) as predicted, and chunk by chunk when --events asks for it. */
export interface Predicted {
  readonly prediction: LayerPrediction;
  readonly events: readonly PipelineResult[] | null;
  readonly degradation: Degradation | null;
}

export interface Run {
  readonly source: RoutingSource;
  readonly group: GroupSize;
  readonly setup: Setup;
  readonly options: SimulateOptions;
  readonly phases: readonly PhaseName[];
}
