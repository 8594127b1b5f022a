/** More rows than one WebAssembly memory can hold: they go on in a second one. Takes about 6 GiB. */
import { freemem } from "node:os";
import { expect, test } from "vitest";
import { createWasmBackend } from "../../backends/wasm/index.ts";
import { checkCombined, checkDispatched } from "../../bench/verify.ts";
import { generateRouting } from "../../core/routing/generate.ts";
import type { Tensor } from "../../core/tensor.ts";
import { settings } from "./data.ts";

const RANKS = 8;
const TOKENS = 5120;
const HIDDEN = 7168;
const ENOUGH = freemem() > 7 * 2 ** 30;

test.skipIf(!ENOUGH)(
  `permuted rows past 4 GiB${ENOUGH ? "" : " (skipped: less than 7 GiB of free memory)"}`,
  async () => {
    const backend = await createWasmBackend();
    const group = await backend.createGroup({ numRanks: RANKS });
    const made = generateRouting({
      workload: "uniform",
      seed: 3,
      numRanks: RANKS,
      numTokens: TOKENS,
      numExperts: 64,
      topk: 8,
    });
    const routing = { topkIdx: made.map((rank) => rank.topkIdx), topkWeights: null };
    const x = backend.allocate(made.map(() => ({ dtype: "bf16", shape: [TOKENS, HIDDEN] })));
    x.forEach(({ data }, rank) => {
      const codes = data as Uint16Array;
      for (let i = 0; i < codes.length; i++) codes[i] = 0x3f00 | ((i * 2654435761 + rank) >>> 24);
    });
    const request = { kind: "hybrid-ep", x, scales: null, routing, settings: settings(64) } as const;
    const sent = await group.dispatch(request);
    const rows = sent.x as Tensor[];
    const bytes = rows.reduce((sum, value) => sum + value.data.byteLength, 0);
    expect(bytes).toBeGreaterThan(2 ** 32);
    expect(new Set(rows.map((value) => value.data.buffer)).size).toBe(2);
    const data = await sent.handle.data();
    checkDispatched(data, x, rows);
    const back = await group.combine({ handle: sent.handle, x: rows, topkWeights: null, probs: null, bias: [] });
    checkCombined(data, rows, back.x as Tensor[]);
    await backend.close();
  },
);
