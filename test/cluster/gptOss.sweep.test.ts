/** All layers of the larger capture: 8192 tokens of a decode step. */
import { describeRouting } from "./gptOss.ts";

await describeRouting(
  "gpt-oss-20b.decode.128x64.safetensors",
  [2, 4].flatMap((nodes) => [
    { nodes, name: "fused", args: ["--hidden", "64"] },
    { nodes, name: "hybrid-ep", args: ["--hidden", "64", "--style", "hybrid-ep"] },
  ]),
  24,
);
