import { afterEach, describe, expect, test } from "vitest";
import { InvalidArgument } from "../../../core/errors.ts";
import { resetBuffer, resetHybridEpBuffer } from "../../../core/functions/buffers.ts";
import { recordingGroup } from "./recording.ts";
import { REFUSALS } from "./refusals.ts";

afterEach(() => {
  resetBuffer();
  resetHybridEpBuffer();
});

describe("bad input is an InvalidArgument that names what is wrong", () => {
  test.each(REFUSALS)("$name", async ({ run, message }) => {
    const error = await run(await recordingGroup(2)).then(
      () => new Error("nothing was refused"),
      (thrown: unknown) => thrown as Error,
    );
    expect(error).toBeInstanceOf(InvalidArgument);
    expect(error.message).toMatch(message);
    expect(error.message).not.toContain("\n");
  });
});
