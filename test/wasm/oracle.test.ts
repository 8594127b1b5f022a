/** Same bytes as the oracle with any number of workers, for arrays in shared memory, in ordinary memory and in between. */
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { createWasmBackend, type WasmBackend } from "../../backends/wasm/index.ts";
import type { Backend, CombineRequest, DispatchRequest } from "../../core/backend.ts";
import type { HandleKind } from "../../core/handle/handle.ts";
import { createOracleBackend } from "../../core/oracle/group.ts";
import { bytesOf, type Tensor } from "../../core/tensor.ts";
import { bytesOfAll, digests, randomRouting, randomRows, settings } from "./data.ts";

const SHAPE = { numRanks: 8, tokens: 48, experts: 32, topk: 6 };
const backends = new Map<string, WasmBackend>();
for (const workers of [0, 1, 2, 8]) {
  backends.set(`workers: ${workers}`, await createWasmBackend({ workers, smallBytes: 0 }));
}
afterAll(async () => {
  for (const backend of backends.values()) await backend.close();
});

interface Wanted {
  readonly kind: HandleKind;
  readonly dtype: "bf16" | "fp16" | "fp32";
  readonly ranksPerNode: number;
  readonly hidden: number;
  readonly seed: number;
  readonly narrow: boolean;
}

/** Dispatch, then combine of unrelated rows with biases: every output as bytes. */
async function everything(backend: Backend, wanted: Wanted, place: (values: Tensor[]) => Tensor[]) {
  const { kind, dtype, hidden, seed, narrow } = wanted;
  const { numRanks, tokens, experts, topk } = SHAPE;
  const group = await backend.createGroup({ numRanks, ranksPerNode: wanted.ranksPerNode });
  const x = place(Array.from({ length: numRanks }, (_, r) => randomRows(dtype, [tokens, hidden], seed + r, narrow)));
  const request: DispatchRequest = {
    kind,
    x,
    scales: x.map((_, r) => randomRows("fp32", [tokens, 3], seed + 50 + r)),
    routing: randomRouting(numRanks, tokens, experts, topk, seed),
    settings: settings(experts, { padMultiple: kind === "fused" ? 1 : 4 }),
  };
  const sent = await group.dispatch(request);
  const { ranks } = await sent.handle.data();
  const back: CombineRequest = {
    handle: sent.handle,
    x: place(ranks.map((rank, r) => randomRows(dtype, [rank.numRows, hidden], seed + 100 + r, narrow))),
    topkWeights: kind === "fused" ? ranks.map((rank, r) => randomRows("fp32", [rank.numRows, topk], seed + r)) : null,
    probs: null,
    bias: kind === "fused" ? [x] : [],
  };
  const combined = await group.combine(back);
  await group.close();
  return {
    recvX: await bytesOfAll(sent.x),
    recvScales: await bytesOfAll(sent.scales),
    topkIdx: await bytesOfAll(sent.topkIdx),
    topkWeights: await bytesOfAll(sent.topkWeights),
    probs: await bytesOfAll(sent.probs),
    combinedX: await bytesOfAll(combined.x),
    combinedWeights: await bytesOfAll(combined.topkWeights),
  };
}

const asTheyAre = (values: Tensor[]) => values;

/** Copies in the backend's memory: together in one slab, or each in a slab of its own. */
function shared(backend: WasmBackend, together: boolean) {
  return (values: Tensor[]) => {
    const copies = together ? backend.allocate(values) : values.flatMap((value) => backend.allocate([value]));
    copies.forEach((copy, i) => {
      bytesOf(copy).set(bytesOf(values[i]));
    });
    return copies;
  };
}

function firstDifference(got: Awaited<ReturnType<typeof everything>>, want: typeof got): string | null {
  for (const name of Object.keys(want) as (keyof typeof want)[]) {
    if ((got[name] === null) !== (want[name] === null)) return `${name}: null on one side`;
    for (const [rank, bytes] of (want[name] ?? []).entries()) {
      const other = (got[name] ?? [])[rank];
      if (other.length !== bytes.length) return `${name}, rank ${rank}: ${other.length} of ${bytes.length} bytes`;
      const at = bytes.findIndex((byte, i) => byte !== other[i]);
      if (at >= 0) return `${name}, rank ${rank}, byte ${at}: ${other[at]} is not ${bytes[at]}`;
    }
  }
  return null;
}

const CASES: readonly Wanted[] = [
  { kind: "fused", dtype: "bf16", ranksPerNode: 8, hidden: 519, seed: 1, narrow: false },
  { kind: "fused", dtype: "bf16", ranksPerNode: 2, hidden: 64, seed: 2, narrow: true },
  { kind: "hybrid-ep", dtype: "bf16", ranksPerNode: 8, hidden: 130, seed: 3, narrow: true },
  { kind: "hybrid-ep", dtype: "bf16", ranksPerNode: 4, hidden: 7, seed: 4, narrow: false },
  { kind: "fused", dtype: "fp16", ranksPerNode: 4, hidden: 33, seed: 5, narrow: true },
  { kind: "hybrid-ep", dtype: "fp16", ranksPerNode: 8, hidden: 96, seed: 6, narrow: false },
  { kind: "fused", dtype: "fp32", ranksPerNode: 8, hidden: 1, seed: 7, narrow: false },
  { kind: "hybrid-ep", dtype: "fp32", ranksPerNode: 2, hidden: 50, seed: 8, narrow: true },
];

const oracle = createOracleBackend();
const wantOf = new Map(CASES.map((wanted) => [wanted, everything(oracle, wanted, asTheyAre)]));

for (const [name, backend] of backends) {
  describe(name, () => {
    test.each(CASES)("$kind $dtype, $ranksPerNode ranks per node, hidden $hidden, narrow $narrow", async (wanted) => {
      const want = (await wantOf.get(wanted)) as Awaited<ReturnType<typeof everything>>;
      expect(firstDifference(await everything(backend, wanted, asTheyAre), want)).toBeNull();
      expect(firstDifference(await everything(backend, wanted, shared(backend, true)), want)).toBeNull();
      expect(firstDifference(await everything(backend, wanted, shared(backend, false)), want)).toBeNull();
    });
  });
}

test("sums of random bits are the oracle's", async () => {
  const backend = backends.get("workers: 2") as WasmBackend;
  const property = fc.asyncProperty(
    fc.constantFrom<HandleKind>("fused", "hybrid-ep"),
    fc.constantFrom("bf16" as const, "fp16" as const, "fp32" as const),
    fc.constantFrom(1, 2, 4, 8),
    fc.integer({ min: 1, max: 80 }),
    fc.integer({ min: 0, max: 1 << 20 }),
    fc.boolean(),
    async (kind, dtype, ranksPerNode, hidden, seed, narrow) => {
      const wanted = { kind, dtype, ranksPerNode, hidden, seed, narrow };
      const want = await everything(oracle, wanted, asTheyAre);
      return firstDifference(await everything(backend, wanted, asTheyAre), want) === null;
    },
  );
  await fc.assert(property, { numRuns: 30 });
});

test.each(["bf16", "fp16", "fp32"] as const)("casts and scaled rows of %s are the oracle's", async (dtype) => {
  const x = [randomRows(dtype, [700, 333], 1), randomRows(dtype, [3, 333], 2, true)];
  const factors = x.map((value, r) => randomRows("fp32", [value.shape[0], 1], r));
  const columns = factors.map(({ data, dtype: kind }) => ({ dtype: kind, shape: [data.length], data }) as Tensor);
  const run = async (backend: Backend, rows: Tensor[]) => {
    const group = await backend.createGroup({ numRanks: 2 });
    const fp8 = await group.castToFp8(rows);
    const back = await group.castBack(fp8.x, fp8.scales);
    return [fp8.x, fp8.scales, back, await group.scaleRows(rows, columns)].map(digests);
  };
  const want = await Promise.all(await run(oracle, x));
  for (const backend of backends.values()) {
    expect(await Promise.all(await run(backend, x))).toEqual(want);
    expect(await Promise.all(await run(backend, shared(backend, true)(x)))).toEqual(want);
  }
});
