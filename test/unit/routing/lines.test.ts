import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { memorySource } from "../../../core/io/bytes.ts";
import { encodeText } from "../../../core/io/text.ts";
import { parseJsonLine, readLines } from "../../../core/routing/import/lines.ts";

async function linesOf(bytes: Uint8Array): Promise<{ line: string; number: number }[]> {
  const lines = [];
  for await (const line of readLines(memorySource(bytes))) lines.push(line);
  return lines;
}

describe("reading lines", () => {
  it("gives what splitting the whole text gives", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.string({ unit: "grapheme" })), async (parts) => {
        const text = parts.join("\n").replaceAll("\r", "");
        const expected = text
          .split("\n")
          .map((line, i) => ({ line, number: i + 1 }))
          .filter(({ line }) => line.trim() !== "");
        expect(await linesOf(encodeText(text))).toEqual(expected);
      }),
    );
  });

  it("joins lines across the pieces of a large file, and reports progress", async () => {
    const long = "é".repeat(700_000);
    const text = `a\n${long}\r\nb\n\n${long}c`;
    expect((await linesOf(encodeText(text))).map(({ line, number }) => [line.length, number])).toEqual([
      [1, 1],
      [700_000, 2],
      [1, 3],
      [700_001, 5],
    ]);
    const fractions: number[] = [];
    for await (const _ of readLines(memorySource(encodeText(text)), (f) => fractions.push(f)));
    expect(fractions.at(-1)).toBe(1);
  });

  it("reads Python's NaN and Infinity as null, in values only", () => {
    expect(parseJsonLine("f", '{"a": [NaN, -Infinity,1], "b": "NaN", "c": Infinity}', 1)).toEqual({
      a: [null, null, 1],
      b: "NaN",
      c: null,
    });
  });
});
