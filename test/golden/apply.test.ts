import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import type { Backend } from "../../core/backend.ts";
import { fusedA2A, scratch } from "../cli/run.ts";
import { CANDIDATES, tryOpen } from "../conformance/backends.ts";
import { GOLDEN_CASES } from "./cases.ts";
import { runCase, viaBackend } from "./run.ts";

const GOLDEN = fileURLToPath(new URL("../../../shared/golden/", import.meta.url));
const present = existsSync(GOLDEN);
const why = present ? "" : " (skipped: ../shared/golden is absent)";

async function viaCommandLine(op: string, input: string, output: string): Promise<void> {
  const { status, stderr } = fusedA2A("apply", op, input, "-o", output, "--backend", "oracle");
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
}

describe.skipIf(!present)(`golden cases through the command line${why}`, () => {
  test.each(GOLDEN_CASES.map((golden) => [`${golden.file} ${golden.prefix ?? ""}`, golden] as const))(
    "%s",
    (_, golden) => runCase(golden, viaCommandLine, GOLDEN, scratch()),
  );
});

for (const candidate of CANDIDATES) {
  const opened = present ? await tryOpen(candidate) : "../shared/golden is absent";
  const reason = typeof opened === "string" ? ` (skipped: ${opened})` : "";
  describe.skipIf(typeof opened === "string")(`golden cases on ${candidate.name}${reason}`, () => {
    const backend = opened as Backend;
    afterAll(() => backend.close());
    test.each(GOLDEN_CASES.map((golden) => [`${golden.file} ${golden.prefix ?? ""}`, golden] as const))(
      "%s",
      (_, golden) => runCase(golden, viaBackend(backend), GOLDEN, scratch()),
    );
  });
}
