/** The header, the binding's comments, its export list and native.ts say the same. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { packageFolder } from "../../backends/cuda/loader.ts";

const cuda = join(packageFolder(), "backends/cuda");
const header = readFileSync(join(cuda, "native/include/fused_a2a.h"), "utf8");
const binding = readdirSync(join(cuda, "binding"))
  .filter((name) => name.endsWith(".cc"))
  .map((name) => readFileSync(join(cuda, "binding", name), "utf8"))
  .join("\n");
const types = readFileSync(join(cuda, "native.ts"), "utf8");

const oneLine = (text: string) => text.replace(/\s+/g, " ").trim();

/** C functions of the header as single lines, without comments and preprocessor lines. */
const functions = [
  ...header
    .replace(/\/\*[\s\S]*?\*\//g, "")
    .replace(/^#.*$/gm, "")
    .matchAll(/FA2A_API ([^;]+);/g),
].map((match) => oneLine(match[1]));
/** Blocks of // comments above the methods, as single lines. */
const comments = oneLine(binding.replaceAll("\n// ", " "));
const exported = [...binding.matchAll(/add\("(\w+)", binding::(\w+)\)/g)];
const surface = types.slice(types.indexOf("export interface NativeAddon"));
const methods = [...surface.matchAll(/^ {2}(\w+)\(/gm)].map((match) => match[1]);

/** The binding has its own way: sizes come with the dtype's name, and every tensor carries its info. */
const UNBOUND = new Set(["fa2a_dtype_bytes"]);

describe("signatures", () => {
  test("there is something to compare", () => {
    expect(functions.length).toBeGreaterThan(40);
    expect(methods.length).toBeGreaterThan(40);
  });

  test.each(functions.map((signature) => [/(\w+)\(/.exec(signature)?.[1] ?? "", signature]))(
    "%s stands above its method as in the header",
    (name, signature) => {
      const found = UNBOUND.has(name) ? binding.includes(`${name}(`) : comments.includes(signature);
      expect(found, signature).toBe(true);
    },
  );

  test("exports, types and TypeScript comments name the same methods", () => {
    expect(exported.map((match) => match[1])).toEqual(exported.map((match) => match[2]));
    const names = exported.map((match) => match[1]).sort();
    expect(names).toEqual([...methods].sort());
    const commented = [...binding.matchAll(/^\/\/ (\w+)\([^)]*\)?.*:/gm)].map((match) => match[1]);
    expect(names.filter((name) => !commented.includes(name))).toEqual([]);
  });
});
