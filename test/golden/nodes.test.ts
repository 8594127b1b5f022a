import { CANDIDATES, SPLIT_CANDIDATES } from "../conformance/backends.ts";
import { describeGolden } from "./nodes.ts";

const WHOLE = ["oracle", "wasm, workers: 2", "webgpu", "cuda-emulated, devices: 4", "cuda"];

for (const candidate of CANDIDATES.filter(({ name }) => WHOLE.includes(name))) await describeGolden(candidate);
for (const candidate of SPLIT_CANDIDATES) await describeGolden(candidate);
