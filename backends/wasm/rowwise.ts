/** Operations on single rows: the stand-in expert and the fp8 casts. */
import { SCALE_BLOCK } from "../../core/dtype/dtype.ts";
import { rowBytes, type Tensor } from "../../core/tensor.ts";
import { inputRows, kernelSuffix, outputRows, type RowTarget } from "./combine.ts";
import type { Engine, Operand, Pass, RunOptions } from "./engine.ts";
import type { Task } from "./executor.ts";

type Op = (Task & { op: "scale" | "toFp8" | "fromFp8" })["op"];

function rowPass(op: Op, x: Tensor, operands: readonly [Operand, Operand, Operand]): Pass {
  const [numRows, width] = x.shape;
  const [, , out] = operands;
  return {
    numRows,
    bytesPerRow: rowBytes(x) + out.rowBytes,
    operands,
    task: ([rows, scales, target], range) => ({
      op,
      ...range,
      x: rows,
      scales,
      out: target,
      width,
      dtype: kernelSuffix(x.dtype),
    }),
  };
}

/** x[row, :] * factors[row]; `ranks` names the ranks for `consume`. */
export function scaleRows(
  engine: Engine,
  x: readonly Tensor[],
  factors: readonly Tensor[],
  ranks: readonly number[],
  target: RowTarget,
  options: RunOptions,
): Promise<void> {
  const passes = x.map((rows, i) =>
    rowPass("scale", rows, [
      inputRows(engine, rows),
      inputRows(engine, factors[i]),
      outputRows(engine, target, i, ranks[i], rowBytes(rows)),
    ]),
  );
  return engine.run(passes, options);
}

/** Rows -> e4m3 codes and one scale per 128 columns, into `out` and `scales`. */
export function castToFp8(
  engine: Engine,
  x: readonly Tensor[],
  out: readonly Tensor[],
  scales: readonly Tensor[],
  options: RunOptions,
): Promise<void> {
  const passes = x.map((rows, i) => {
    const scaleBytes = Math.ceil(rows.shape[1] / SCALE_BLOCK) * 4;
    return rowPass("toFp8", rows, [
      inputRows(engine, rows),
      outputRows(engine, { out: scales }, i, i, scaleBytes),
      outputRows(engine, { out }, i, i, rows.shape[1]),
    ]);
  });
  return engine.run(passes, options);
}

/** e4m3 codes and scales -> bf16 rows in `out`. */
export function castBack(
  engine: Engine,
  x: readonly Tensor[],
  scales: readonly Tensor[],
  out: readonly Tensor[],
  options: RunOptions,
): Promise<void> {
  const passes = x.map((rows, i) =>
    rowPass("fromFp8", rows, [
      inputRows(engine, rows),
      inputRows(engine, scales[i]),
      outputRows(engine, { out }, i, i, rows.shape[1] * 2),
    ]),
  );
  return engine.run(passes, options);
}
