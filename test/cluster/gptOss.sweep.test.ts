/** All layers, and those of the larger capture: 8192 tokens of a decode step. */
import { describeRouting, STYLES } from "./gptOss.ts";

await describeRouting(
  "gpt-oss-20b.decode.small.safetensors",
  [2, 4].flatMap((nodes) => STYLES.map((style) => ({ nodes, ...style }))),
  5,
);
await describeRouting(
  "gpt-oss-20b.decode.small.safetensors",
  [2, 4].flatMap((nodes) =>
    STYLES.map(({ name, args }) => ({ nodes, perRank: true, name, args: [...args, "--layer", "1"] })),
  ),
  1,
);
await describeRouting(
  "gpt-oss-20b.decode.128x64.safetensors",
  [2, 4].map((nodes) => ({ nodes, name: "fused", args: ["--hidden", "64"] })),
  24,
);
