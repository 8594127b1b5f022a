import { describeRouting } from "./gptOss.ts";

const NODES = [2, 4];
const STYLES = [
  { name: "fused", args: ["--hidden", "160"] },
  { name: "hybrid-ep", args: ["--hidden", "160", "--style", "hybrid-ep", "--pad-multiple", "16"] },
  { name: "fused, fp8 rows", args: ["--hidden", "256", "--dtype", "fp8e4m3", "--layer", "3"] },
];
const runs = (layered: boolean) =>
  NODES.flatMap((nodes) =>
    STYLES.filter(({ args }) => args.includes("--layer") === layered).map((style) => ({ nodes, ...style })),
  );

await describeRouting("gpt-oss-20b.decode.small.safetensors", runs(false), 5);
await describeRouting("gpt-oss-20b.decode.small.safetensors", runs(true), 1);
