import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type DType, elementBytes } from "../../../core/dtype/dtype.ts";
import { InvalidArgument, InvalidFile } from "../../../core/errors.ts";
import { type ByteSource, memorySink, memorySource } from "../../../core/io/bytes.ts";
import { openSafetensors, safetensorsBytes, writeSafetensors } from "../../../core/io/safetensors/index.ts";
import { encodeText } from "../../../core/io/text.ts";
import { bytesOf, type Tensor, tensor } from "../../../core/tensor.ts";

/** A file made by hand: header text, then data. */
function file(header: string | Uint8Array, data: Uint8Array = new Uint8Array(0), length?: bigint): Uint8Array {
  const text = typeof header === "string" ? encodeText(header) : header;
  const bytes = new Uint8Array(8 + text.byteLength + data.byteLength);
  new DataView(bytes.buffer).setBigUint64(0, length ?? BigInt(text.byteLength), true);
  bytes.set(text, 8);
  bytes.set(data, 8 + text.byteLength);
  return bytes;
}

const open = (bytes: Uint8Array) => openSafetensors(memorySource(bytes, "x.safetensors"));
const f32 = (begin: number, end: number, shape = [(end - begin) / 4]) =>
  JSON.stringify({ dtype: "F32", shape, data_offsets: [begin, end] });

describe("reading safetensors", () => {
  it("reads a file written by hand, aligned or not", async () => {
    // The header has an odd length, so that the float tensor starts at an odd offset.
    const header = `{"a":${f32(0, 8)},"b":{"dtype":"BOOL","shape":[3],"data_offsets":[8,11]},"__metadata__":{"k":"v"}}`;
    const padded = header.length % 2 === 0 ? `${header} ` : header;
    const data = new Uint8Array(11);
    new DataView(data.buffer).setFloat32(0, 1.5, true);
    new DataView(data.buffer).setFloat32(4, -2, true);
    data.set([1, 0, 1], 8);
    const opened = await open(file(padded, data));
    expect(opened.metadata).toEqual({ k: "v" });
    expect(opened.tensors.get("a")).toEqual({ dtype: "fp32", shape: [2], offset: 8 + padded.length, bytes: 8 });
    expect(await opened.read("a")).toEqual(tensor("fp32", [2], new Float32Array([1.5, -2])));
    expect(await opened.read("b")).toEqual(tensor("bool", [3], new Uint8Array([1, 0, 1])));
  });

  it("reads scalars, empty tensors and row ranges", async () => {
    const entries = [
      { name: "scalar", tensor: tensor("i64", [], new BigInt64Array([7n])) },
      { name: "none", tensor: tensor("fp32", [0, 5]) },
      { name: "rows", tensor: tensor("i32", [3, 2], new Int32Array([0, 1, 2, 3, 4, 5])) },
    ];
    const opened = await open(await safetensorsBytes({}, entries));
    expect((await opened.read("scalar")).data).toEqual(new BigInt64Array([7n]));
    expect((await opened.read("none")).shape).toEqual([0, 5]);
    expect(await opened.readRows("rows", 1, 2)).toEqual(tensor("i32", [2, 2], new Int32Array([2, 3, 4, 5])));
    expect((await opened.readRows("rows", 3, 0)).shape).toEqual([0, 2]);
    await expect(opened.readRows("rows", 2, 2)).rejects.toThrow(InvalidArgument);
    await expect(opened.readRows("scalar", 0, 1)).rejects.toThrow(InvalidArgument);
  });

  it("knows tensors of dtypes it cannot hold, and refuses to read them by name", async () => {
    const opened = await open(file('{"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}', new Uint8Array(8)));
    expect(opened.unsupported.get("a")).toEqual({ fileDtype: "F64", shape: [1] });
    await expect(opened.read("a")).rejects.toThrow(
      /^tensor a: expected BF16.*, received F64 at x\.safetensors; convert/,
    );
    await expect(opened.read("b")).rejects.toThrow(/^tensor b: expected a tensor of this name, received none/);
  });

  it("closes the source when the header is bad", async () => {
    let closed = false;
    const source: ByteSource = {
      ...memorySource(new Uint8Array(3)),
      close: async () => {
        closed = true;
      },
    };
    await expect(openSafetensors(source)).rejects.toThrow(InvalidFile);
    expect(closed).toBe(true);
  });

  const eight = new Uint8Array(8);
  const refusals: [string, Uint8Array, RegExp][] = [
    ["an empty file", new Uint8Array(0), /safetensors: expected at least the 8 bytes.*received 0 bytes/],
    ["a header longer than the file", file("{}", eight, 99n), /header length: expected 2\.\.10 .*received 99/],
    ["a header over the limit", file("{}", eight, 1n << 62n), /header length: expected at most 100000000 bytes/],
    ["a header of zero bytes", file("", eight), /header length: expected 2/],
    ["a header that is not UTF-8", file(new Uint8Array([0xff, 0xfe])), /header: expected UTF-8 text/],
    ["a header that is not JSON", file('{"a":'), /header: expected a JSON object/],
    ["a header that is an array", file("[1]"), /header: expected a JSON object, received an array/],
    ["an entry that is no object", file('{"a":3}'), /tensor a: expected an object.*received 3/],
    ["an unknown dtype", file('{"a":{"dtype":"Q3","shape":[],"data_offsets":[0,8]}}', eight), /a\.dtype.*"Q3"/],
    ["a negative size", file('{"a":{"dtype":"U8","shape":[-8],"data_offsets":[0,8]}}', eight), /a\.shape.*\[-8\]/],
    ["a size of 2^60", file('{"a":{"dtype":"U8","shape":[1152921504606846976],"data_offsets":[0,8]}}', eight), /shape/],
    ["offsets in reverse", file('{"a":{"dtype":"U8","shape":[0],"data_offsets":[8,0]}}', eight), /begin <= end/],
    ["data past the end", file(`{"a":${f32(0, 12)}}`, eight), /a\.data_offsets: expected begin <= end <= 8/],
    [
      "a shape that does not fit",
      file(`{"a":${f32(0, 8, [3])}}`, eight),
      /expected 12 bytes for F32 \[3\], received 8/,
    ],
    ["tensors that overlap", file(`{"a":${f32(0, 8)},"b":${f32(4, 8)}}`, eight), /4 bytes that overlap a/],
    ["a gap", file(`{"a":${f32(0, 4)},"b":${f32(8, 12)}}`, new Uint8Array(12)), /a gap of 4 bytes after a/],
    ["bytes behind the data", file(`{"a":${f32(0, 4)}}`, eight), /file size: expected.*4 bytes behind a/],
    [
      "a name that comes twice",
      file(`{"a":${f32(0, 4)},"\\u0061":${f32(4, 8)}}`, eight),
      /tensor a: expected each name/,
    ],
    ["metadata that is no string", file('{"__metadata__":{"k":1}}'), /__metadata__\.k: expected a string, received 1/],
  ];
  it.each(refusals)("refuses %s", async (_, bytes, message) => {
    const error = await open(bytes).catch((e) => e);
    expect(error).toBeInstanceOf(InvalidFile);
    expect(error.message).toMatch(message);
    expect(error.message).toContain("x.safetensors, offset ");
    expect(error.message).not.toContain("\n");
  });

  it("survives values nested deeply", async () => {
    const deep = "[".repeat(200_000) + "]".repeat(200_000);
    await expect(open(file(`{"a":${deep}}`))).rejects.toThrow(InvalidFile);
  });

  it("never fails in another way on damaged files", async () => {
    const good = await safetensorsBytes({ format: "x" }, [
      { name: "a", tensor: tensor("fp32", [2, 3]) },
      { name: "b", tensor: tensor("u8", [5]) },
    ]);
    const damage = fc.record({
      cut: fc.option(fc.nat(good.length)),
      edits: fc.array(fc.tuple(fc.nat(good.length - 1), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }),
    });
    await fc.assert(
      fc.asyncProperty(damage, async ({ cut, edits }) => {
        const bytes = good.slice(0, cut ?? good.length);
        for (const [at, value] of edits) if (at < bytes.length) bytes[at] = value;
        const outcome = await open(bytes).then(
          async (opened) => {
            for (const name of opened.tensors.keys()) await opened.read(name);
            return null;
          },
          (error) => error,
        );
        if (outcome !== null) expect(outcome).toBeInstanceOf(InvalidFile);
        if (cut !== null && cut < good.length && edits.length === 0) expect(outcome).toBeInstanceOf(InvalidFile);
      }),
      { numRuns: 2000 },
    );
  });
});

describe("writing safetensors", () => {
  const dtypes: DType[] = ["bf16", "fp16", "fp32", "fp8e4m3", "u8", "bool", "i16", "i32", "i64"];
  const anyTensor = fc
    .record({
      dtype: fc.constantFrom(...dtypes),
      shape: fc.array(fc.nat(5), { maxLength: 3 }),
      seed: fc.nat(255),
    })
    .map(({ dtype, shape, seed }) => {
      const value = tensor(dtype, shape) as Tensor;
      bytesOf(value).forEach((_, i, bytes) => {
        bytes[i] = i * 31 + seed;
      });
      return value;
    });

  it("round-trips names, metadata and tensors of every dtype, aligned to their elements", async () => {
    const names = fc.string({ unit: "grapheme" }).filter((name) => name !== "__metadata__");
    const input = fc.tuple(fc.dictionary(names, anyTensor), fc.dictionary(fc.string(), fc.string()));
    await fc.assert(
      fc.asyncProperty(input, async ([tensors, metadata]) => {
        const entries = Object.entries(tensors).map(([name, value]) => ({ name, tensor: value }));
        const bytes = await safetensorsBytes(metadata, entries);
        const opened = await open(bytes);
        expect(opened.metadata).toEqual({ ...metadata });
        expect(opened.tensors.size).toBe(entries.length);
        for (const { name, tensor: value } of entries) {
          const read = await opened.read(name);
          expect(read.dtype).toBe(value.dtype);
          expect(read.shape).toEqual(value.shape);
          expect(bytesOf(read)).toEqual(bytesOf(value));
          expect((opened.tensors.get(name)?.offset ?? 1) % elementBytes(value.dtype)).toBe(0);
        }
        expect(await safetensorsBytes(metadata, [...entries].reverse())).toEqual(bytes);
      }),
      { numRuns: 200 },
    );
  });

  it("streams chunks and gives the same bytes as the whole tensor", async () => {
    const value = tensor(
      "i32",
      [100, 3],
      Int32Array.from({ length: 300 }, (_, i) => i * i),
    );
    async function* chunks() {
      for (let at = 0; at < 1200; at += 128) yield bytesOf(value).subarray(at, at + 128);
    }
    const streamed = await safetensorsBytes({}, [{ name: "a", dtype: "i32", shape: value.shape, chunks }]);
    expect(streamed).toEqual(await safetensorsBytes({}, [{ name: "a", tensor: value }]));
  });

  it.each([
    ["too few", 3],
    ["too many", 5],
  ])("aborts the sink on %s chunks", async (_, count) => {
    const sink = memorySink();
    let aborted = false;
    const watched = {
      ...sink,
      abort: async () => {
        aborted = true;
      },
    };
    const chunks = () => Array.from({ length: count }, () => new Uint8Array(4));
    const entries = [{ name: "a", dtype: "i32" as const, shape: [4], chunks }];
    await expect(writeSafetensors(watched, {}, entries)).rejects.toThrow(
      /tensor a: expected chunks of 16 bytes in all/,
    );
    expect(aborted).toBe(true);
    expect(sink.bytes()).toBe(null);
  });

  it("refuses a name twice and the reserved name", async () => {
    const value = tensor("u8", [1]);
    const twice = [
      { name: "a", tensor: value },
      { name: "a", tensor: value },
    ];
    await expect(safetensorsBytes({}, twice)).rejects.toThrow(InvalidArgument);
    await expect(safetensorsBytes({}, [{ name: "__metadata__", tensor: value }])).rejects.toThrow(InvalidArgument);
  });

  it("writes the documented layout", async () => {
    const bytes = await safetensorsBytes({ b: "2", a: "1" }, [
      { name: "t", tensor: tensor("u8", [2], new Uint8Array([8, 9])) },
    ]);
    const json = '{"__metadata__":{"a":"1","b":"2"},"t":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}';
    const length = Math.ceil(json.length / 8) * 8;
    expect(bytes).toEqual(file(json.padEnd(length), new Uint8Array([8, 9])));
  });
});
