/** The emulated CUDA backend for these tests; where its addon is not built they are a visible skip. */
import { type CudaBackend, type CudaGroup, type CudaOptions, createCudaBackend } from "../../backends/cuda/index.ts";
import { findAddon } from "../../backends/cuda/loader.ts";
import type { DispatchSettings } from "../../core/backend.ts";
import { createOracleBackend } from "../../core/oracle/group.ts";
import type { AnyTensor, Tensor } from "../../core/tensor.ts";
import { SHAPES, type Shape } from "../conformance/cases.ts";
import { codes, type Data, makeData } from "../conformance/data.ts";
import { expectCodes } from "../conformance/expect.ts";

const search = findAddon("emulated");
export const built = search.addon !== null;
export const why = built ? "" : ` (skipped: ${search.attempts.map(({ path, outcome }) => `${path}: ${outcome}`)})`;

export async function withBackend<T>(
  options: Partial<CudaOptions>,
  run: (backend: CudaBackend) => Promise<T>,
): Promise<T> {
  const backend = await createCudaBackend({ emulated: true, ...options });
  try {
    return await run(backend);
  } finally {
    await backend.close();
  }
}

export function withGroup<T>(options: Partial<CudaOptions>, numRanks: number, run: (group: CudaGroup) => Promise<T>) {
  return withBackend(options, async (backend) => run(await backend.createGroup({ numRanks })));
}

/** Four ranks on two devices, 8 experts, top-2. */
export const SHAPE: Shape = SHAPES[0];

export function dataOf(change: Partial<Shape> = {}, seed = 1): Data {
  return makeData({ ...SHAPE, ...change }, seed);
}

export function settingsOf(data: Data, change: Partial<DispatchSettings> = {}): DispatchSettings {
  return {
    numExperts: data.shape.numExperts,
    expertAlignment: 1,
    numWorstTokens: 0,
    padMultiple: 1,
    numPermutedTokens: null,
    ...change,
  };
}

/** The request that dispatches `data`. */
export function requestOf(data: Data, kind: "fused" | "hybrid-ep" = "fused", change: Partial<DispatchSettings> = {}) {
  return {
    kind,
    x: data.x as readonly AnyTensor[],
    scales: data.scales,
    routing: { topkIdx: data.topkIdx as readonly AnyTensor[], topkWeights: data.topkWeights as readonly AnyTensor[] },
    settings: settingsOf(data, change),
  };
}

/** The same on the oracle. */
export async function oracleDispatch(data: Data, kind: "fused" | "hybrid-ep" = "fused", change = {}) {
  const group = await createOracleBackend().createGroup({ numRanks: data.shape.numRanks });
  return { group, ...(await group.dispatch(requestOf(data, kind, change))) };
}

export async function uploadAll(group: CudaGroup, values: readonly Tensor[]) {
  return Promise.all(values.map((value, i) => group.upload(group.localRanks[i], value)));
}

export async function expectSame(what: string, got: readonly AnyTensor[] | null, want: readonly AnyTensor[] | null) {
  if (got === null || want === null) throw new Error(`${what}: expected tensors, received ${got} and ${want}`);
  if (got.length !== want.length) throw new Error(`${what}: expected ${want.length} tensors, received ${got.length}`);
  for (const [i, value] of got.entries()) {
    const host = want[i] as Tensor;
    const ids = host.dtype === "i64" || host.dtype === "i32";
    await expectCodes(`${what}, rank ${i}`, value, host.shape, ids ? host.data : codes(host));
  }
}
