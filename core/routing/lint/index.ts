/** The linter for tainted routing dumps. docs/formats.md lists the rules. */
export { type LintFinding, type LintReport, lintRouting } from "./report.ts";
export { type LintRule, RULES } from "./rules.ts";
