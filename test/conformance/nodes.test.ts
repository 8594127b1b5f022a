/** The suite on 2 nodes of 4 ranks and 4 nodes of 2: on some backends whole, and split over the parts of several hosts. */
import { CANDIDATES, SPLIT_CANDIDATES } from "./backends.ts";
import { describeSuite } from "./describe.ts";
import { CONFORMANCE_TESTS, NODE_TESTS } from "./suite.ts";

/** The others, and every part a process: nodes.sweep.test.ts. */
const WHOLE = ["oracle", "cuda"];
/** Of 4 nodes, and where every part is one rank, these; the sweep has all. */
const SOME = /(nodes of \d|all bit patterns|fp8 rows with scales|empty node|padding 16)$/;
const some = NODE_TESTS.filter(({ name }) => SOME.test(name));
const most = NODE_TESTS.filter(({ name, shape }) => shape.ranksPerNode === 4 || SOME.test(name));

for (const candidate of CANDIDATES.filter(({ name }) => WHOLE.includes(name))) {
  await describeSuite("conformance on several nodes", candidate, NODE_TESTS);
}
const [perNode, perRank] = SPLIT_CANDIDATES;
await describeSuite("conformance", perNode, [...most, ...CONFORMANCE_TESTS]);
await describeSuite("conformance on several nodes", perRank, some);
