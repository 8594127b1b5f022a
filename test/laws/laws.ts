/**
 * What must hold for every routing (design 2), as functions of a backend and a case. No expected outputs here: each law
 * relates runs of the same backend to each other, to plain counting, or to exact arithmetic on small whole numbers.
 */
import type { Backend } from "../../core/backend.ts";
import { checkHandleData } from "../../core/handle/check.ts";
import { decodeHandle, encodeHandle } from "../../core/handle/encode.ts";
import { Handle, type HandleData } from "../../core/handle/handle.ts";
import { type AnyTensor, bytesOf, type Tensor, tensor, toHost } from "../../core/tensor.ts";
import { codes } from "../conformance/data.ts";
import { expectEqual } from "../conformance/expect.ts";
import { dot, fromNumbers, type LawCase, numbers, numTokens, Run } from "./cases.ts";

export interface Law {
  readonly name: string;
  /** Throws when the law is broken. */
  check(run: Run, backend: Backend): Promise<void>;
}

const rowsOf = (data: HandleData) => data.ranks.map((rank) => rank.numRows);
const host = (all: readonly AnyTensor[]) => Promise.all(all.map((one) => toHost(one)));

async function expectSame(what: string, got: readonly AnyTensor[], want: readonly AnyTensor[]): Promise<void> {
  const expected = await host(want);
  for (const [i, one] of (await host(got)).entries()) {
    expectEqual(`${what}, rank ${i}, shape`, one.shape, expected[i].shape);
    expectEqual(`${what}, rank ${i}`, Array.from(codes(one)), Array.from(codes(expected[i])));
  }
}

const ownerOf = (c: LawCase, expert: number) => Math.floor(expert / (c.numExperts / c.numRanks));

/** [rank, token, slot, expert] of every choice. */
function choices(c: LawCase): number[][] {
  return c.topkIdx.flatMap((tokens, rank) =>
    tokens.flatMap((slots, token) =>
      slots.flatMap((expert, slot) => (expert < 0 ? [] : [[rank, token, slot, expert]])),
    ),
  );
}

/** (rank, token) of every row of every destination of an exact run, in the order of design 2.3 and 2.5; null pads. */
function expectedRows(c: LawCase): (string | null)[][] {
  const chosen = choices(c);
  return Array.from({ length: c.numRanks }, (_, dst) => {
    const mine = chosen.filter(([, , , expert]) => ownerOf(c, expert) === dst);
    if (c.kind === "fused") return [...new Set(mine.map(([rank, token]) => `${rank}.${token}`))];
    const perRank = c.numExperts / c.numRanks;
    return Array.from({ length: perRank }, (_, local) => {
      const block: (string | null)[] = mine
        .filter(([, , , expert]) => expert === dst * perRank + local)
        .map(([rank, token]) => `${rank}.${token}`);
      while (block.length % c.multiple !== 0) block.push(null);
      return block;
    }).flat();
  });
}

/** Rows that say who they are: 1 + rank * 64 + token, exact in fp32. */
const named = (c: LawCase) =>
  c.topkIdx.map((tokens, rank) =>
    fromNumbers(
      "fp32",
      [tokens.length, 1],
      tokens.map((_, token) => 1 + rank * 64 + token),
    ),
  );
const nameOf = (value: number) => (value === 0 ? null : `${Math.floor((value - 1) / 64)}.${(value - 1) % 64}`);

export const LAWS: readonly Law[] = [
  {
    name: "dispatch and its backward are adjoint: <dispatch x, y> = <x, combine y>, weights likewise",
    async check(run) {
      const { c } = run;
      const x = run.whole(numTokens(c));
      const out = await run.dispatch(x);
      const rows = rowsOf(await out.handle.data());
      const y = run.whole(rows);
      const weights = (c.kind === "fused" ? out.topkWeights : out.probs) ?? [];
      // The weight of a slot that is not this rank's does not depend on the input: its gradient is masked.
      const ids = out.topkIdx && (await Promise.all(out.topkIdx.map(numbers)));
      const v = run.whole(rows, c.kind === "fused" ? c.topk : 1, "fp32").map((one, rank) => {
        const kept = Float32Array.from(one.data as Float32Array, (g, i) => (ids && ids[rank][i] < 0 ? 0 : g));
        return tensor("fp32", c.kind === "fused" ? one.shape : [rows[rank]], kept);
      });
      const back = await run.combine(out.handle, y, v);
      expectEqual("<dispatch x, y>", await dot(out.x, y), await dot(x, back.x));
      const w = c.kind === "fused" ? run.weights : multihot(run);
      const gradient = (c.kind === "fused" ? back.topkWeights : back.probs) ?? [];
      expectEqual("<dispatch w, v>", await dot(weights, v), await dot(w, gradient));
    },
  },
  {
    name: "combine and its backward are adjoint: <combine z, g> = <z, cached dispatch g>",
    async check(run) {
      const { c } = run;
      const { handle } = await run.dispatch(run.whole(numTokens(c)));
      const z = run.whole(rowsOf(await handle.data()));
      const g = run.whole(numTokens(c));
      const combined = await run.combine(handle, z);
      const back = await run.group.dispatch({ kind: c.kind, x: g, scales: null, handle });
      expectEqual("<combine z, g>", await dot(combined.x, g), await dot(z, back.x));
    },
  },
  {
    name: "combine after dispatch gives each token as often as it was sent",
    async check(run) {
      const { c } = run;
      const x = run.whole(numTokens(c));
      const out = await run.dispatch(x, 0);
      const back = await run.combine(out.handle, out.x);
      for (const [rank, tokens] of c.topkIdx.entries()) {
        const sent = tokens.map((slots) => {
          const experts = slots.filter((expert) => expert >= 0);
          return c.kind === "fused" ? new Set(experts.map((expert) => ownerOf(c, expert))).size : experts.length;
        });
        const want = (await numbers(x[rank])).map((value, i) => value * sent[Math.floor(i / c.hidden)] + 0);
        expectEqual(`rank ${rank}`, await numbers(back.x[rank]), want);
      }
    },
  },
  {
    name: "conservation: rows sent = received, each (token, slot) arrives once, counts = bincount",
    async check(run) {
      const { c } = run;
      const out = await run.dispatch(named(c), 0);
      const data = await out.handle.data();
      const sent = data.ranks.map((rank) => rank.sendRank.filter((dst) => dst >= 0).length);
      const received = data.ranks.map((rank) => rank.rowSrcRank.filter((src) => src >= 0).length);
      const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
      expectEqual("rows sent", sum(sent), sum(received));
      const bincount = new Array<number>(c.numExperts).fill(0);
      for (const [, , , expert] of choices(c)) bincount[expert]++;
      expectEqual(
        "counts",
        data.ranks.flatMap((rank) => [...rank.numTokensPerExpert]),
        bincount,
      );
      const round = (count: number) => Math.ceil(count / c.multiple) * c.multiple;
      expectEqual(
        "tokensPerExpert",
        data.ranks.flatMap((rank) => [...rank.tokensPerExpert]),
        bincount.map(round),
      );
      const arrived: string[] = [];
      for (let dst = 0; dst < c.numRanks; dst++) {
        const names = (await numbers(out.x[dst])).map(nameOf);
        if (c.kind === "fused") {
          const ids = await numbers((out.topkIdx ?? [])[dst]);
          ids.forEach((local, i) => {
            if (local < 0) return;
            const expert = dst * (c.numExperts / c.numRanks) + local;
            arrived.push(`${names[Math.floor(i / c.topk)]}.${i % c.topk}.${expert}`);
          });
          continue;
        }
        const experts = [...data.ranks[dst].tokensPerExpert].flatMap((count, local) =>
          new Array<number>(count).fill(dst * (c.numExperts / c.numRanks) + local),
        );
        names.forEach((name, row) => {
          if (name === null) return;
          const [rank, token] = name.split(".").map(Number);
          arrived.push(`${name}.${c.topkIdx[rank][token].indexOf(experts[row])}.${experts[row]}`);
        });
      }
      expectEqual(
        "slots",
        arrived.sort(),
        choices(c)
          .map((choice) => choice.join("."))
          .sort(),
      );
    },
  },
  {
    name: "order: rows lie by source rank and token (hybrid-ep: within each expert), padding is zero",
    async check(run) {
      const out = await run.dispatch(named(run.c), 0);
      const got = await Promise.all(out.x.map(async (x) => (await numbers(x)).map(nameOf)));
      expectEqual("rows", got, expectedRows(run.c));
    },
  },
  {
    name: "overflow cuts exactly the tail, and names it",
    async check(run) {
      const { c } = run;
      if (c.budget === 0) return;
      const budget = c.budget * c.multiple;
      const x = run.bits(numTokens(c));
      const [exact, fixed] = [await run.dispatch(x, 0), await run.dispatch(x)];
      const want = expectedRows(c);
      const data = await fixed.handle.data();
      const rows = await host(exact.x);
      for (const [dst, got] of (await host(fixed.x)).entries()) {
        const kept = Array.from(codes(rows[dst])).slice(0, budget * c.hidden);
        const tail = new Array<number>(budget * c.hidden - kept.length).fill(0);
        expectEqual(`rows of rank ${dst}`, Array.from(codes(got)), [...kept, ...tail]);
        const lost = new Set(want[dst].slice(budget));
        const { cut, numCut, flag } = data.ranks[dst].overflow;
        expectEqual(`flag of rank ${dst}`, [flag, numCut], [numCut > 0, cut.length / 4]);
        const quadruples = Array.from({ length: numCut }, (_, i) => [...cut.subarray(i * 4, i * 4 + 4)].join("."));
        // A fused row stands for all its slots there; a permuted row past the budget for one slot.
        const expected = choices(c).filter(([rank, token, , expert]) => {
          if (ownerOf(c, expert) !== dst) return false;
          if (c.kind === "fused") return lost.has(`${rank}.${token}`);
          return permutedRow(c, rank, token, expert) >= budget;
        });
        expectEqual(`cut of rank ${dst}`, quadruples.sort(), expected.map((choice) => choice.join(".")).sort());
      }
    },
  },
  {
    name: "determinism: the same input gives the same bytes, whatever the number of SMs",
    async check(run) {
      const { c } = run;
      const x = run.bits(numTokens(c));
      const first = await run.dispatch(x);
      const y = run.bits(rowsOf(await first.handle.data()));
      const back = await run.combine(first.handle, y);
      for (const numSms of [undefined, 1, 3]) {
        const again = await run.dispatch(x, c.budget, { numSms });
        await expectSame(`dispatch, numSms ${numSms}`, again.x, first.x);
        const request = { handle: again.handle, x: y, topkWeights: null, probs: null, bias: [], numSms };
        await expectSame(`combine, numSms ${numSms}`, (await run.group.combine(request)).x, back.x);
      }
    },
  },
  {
    name: "a cached dispatch equals a fresh one, bit for bit",
    async check(run) {
      const { c } = run;
      const { handle } = await run.dispatch(run.bits(numTokens(c)));
      const x = run.bits(numTokens(c));
      const cached = await run.group.dispatch({ kind: c.kind, x, scales: null, handle });
      await expectSame("cached", cached.x, (await run.dispatch(x)).x);
    },
  },
  {
    name: "the handle keeps its invariants and survives encode and decode",
    async check(run) {
      const { c } = run;
      const { handle } = await run.dispatch(run.bits(numTokens(c)));
      const data = await handle.data();
      checkHandleData(data);
      const tensors = encodeHandle(data);
      const copy = Handle.of(await decodeHandle(run.group.localRanks, async (name) => tensors.get(name)));
      const y = run.bits(rowsOf(data));
      await expectSame("combine", (await run.combine(copy, y)).x, (await run.combine(handle, y)).x);
      const x = run.bits(numTokens(c));
      const replay = (which: Handle) => run.group.dispatch({ kind: c.kind, x, scales: null, handle: which });
      await expectSame("dispatch", (await replay(copy)).x, (await replay(handle)).x);
    },
  },
  {
    name: "hierarchical = flat when nothing can round",
    async check(run, backend) {
      const { c } = run;
      const x = run.whole(numTokens(c));
      const { handle } = await run.dispatch(x);
      const y = run.whole(rowsOf(await handle.data()));
      const want = await run.combine(handle, y);
      for (let ranksPerNode = 1; ranksPerNode <= c.numRanks; ranksPerNode++) {
        if (c.numRanks % ranksPerNode !== 0 || ranksPerNode === c.ranksPerNode) continue;
        const group = await backend.createGroup({ numRanks: c.numRanks, ranksPerNode });
        const other = new Run(c, group);
        const out = await other.dispatch(x);
        await expectSame(`dispatch, ${ranksPerNode} per node`, out.x, (await run.dispatch(x)).x);
        await expectSame(`combine, ${ranksPerNode} per node`, (await other.combine(out.handle, y)).x, want.x);
        await group.close();
      }
    },
  },
  {
    name: "noise in padding and tail rows never reaches a result",
    async check(run) {
      const { c } = run;
      const { handle } = await run.dispatch(run.whole(numTokens(c)));
      const data = await handle.data();
      const clean = run.whole(rowsOf(data));
      const noisy = clean.map((one, i) => {
        const [rows, width] = one.shape;
        const bits = new Uint8Array(bytesOf(one));
        const rowBytes = rows === 0 ? 0 : bits.length / rows;
        // All ones: a NaN in every dtype.
        for (let row = 0; row < rows; row++) {
          if (data.ranks[i].rowSrcRank[row] < 0) bits.fill(0xff, row * rowBytes, (row + 1) * rowBytes);
        }
        const copy = tensor(one.dtype, [rows, width]);
        bytesOf(copy).set(bits);
        return copy;
      });
      await expectSame("combine", (await run.combine(handle, noisy)).x, (await run.combine(handle, clean)).x);
    },
  },
  {
    name: "preallocated outputs and chunks hold the same rows",
    async check(run) {
      const { c } = run;
      const x = run.bits(numTokens(c));
      const scales = run.bits(numTokens(c), 2, "fp32");
      const want = await run.dispatch(x, c.budget, { scales });
      const rows = rowsOf(await want.handle.data());
      // Poisoned: every byte must be written, zero rows too.
      const poisoned = (counts: readonly number[]) =>
        counts.map((count) => {
          const made = tensor(c.dtype, [count, c.hidden]);
          bytesOf(made).fill(0xa5);
          return made;
        });
      const out = poisoned(rows);
      await run.dispatch(x, c.budget, { out });
      await expectSame("dispatch into out", out, want.x);
      const chunks = collect(run, c.dtype, rows, c.hidden, scales[0].shape[1]);
      const streamed = await run.dispatch(x, c.budget, { scales, consume: chunks.consume });
      expectEqual("results beside chunks", [streamed.x.length, streamed.scales?.length], [0, 0]);
      await expectSame("dispatch in chunks", chunks.x, want.x);
      await expectSame("scales in chunks", chunks.scales, want.scales ?? []);
      const y = run.bits(rows);
      const back = await run.combine(want.handle, y);
      const request = { handle: want.handle, x: y, topkWeights: null, probs: null, bias: [] };
      const into = poisoned(numTokens(c));
      await run.group.combine({ ...request, out: into });
      await expectSame("combine into out", into, back.x);
      const sums = collect(run, c.dtype, numTokens(c), c.hidden, 1);
      await run.group.combine({ ...request, consume: sums.consume });
      await expectSame("combine in chunks", sums.x, back.x);
    },
  },
];

function permutedRow(c: LawCase, rank: number, token: number, expert: number): number {
  const dst = ownerOf(c, expert);
  const perRank = c.numExperts / c.numRanks;
  const count = (e: number) => choices(c).filter(([, , , chosen]) => chosen === e).length;
  let offset = 0;
  for (let e = dst * perRank; e < expert; e++) offset += Math.ceil(count(e) / c.multiple) * c.multiple;
  const mine = choices(c).filter(([, , , chosen]) => chosen === expert);
  return offset + mine.findIndex(([r, t]) => r === rank && t === token);
}

/** The weights of a run as [tokens, experts]. */
function multihot(run: Run): Tensor[] {
  const { c } = run;
  return c.topkIdx.map((tokens, rank) => {
    const dense = tensor("fp32", [tokens.length, c.numExperts]);
    tokens.forEach((slots, token) =>
      slots.forEach((expert, slot) => {
        if (expert >= 0)
          dense.data[token * c.numExperts + expert] = run.weights[rank].data[token * c.topk + slot] as number;
      }),
    );
    return dense;
  });
}

/** Puts chunks together; complains about rows that come twice, out of order or not at all. */
function collect(run: Run, dtype: Tensor["dtype"], rows: readonly number[], hidden: number, columns: number) {
  const x = rows.map((count) => tensor(dtype, [count, hidden]));
  const scales = rows.map((count) => tensor("fp32", [count, columns]));
  const next = new Map<string, number>();
  return {
    x,
    scales,
    consume: (chunk: { name: string; rank: number; firstRow: number; numRows: number; bytes: Uint8Array }) => {
      const key = `${chunk.name} ${chunk.rank}`;
      expectEqual(`first row of a chunk of ${key}`, chunk.firstRow, next.get(key) ?? 0);
      next.set(key, chunk.firstRow + chunk.numRows);
      const target = (chunk.name === "x" ? x : scales)[run.group.localRanks.indexOf(chunk.rank)];
      const rowBytes = chunk.numRows === 0 ? 0 : chunk.bytes.length / chunk.numRows;
      bytesOf(target).set(chunk.bytes, chunk.firstRow * rowBytes);
    },
  };
}
