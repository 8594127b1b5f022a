/** The conformance suite as plain functions: Vitest runs it in Node, a page runs it in the browser. */
import type { Backend, Group } from "../../core/backend.ts";
import { checkBackward } from "./backward.ts";
import { NODE_SHAPES, SHAPES, type Shape } from "./cases.ts";
import { type Data, makeData } from "./data.ts";
import { checkUploaded } from "./elsewhere.ts";
import { checkFused } from "./fused.ts";
import { checkHybridEp } from "./hybridEp.ts";
import { checkCasts, checkLayout } from "./rest.ts";

const OPERATIONS = {
  layout: checkLayout,
  "fused dispatch and combine": checkFused,
  "hybrid-ep dispatch and combine": checkHybridEp,
  "casts and scaleRows": checkCasts,
} as const;

/** Beside these, what crosses nodes: the same movements with handles from elsewhere, and as gradients. */
const OVER_NODES = {
  ...OPERATIONS,
  "uploaded handles": checkUploaded,
  "functions and their backward": checkBackward,
} as const;

export interface ConformanceTest {
  readonly name: string;
  readonly shape: Shape;
  /** Throws an Error that names the first wrong element. */
  run(backend: Backend): Promise<void>;
}

type Check = (group: Group, data: Data) => Promise<void>;

const tests = (shapes: readonly Shape[], operations: Readonly<Record<string, Check>>): ConformanceTest[] =>
  shapes.flatMap((shape) =>
    Object.entries(operations).map(([operation, check]) => ({
      name: `${operation}: ${shape.name}`,
      shape,
      run: (backend) => runOn(backend, shape, check),
    })),
  );

export const CONFORMANCE_TESTS: readonly ConformanceTest[] = tests(SHAPES, OPERATIONS);

/** Groups of 2 and 4 nodes. */
export const NODE_TESTS: readonly ConformanceTest[] = tests(NODE_SHAPES, OVER_NODES);

async function runOn(backend: Backend, shape: Shape, check: Check): Promise<void> {
  const group = await backend.createGroup({ numRanks: shape.numRanks, ranksPerNode: shape.ranksPerNode });
  try {
    await check(group, makeData(shape));
  } finally {
    await group.close();
  }
}
