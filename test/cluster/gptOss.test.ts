/** One layer; all of them in gptOss.sweep.test.ts. */
import { describeRouting, STYLES } from "./gptOss.ts";

await describeRouting(
  "gpt-oss-20b.decode.small.safetensors",
  [2, 4].flatMap((nodes) => STYLES.map(({ name, args }) => ({ nodes, name, args: [...args, "--layer", "3"] }))),
  1,
);
