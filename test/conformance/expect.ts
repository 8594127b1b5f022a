import { elementBytes } from "../../core/dtype/dtype.ts";
import { type AnyTensor, toHost } from "../../core/tensor.ts";
import { codes } from "./data.ts";

/** Throws with the first differing element, both bit patterns and the count. `want` holds codes, row-major. */
export async function expectCodes(
  what: string,
  got: AnyTensor | undefined,
  shape: readonly number[],
  want: ArrayLike<number | bigint>,
): Promise<void> {
  if (got === undefined) throw new Error(`${what}: expected a tensor, received none`);
  const host = await toHost(got);
  if (host.shape.join() !== shape.join()) {
    throw new Error(`${what}: expected shape [${shape}], received [${host.shape}]`);
  }
  const values = host.dtype === "i64" || host.dtype === "i32" ? host.data : codes(host);
  if (values.length !== want.length)
    throw new Error(`${what}: expected ${want.length} elements, received ${values.length}`);
  const columns = shape[1] ?? 1;
  let first = -1;
  let count = 0;
  for (let i = 0; i < want.length; i++) {
    if (values[i] === want[i] || BigInt(values[i]) === BigInt(want[i])) continue;
    if (first < 0) first = i;
    count++;
  }
  if (count === 0) return;
  const hex = (value: number | bigint) =>
    host.dtype === "i64" || host.dtype === "i32"
      ? `${value}`
      : `0x${value.toString(16).padStart(elementBytes(host.dtype) * 2, "0")}`;
  const place = `row ${Math.floor(first / columns)}, column ${first % columns}`;
  throw new Error(
    `${what}: ${count} of ${want.length} differ, first at ${place}: expected ${hex(want[first])}, received ${hex(values[first])}`,
  );
}

export function expectEqual(what: string, got: unknown, want: unknown): void {
  const [a, b] = [JSON.stringify(got), JSON.stringify(want)];
  if (a !== b) throw new Error(`${what}: expected ${b}, received ${a}`);
}
