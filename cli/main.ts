#!/usr/bin/env node
/** The command line: a list of commands and one place for errors and exit codes (0 ok, 1 the answer is no, 2 bad input). */
import { Command, CommanderError } from "commander";
import { FusedA2AError } from "../core/errors.ts";
import { apply } from "./apply.ts";
import { check } from "./check.ts";
import { convert } from "./convert.ts";
import { doctor } from "./doctor.ts";
import { inspect } from "./inspect.ts";
import { run } from "./run.ts";
import { simulate } from "./simulate.ts";
import { verify } from "./verify.ts";
import { version } from "./version.ts";

const program = new Command("fused-a2a")
  .description("MoE dispatch/combine: run it, verify it bit for bit, predict it, browse it")
  .version(version())
  .configureHelp({ sortSubcommands: false })
  .exitOverride();

for (const command of [run(), verify(), apply(), inspect(), convert(), simulate(), check(), doctor()])
  program.addCommand(command.exitOverride());

try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = report(error);
}

function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  if (error instanceof FusedA2AError) {
    process.stderr.write(`fused-a2a: ${error.message}\n`);
    return 2;
  }
  process.stderr.write(`fused-a2a: unexpected error; please report it\n${(error as Error)?.stack ?? error}\n`);
  return 2;
}
