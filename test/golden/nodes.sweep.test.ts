import { PROCESS_CANDIDATES } from "../conformance/backends.ts";
import { describeGolden } from "./nodes.ts";

for (const candidate of PROCESS_CANDIDATES) await describeGolden(candidate);
