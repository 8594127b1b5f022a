/** The conformance suite as plain functions: Vitest runs it in Node, a page runs it in the browser. */
import type { Backend } from "../../core/backend.ts";
import { SHAPES, type Shape } from "./cases.ts";
import { makeData } from "./data.ts";
import { checkFused } from "./fused.ts";
import { checkHybridEp } from "./hybridEp.ts";
import { checkCasts, checkLayout } from "./rest.ts";

const OPERATIONS = {
  layout: checkLayout,
  "fused dispatch and combine": checkFused,
  "hybrid-ep dispatch and combine": checkHybridEp,
  "casts and scaleRows": checkCasts,
} as const;

export interface ConformanceTest {
  readonly name: string;
  /** Throws an Error that names the first wrong element. */
  run(backend: Backend): Promise<void>;
}

export const CONFORMANCE_TESTS: readonly ConformanceTest[] = SHAPES.flatMap((shape) =>
  Object.entries(OPERATIONS).map(([operation, check]) => ({
    name: `${operation}: ${shape.name}`,
    run: (backend) => runOn(backend, shape, check),
  })),
);

async function runOn(
  backend: Backend,
  shape: Shape,
  check: (typeof OPERATIONS)[keyof typeof OPERATIONS],
): Promise<void> {
  const group = await backend.createGroup({ numRanks: shape.numRanks, ranksPerNode: shape.ranksPerNode });
  try {
    await check(group, makeData(shape));
  } finally {
    await group.close();
  }
}
