/** Conformance under shuffled schedules, weak stores, a slow device and poisoned memory; and long runs without waiting. */
import { afterAll, beforeAll, describe, test } from "vitest";
import { type CudaGroup, createCudaBackend } from "../../backends/cuda/index.ts";
import type { Backend, Group } from "../../core/backend.ts";
import { createOracleBackend } from "../../core/oracle/group.ts";
import type { AnyTensor, Tensor } from "../../core/tensor.ts";
import { random } from "../conformance/data.ts";
import { splitBackend } from "../conformance/split/backend.ts";
import { remoteParts } from "../conformance/split/remote.ts";
import { CONFORMANCE_TESTS, NODE_TESTS } from "../conformance/suite.ts";
import { built, dataOf, expectSame, requestOf, uploadAll, why, withBackend, withGroup } from "./open.ts";

const SEEDS = Array.from({ length: 24 }, (_, i) => i + 1);
const SHAPES = [
  "eight ranks, 32 experts, top-8",
  "uneven and empty ranks",
  "hidden 129",
  "fp8 rows with scales",
  "two nodes of two",
  "alignment and padding 16",
];
const chosen = CONFORMANCE_TESTS.filter(({ name }) => SHAPES.some((shape) => name.endsWith(`: ${shape}`)));
const NODE_SHAPES = [
  "2 nodes of 4, fp8 rows with scales",
  "4 nodes of 2, all bit patterns",
  "4 nodes of 2, 280 rows of a pair",
];
const overNodes = NODE_TESTS.filter(({ name }) => NODE_SHAPES.some((shape) => name.endsWith(`: ${shape}`)));

describe.skipIf(!built)(`shuffled schedules${why}`, () => {
  for (const seed of SEEDS) {
    const devices = [1, 2, 4, 8][seed % 4];
    const combinePath = seed % 3 === 0 ? "pull" : "push";
    const computeMajor = seed % 5 === 0 ? 8 : 9;
    const emulation = { seed, weakStores: 1, slowDevice: (seed % devices) + 1, poison: 1, computeMajor };
    const what = `seed ${seed}, devices ${devices}, ${combinePath}, sm_${computeMajor}0`;
    test.each(chosen)(`$name (${what})`, ({ run }) => withBackend({ devices, combinePath, emulation }, run));
  }

  for (const seed of SEEDS.slice(0, 3)) {
    const emulation = {
      seed,
      weakStores: 1,
      slowDevice: (seed % 4) + 1,
      poison: 1,
      computeMajor: seed % 3 === 0 ? 8 : 9,
    };
    // Processes: parts in one process share one scheduler and its lock, and wait for each other most of the time.
    for (const per of ["node", "rank"] as const) {
      describe(`over nodes, a process per ${per}, seed ${seed}`, () => {
        let backend: Backend;
        beforeAll(async () => {
          backend = splitBackend(per, remoteParts({ emulation }), await createCudaBackend({ emulated: true }));
        });
        afterAll(() => backend.close());
        test.each(overNodes)("$name", ({ run }) => run(backend));
      });
    }
  }

  test.each(SEEDS.slice(0, 8))("100 operations of changing sizes with nothing between them, seed %i", (seed) =>
    withGroup({ devices: 4, emulation: { seed, weakStores: 1, slowDevice: 2, poison: 1 } }, 4, (group) =>
      backToBack(group, seed),
    ),
  );
});

/** Every operation is called before the one before is done; half of them on device tensors. */
async function backToBack(group: CudaGroup, seed: number): Promise<void> {
  const oracle = await createOracleBackend().createGroup({ numRanks: 4 });
  const next = random(seed);
  const pick = (count: number) => Math.floor(next() * count);
  const checks: Promise<void>[] = [];
  for (let i = 0; i < 50; i++) {
    const kind = pick(2) === 0 ? "fused" : "hybrid-ep";
    const numTokens = [0, 1, 2, 3].map(() => pick(20));
    const data = dataOf({ topk: 1 + pick(4), hidden: 1 + pick(300), numTokens, dropped: 0.2 }, seed * 100 + i);
    const resident = pick(2) === 0;
    const x: readonly AnyTensor[] = resident ? await uploadAll(group, data.x) : data.x;
    const request = { ...requestOf(data, kind), x, asyncFinish: pick(2) === 0, allocateOnCommStream: pick(2) === 0 };
    checks.push(compareWith(`operation ${i}`, group.dispatch(request), group, oracle, data, kind));
  }
  await Promise.all(checks);
}

async function compareWith(
  what: string,
  dispatched: ReturnType<Group["dispatch"]>,
  group: Group,
  oracle: Group,
  data: ReturnType<typeof dataOf>,
  kind: "fused" | "hybrid-ep",
): Promise<void> {
  const extras = { topkWeights: null, probs: null, bias: [] };
  const want = await oracle.dispatch(requestOf(data, kind));
  const got = await dispatched;
  const combining = group.combine({ ...extras, handle: got.handle, x: got.x, previousEvent: got.event });
  const wanted = await oracle.combine({ ...extras, handle: want.handle, x: want.x as readonly Tensor[] });
  await got.event.currentStreamWait();
  await expectSame(`${what}, x`, got.x, want.x);
  await expectSame(`${what}, combined`, (await combining).x, wanted.x);
}
