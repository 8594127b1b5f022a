import { expect, test } from "vitest";
import { createGroup } from "../../backends/index.ts";

// A backend closes its groups and the group closes its backend: the first version called itself until memory ran out.
test.each(["oracle", "wasm"])("a group of createGroup closes with its backend, once (%s)", async (backend) => {
  const group = await createGroup({ backend, ranks: 2 });
  await group.close();
  await expect(group.close()).resolves.toBeUndefined();
});

test("an unknown backend is refused by name", async () => {
  await expect(createGroup({ backend: "abacus", ranks: 2 })).rejects.toThrow(/expected oracle, .*received abacus/);
});
