export type LintRule = keyof typeof RULES;

export interface RuleInfo {
  /** error: the rows cannot be used; warning: look at them; info: good to know. */
  readonly severity: "error" | "warning" | "info";
  /** Whether its rows count as tainted. */
  readonly taints: boolean;
  readonly description: string;
  readonly remedy: string;
}

const rule = (severity: RuleInfo["severity"], taints: boolean, description: string, remedy: string): RuleInfo => ({
  severity,
  taints,
  description,
  remedy,
});

/**
 * What the linter looks for. All seven public vLLM logger dumps that were examined for this project break at least one of
 * the first two rules: up to 87 % of a file is the profile run that vLLM makes before the first request.
 */
export const RULES = {
  "identical-rows": rule(
    "error",
    true,
    "long runs of identical rows: a warm-up or profile run",
    "cut them when they are the head (convert --cut-head), else record again",
  ),
  "arithmetic-ids": rule(
    "error",
    true,
    "rows whose ids are an arithmetic sequence (4i..4i+3) far more often than chance gives",
    "such ids come from dummy routing: record again",
  ),
  "duplicate-ids": rule("error", true, "the same expert twice in a row", "drop the second or record again"),
  "ids-out-of-range": rule(
    "error",
    true,
    "ids below -1, or not below the stated number of experts",
    "state the right --experts (physical experts, with EPLB), or record again",
  ),
  "uniform-weights": rule("warning", true, "rows whose weights are all equal", "the router may have been bypassed"),
  "nan-weights": rule("warning", false, "weights that are NaN or infinite", "combine will give NaN for these tokens"),
  "negative-weights": rule("warning", false, "negative weights", "check that these are weights and not logits"),
  "zero-weights": rule("warning", false, "rows whose weights are all zero", "a step that was never filled in"),
  "unsorted-weights": rule("info", false, "rows whose weights do not descend", "harmless unless you rely on the order"),
  "weight-sums": rule(
    "warning",
    false,
    "weights whose sum wanders by more than 1 % around its median",
    "normal for softmax before top-k; else weights and ids do not belong together",
  ),
  "pad-rows": rule("info", false, "rows of -1 only", "they are kept, and counted apart from real tokens"),
  "dropped-slots": rule("info", false, "rows with some -1", "they are kept: slots without a choice"),
  "repeated-keys": rule(
    "info",
    false,
    "(token, layer) keys that the file gives more than once",
    "token numbers restart with every forward batch: do not use them as ids",
  ),
  "identical-layers": rule("error", false, "layers that are byte for byte the same", "one was recorded as the other"),
  "empty-layers": rule("info", false, "layers without any load", "they were not recorded, or their counts lost"),
} as const satisfies Record<string, RuleInfo>;
