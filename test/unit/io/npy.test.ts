import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { DType } from "../../../core/dtype/dtype.ts";
import { InvalidArgument, InvalidFile } from "../../../core/errors.ts";
import { memorySink, memorySource } from "../../../core/io/bytes.ts";
import { openNpy, writeNpy } from "../../../core/io/npy.ts";
import { encodeText } from "../../../core/io/text.ts";
import { bytesOf, type Tensor, tensor } from "../../../core/tensor.ts";

async function written(value: Tensor): Promise<Uint8Array> {
  const sink = memorySink();
  await writeNpy(sink, value);
  return sink.bytes() ?? new Uint8Array(0);
}

function file(header: string, data: Uint8Array = new Uint8Array(0), version = 1): Uint8Array {
  const text = encodeText(header);
  const prefix = version === 1 ? [text.length & 255, text.length >> 8] : [text.length & 255, text.length >> 8, 0, 0];
  return Uint8Array.from([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, version, 0, ...prefix, ...text, ...data]);
}

const open = (bytes: Uint8Array) => openNpy(memorySource(bytes, "x.npy"));

describe("npy", () => {
  it("writes the bytes that numpy.save writes", async () => {
    // numpy 2: np.save(f, np.array([[1, 2, 3], [4, 5, 6]], np.int16))
    const expected = file(
      `${"{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3), }".padEnd(117)}\n`,
      new Uint8Array([1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0]),
    );
    expect(await written(tensor("i16", [2, 3], new Int16Array([1, 2, 3, 4, 5, 6])))).toEqual(expected);
  });

  it("reads versions 2 and 3, keys in any order, scalars and one dimension", async () => {
    const text = "{'shape': (2,), 'fortran_order': False, 'descr': '|u1'}\n";
    for (const version of [1, 2, 3]) {
      expect(await (await open(file(text, new Uint8Array([8, 9]), version))).read()).toEqual(
        tensor("u8", [2], new Uint8Array([8, 9])),
      );
    }
    const scalar = await open(file("{'descr': '|b1', 'fortran_order': True, 'shape': ()}", new Uint8Array([1])));
    expect(await scalar.read()).toEqual(tensor("bool", [], new Uint8Array([1])));
    await expect(scalar.readRows(0, 1)).rejects.toThrow(InvalidArgument);
  });

  it("round-trips every dtype it has, and row ranges", async () => {
    const dtypes: DType[] = ["fp16", "fp32", "u8", "bool", "i16", "i32", "i64"];
    const input = fc.record({
      dtype: fc.constantFrom(...dtypes),
      shape: fc.array(fc.nat(6), { minLength: 1, maxLength: 3 }),
      first: fc.nat(6),
    });
    await fc.assert(
      fc.asyncProperty(input, async ({ dtype, shape, first }) => {
        const value: Tensor = tensor(dtype, shape);
        bytesOf(value).forEach((_, i, bytes) => {
          bytes[i] = i * 7;
        });
        const opened = await open(await written(value));
        const read = await opened.read();
        expect([read.dtype, read.shape, bytesOf(read)]).toEqual([dtype, shape, bytesOf(value)]);
        const start = Math.min(first, shape[0]);
        const rows = await opened.readRows(start, shape[0] - start);
        const bytesPerRow = shape[0] > 0 ? bytesOf(value).length / shape[0] : 0;
        expect(bytesOf(rows)).toEqual(bytesOf(value).slice(start * bytesPerRow));
        await expect(opened.readRows(0, shape[0] + 1)).rejects.toThrow(InvalidArgument);
      }),
    );
  });

  const good = "{'descr': '<i2', 'fortran_order': False, 'shape': (1,), }\n";
  const refusals: [string, Uint8Array, RegExp][] = [
    ["nothing", new Uint8Array(0), /npy: expected at least 12 bytes, received 0/],
    ["another magic", encodeText("not an npy file at all"), /magic/],
    ["a future version", file(good, new Uint8Array(2), 9), /version: expected 1\.0, 2\.0 or 3\.0, received 9\.0/],
    ["doubles", file(good.replace("<i2", "<f8"), new Uint8Array(8)), /descr: expected <f2.*received <f8.*astype/],
    ["big-endian numbers", file(good.replace("<i2", ">i2"), new Uint8Array(2)), /received >i2/],
    ["objects", file(good.replace("<i2", "|O"), new Uint8Array(2)), /received \|O/],
    [
      "Fortran order",
      file(good.replace("False", "True").replace("(1,)", "(1, 1)"), new Uint8Array(2)),
      /ascontiguousarray/,
    ],
    ["missing data", file(good, new Uint8Array(1)), /file size: expected \d+ bytes for <i2 \[1\], received/],
    ["data behind the end", file(good, new Uint8Array(3)), /file size/],
    ["a header that is no dictionary", file("hello, this is long enough"), /header: expected \{'descr'/],
    ["a header longer than the file", file(good).slice(0, 20), /header length/],
    ["a huge shape", file(good.replace("(1,)", "(99999999999999999999,)")), /shape: expected whole numbers/],
  ];
  it.each(refusals)("refuses %s", async (_, bytes, message) => {
    const error = await open(bytes).catch((e) => e);
    expect(error).toBeInstanceOf(InvalidFile);
    expect(error.message).toMatch(message);
    expect(error.message).toContain("x.npy");
  });

  it("never fails in another way on damaged files", async () => {
    const bytes = await written(tensor("fp32", [3, 2]));
    const damage = fc.tuple(
      fc.nat(bytes.length),
      fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.nat(255)), { maxLength: 3 }),
    );
    await fc.assert(
      fc.asyncProperty(damage, async ([cut, edits]) => {
        const damaged = bytes.slice(0, cut);
        for (const [at, value] of edits) if (at < damaged.length) damaged[at] = value;
        const outcome = await open(damaged).then(
          async (opened) => void (await opened.read()),
          (error) => error,
        );
        if (outcome !== undefined) expect(outcome).toBeInstanceOf(InvalidFile);
        if (cut < bytes.length && edits.length === 0) expect(outcome).toBeInstanceOf(InvalidFile);
      }),
      { numRuns: 1000 },
    );
  });

  it("refuses to write bf16, and aborts the sink", async () => {
    let aborted = false;
    const sink = { ...memorySink(), abort: async () => void (aborted = true) };
    await expect(writeNpy(sink, tensor("bf16", [1]))).rejects.toThrow(
      /dtype: expected fp16.*received bf16.*safetensors/,
    );
    expect(aborted).toBe(true);
  });
});
