#!/usr/bin/env node
/** The command line: a list of commands and one place for errors and exit codes (0 ok, 1 the answer is no, 2 bad input). */
import { Command, CommanderError } from "commander";
import { FusedA2AError, type Wait } from "../core/errors.ts";
import { apply } from "./apply.ts";
import { bench } from "./bench.ts";
import { check } from "./check.ts";
import { convert } from "./convert.ts";
import { doctor } from "./doctor.ts";
import { exportView } from "./export.ts";
import { inspect } from "./inspect.ts";
import { printResult } from "./output.ts";
import { run } from "./run.ts";
import { simulate } from "./simulate.ts";
import { verify } from "./verify.ts";
import { version } from "./version.ts";
import { view } from "./view.ts";
import { describeWaits } from "./waits.ts";

// A reader that has seen enough (| head) closes the pipe: that is its right, not an error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit();
  throw error;
});

const program = new Command("fused-a2a")
  .description("MoE dispatch/combine: run it, verify it bit for bit, predict it, browse it")
  .version(version())
  .configureHelp({ sortSubcommands: false })
  .exitOverride();

const COMMANDS = [
  run(),
  verify(),
  apply(),
  simulate(),
  inspect(),
  convert(),
  view(),
  exportView(),
  check(),
  bench(),
  doctor(),
];
for (const command of COMMANDS) program.addCommand(throwing(command));

try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = report(error);
}

/** Errors of usage come here instead of ending the process, those of subcommands too. */
function throwing(command: Command): Command {
  for (const child of command.commands) throwing(child);
  return command.exitOverride();
}

function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  if (error instanceof FusedA2AError) {
    process.stderr.write(`fused-a2a: ${error.message}\n`);
    if (error.waits !== undefined) reportWaits(error, error.waits);
    return 2;
  }
  process.stderr.write(`fused-a2a: unexpected error; please report it\n${(error as Error)?.stack ?? error}\n`);
  return 2;
}

/** The table goes below the line, or, for machines, on standard output with the rest. */
function reportWaits({ code, message }: FusedA2AError, waits: readonly Wait[]): void {
  if (process.argv.includes("--json")) printResult({ error: { code, message, waits } }, () => "", true);
  else process.stderr.write(`${describeWaits(waits)}\n`);
}
