import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  DEFAULT_STATE,
  formatIds,
  fromHash,
  parseIds,
  toHash,
  VIEW_IDS,
  type ViewState,
} from "../../../viz/model/state.ts";

const ids = fc.uniqueArray(fc.nat(4000), { maxLength: 20 }).map((list) => list.sort((a, b) => a - b));
const ordered = fc
  .tuple(fc.nat(100_000), fc.nat(100_000))
  .map(([a, b]): [number, number] => [Math.min(a, b), Math.max(a, b)]);
const eighths = (low: number) => fc.integer({ min: 0, max: 3 }).map((n) => low + n / 8);

const states: fc.Arbitrary<ViewState> = fc.record({
  view: fc.constantFrom(...VIEW_IDS),
  step: fc.nat(1000),
  layer: fc.nat(100),
  src: ids,
  dst: ids,
  experts: ids,
  tokens: fc.option(ordered),
  time: fc.option(ordered),
  token: fc.option(fc.tuple(fc.nat(2047), fc.nat(100_000))),
  compare: fc.boolean(),
  perToken: fc.boolean(),
  metric: fc.constantFrom("slots", "rows", "bytes", "wait"),
  level: fc.constantFrom("rank", "node"),
  transpose: fc.boolean(),
  hide: fc.constantFrom("none", "rank", "node"),
  scale: fc.constantFrom("linear", "log"),
  unit: fc.constantFrom("expert", "logical", "rank", "node"),
  order: fc.constantFrom("load", "id"),
  padding: fc.boolean(),
  quantity: fc.constantFrom("remote", "ranks", "top", "entropy"),
  zoom: fc.option(fc.tuple(eighths(0), eighths(0), eighths(0.5), eighths(0.5))),
  theme: fc.constantFrom("auto", "light", "dark"),
  placement: fc.record({
    ranks: fc.integer({ min: 1, max: 2048 }),
    nodes: fc.integer({ min: 1, max: 64 }),
    experts: fc.nat(1024),
    style: fc.constantFrom("fused", "hybrid-ep"),
    pad: fc.integer({ min: 1, max: 512 }),
  }),
});

describe("state in the address", () => {
  it("comes back as it was", () => {
    fc.assert(
      fc.property(states, (state) => {
        expect(fromHash(`#${toHash(state)}`)).toEqual(state);
      }),
    );
  });

  it("is empty for the defaults", () => {
    expect(toHash(DEFAULT_STATE)).toBe("");
    expect(fromHash("")).toEqual(DEFAULT_STATE);
  });

  it("ignores what it does not know", () => {
    const nonsense = "view=nowhere&layer=-3&src=5-2&zoom=1,2&place=0,0,0,x,1&tokens=9,3&metric=furlongs&what=ever";
    expect(fromHash(nonsense)).toEqual(DEFAULT_STATE);
    fc.assert(fc.property(fc.string(), (text) => void fromHash(text)));
  });

  it("writes ids as ranges", () => {
    expect(formatIds([7, 0, 2, 1])).toBe("0-2,7");
    expect(parseIds("0-2,7")).toEqual([0, 1, 2, 7]);
    expect(parseIds("0-2,x")).toEqual([]);
  });
});
