/** The suite on 2 nodes of 4 ranks and 4 nodes of 2: on some backends whole, and split over the parts of several hosts. */
import { CANDIDATES, SPLIT_CANDIDATES } from "./backends.ts";
import { describeSuite } from "./describe.ts";
import { CONFORMANCE_TESTS, NODE_TESTS } from "./suite.ts";

/** The others, and every part a process: nodes.sweep.test.ts. */
const WHOLE = ["oracle", "cuda"];
/** One rank per process; the other shapes in the sweep. */
const PER_RANK = /(nodes of \d|all bit patterns|fp8 rows with scales|empty node|padding 16)$/;

for (const candidate of CANDIDATES.filter(({ name }) => WHOLE.includes(name))) {
  await describeSuite("conformance on several nodes", candidate, NODE_TESTS);
}
const [perNode, perRank] = SPLIT_CANDIDATES;
await describeSuite("conformance", perNode, [...NODE_TESTS, ...CONFORMANCE_TESTS]);
const some = NODE_TESTS.filter(({ name }) => PER_RANK.test(name));
await describeSuite("conformance on several nodes", perRank, some);
