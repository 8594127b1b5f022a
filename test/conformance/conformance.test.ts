import { CANDIDATES } from "./backends.ts";
import { describeSuite } from "./describe.ts";
import { CONFORMANCE_TESTS } from "./suite.ts";

for (const candidate of CANDIDATES) await describeSuite("conformance", candidate, CONFORMANCE_TESTS);
