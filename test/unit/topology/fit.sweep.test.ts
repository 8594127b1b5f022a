import { describe, expect, it } from "vitest";
import { crossValidate, PUBLISHED_TABLE, readFigures, splitFigures } from "../../../core/topology/index.ts";

const published = splitFigures(readFigures(PUBLISHED_TABLE, "published"), null);

describe("the fit", () => {
  it("predicts each system on each GPU from the other systems", () => {
    const { all, folds } = crossValidate(
      [...published.fit, ...published.hold],
      (f) => `${f.system}, ${f.machine.name}`,
    );
    expect(folds.length).toBeGreaterThan(12);
    expect(all.median).toBeLessThan(0.05);
  });
});
