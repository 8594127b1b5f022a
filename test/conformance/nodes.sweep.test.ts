/** Groups whose parts are processes of their own, and the rest of the backends on several nodes. */
import { CANDIDATES, PROCESS_CANDIDATES, SPLIT_CANDIDATES } from "./backends.ts";
import { describeSuite } from "./describe.ts";
import { CONFORMANCE_TESTS, NODE_TESTS } from "./suite.ts";

for (const candidate of PROCESS_CANDIDATES) {
  await describeSuite("conformance", candidate, [...NODE_TESTS, ...CONFORMANCE_TESTS]);
}
for (const candidate of SPLIT_CANDIDATES) {
  await describeSuite("conformance", candidate, [...NODE_TESTS, ...CONFORMANCE_TESTS]);
}
for (const candidate of CANDIDATES) await describeSuite("conformance on several nodes", candidate, NODE_TESTS);
