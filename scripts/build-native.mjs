#!/usr/bin/env node
/**
 * Builds the native library: build/fused_a2a_cuda.node with nvcc, build/fused_a2a_emulated.node with g++ over the
 * emulation, and the self-test programs build/selftest-cuda and build/selftest-emulated.
 *
 *   node scripts/build-native.mjs [cuda] [emulated] [--selftest] [--sanitize] [--resources] [--force] [--jobs N]
 *
 * Without a variant both are tried. A missing compiler is one line and exit 0, unless FUSED_A2A_NATIVE=required
 * (exit 1); FUSED_A2A_NATIVE=off builds nothing. A compile error is always exit 1. FUSED_A2A_CUDA_ARCHS lists compute
 * capabilities ("80;90;100"), the last also as PTX. --sanitize builds the emulated self-test with AddressSanitizer and
 * UndefinedBehaviorSanitizer; --resources prints registers, shared memory and spills of every kernel and image.
 */
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { basename, delimiter, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { numberOf, optionsOf } from "./options.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const source = join(root, "backends/cuda");
const build = join(root, "build");
const given = optionsOf(
  "usage: node scripts/build-native.mjs [cuda] [emulated] [--selftest] [--sanitize] [--resources] [--force] [--jobs N]",
  {
    ...Object.fromEntries(["selftest", "sanitize", "resources", "force"].map((name) => [name, { type: "boolean" }])),
    jobs: { type: "string" },
  },
  ["cuda", "emulated"],
);
const mode = process.env.FUSED_A2A_NATIVE ?? "auto";
const jobs = numberOf(given.jobs, 0) || availableParallelism();
const wanted = ["cuda", "emulated"].filter((name) => given.names.includes(name));
const variants = wanted.length > 0 ? wanted : given.sanitize ? ["emulated"] : ["cuda", "emulated"];

if (mode === "off") skip("FUSED_A2A_NATIVE=off", 0);
if (process.platform !== "linux" || !["x64", "arm64"].includes(process.arch)) {
  skip(`it supports linux x64 and arm64, this is ${process.platform} ${process.arch}`, mode === "required" ? 1 : 0);
}
for (const variant of variants) await (variant === "cuda" ? buildCuda() : buildEmulated());

async function buildCuda() {
  const nvcc = find("nvcc", ["CUDACXX"], ["CUDA_HOME", "CUDA_PATH"], "/usr/local/cuda/bin");
  if (nvcc === null) return missing("cuda", "no nvcc (looked at CUDACXX, CUDA_HOME, CUDA_PATH, PATH, /usr/local/cuda)");
  const version = /release (\d+)\.(\d+)/.exec(execFileSync(nvcc, ["--version"], { encoding: "utf8" }));
  if (version === null || Number(version[1]) < 12) return missing("cuda", `${nvcc} is older than CUDA 12`);
  const archs = (process.env.FUSED_A2A_CUDA_ARCHS ?? "80;90;100").split(";");
  const newest = archs.at(-1);
  const images = archs.map(
    (arch) => `-gencode=arch=compute_${arch},code=${arch === newest ? `[sm_${arch},compute_${arch}]` : `sm_${arch}`}`,
  );
  const names = `${archs.map((arch) => `sm_${arch}`).join(" ")} ptx_${newest}`;
  const flags = [
    ...["-std=c++20", "-O3", "--fmad=false", "-cudart", "static", "-Werror", "all-warnings"],
    ...["-Xcompiler=-fPIC,-Wall,-Wextra,-fvisibility=hidden", ...images],
    ...["-Xptxas", "-v"],
  ];
  // nvcc gives .cc files to the host compiler alone: only the .cu files are compiled once per image.
  const defines = [`-DFA2A_ARCHITECTURES="${names}"`, `-DFA2A_COMPILER="nvcc ${version[1]}.${version[2]}"`];
  const compile = (file, object) => [nvcc, [...flags, ...defines.map(quoteForNvcc), "-c", file, "-o", object]];
  const library = await objects("cuda", files("native").filter(isLibrary), compile);
  const link = [nvcc, ...["-cudart", "static"], "-Xcompiler=-fPIC"];
  await target(join(build, "fused_a2a_cuda.node"), [...library, ...(await binding("cuda"))], [...link, "-shared"]);
  if (given.selftest) {
    const test = await objects("cuda", files("native/selftest").filter(isSource), compile);
    await target(join(build, "selftest-cuda"), [...library, ...test], link);
  }
  if (given.resources) printResources(library.map((object) => readFileSync(`${object}.log`, "utf8")).join(""));
}

async function buildEmulated() {
  const gxx = find("g++", ["CXX"], [], "/usr/bin");
  if (gxx === null) return missing("emulated", "no g++ (looked at CXX and PATH)");
  const sanitize = given.sanitize;
  const folder = sanitize ? "sanitized" : "emulated";
  const checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-O1"];
  // -ffp-contract=off: no product is added to anything without being rounded first (docs/design.md 2.11).
  const flags = [
    ...[
      "-std=c++20",
      "-g1",
      "-DFA2A_EMULATED",
      "-fPIC",
      "-fvisibility=hidden",
      "-ffp-contract=off",
      "-Werror",
      "-Wall",
      "-Wextra",
    ],
    ...["-Wno-unknown-pragmas", "-Wno-missing-field-initializers", `-I${join(source, "emulation")}`],
    ...(sanitize ? checks : ["-O2"]),
  ];
  const compile = (file, object) => [gxx, [...flags, "-x", "c++", "-c", file, "-o", object]];
  const sources = [...files("native").filter(isLibrary), ...files("emulation").filter(isSource)];
  const library = await objects(folder, sources, compile);
  // Loaded at run time, where a real machine would have libnccl.
  const standIn = await objects(folder, files("emulation/nccl").filter(isSource), compile);
  const suffix = sanitize ? "_sanitized" : "";
  const link = [gxx, "-shared", "-pthread", ...(sanitize ? checks : [])];
  await target(join(build, `libfused_a2a_nccl_sockets${suffix}.so`), standIn, link);
  if (!sanitize)
    await target(
      join(build, "fused_a2a_emulated.node"),
      [...library, ...(await binding(folder))],
      [gxx, "-shared", "-pthread"],
    );
  if (!given.selftest && !sanitize) return;
  await checkNcclDeclarations(gxx);
  const test = await objects(folder, files("native/selftest").filter(isSource), compile);
  await target(
    join(build, sanitize ? "selftest-sanitized" : "selftest-emulated"),
    [...library, ...test],
    [gxx, "-pthread", ...(sanitize ? checks : [])],
  );
}

/** Compares our declarations of NCCL with a real nccl.h where one is installed; says so where none is. */
async function checkNcclDeclarations(gxx) {
  const homes = [process.env.NCCL_HOME, process.env.NCCL_ROOT, process.env.CUDA_HOME].filter(Boolean);
  const include = homes.flatMap((home) => ["-isystem", join(home, "include")]);
  const program = join(build, "ncclcheck");
  const [file] = files("native/ncclcheck");
  await run([gxx, ["-std=c++20", "-Wall", "-Wextra", "-Werror", ...include, file, "-o", program]]);
  console.log(execFileSync(program, { encoding: "utf8" }).trim());
}

/** The Node binding: plain C++ over the C header, the same for both variants. */
async function binding(folder) {
  const gxx = find("g++", ["CXX"], [], "/usr/bin");
  if (gxx === null || files("binding").length === 0) return [];
  const require = createRequire(join(root, "package.json"));
  const include = [require("node-api-headers").include_dir, require("node-addon-api").include_dir.replace(/"/g, "")];
  const flags = [
    ...[
      "-std=c++20",
      "-O2",
      "-fPIC",
      "-fvisibility=hidden",
      "-Werror",
      "-Wall",
      "-Wextra",
      "-Wno-missing-field-initializers",
    ],
    ...[
      "-DNAPI_VERSION=8",
      "-DNODE_ADDON_API_CPP_EXCEPTIONS",
      // An environment that is being torn down runs no JavaScript: errors then have nowhere to go.
      "-DNODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS",
      ...include.flatMap((path) => ["-isystem", resolve(root, path)]),
    ],
  ];
  return objects(folder, files("binding").filter(isSource), (file, object) => [
    gxx,
    [...flags, "-c", file, "-o", object],
  ]);
}

/** Compiles what is older than its sources or was made by another command line; `jobs` at a time. */
async function objects(folder, sources, compile) {
  const list = sources.map((file) => {
    const object = join(build, "objects", folder, `${file.slice(source.length + 1).replaceAll("/", "-")}.o`);
    const [tool, flags] = compile(file, object);
    return { object, command: [tool, [...flags, "-MMD", "-MF", `${object}.d`]] };
  });
  mkdirSync(join(build, "objects", folder), { recursive: true });
  const queue = list.filter(({ object, command }) => !fresh(object, newestSource(object), command));
  await Promise.all(
    Array.from({ length: jobs }, async () => {
      for (let job = queue.shift(); job !== undefined; job = queue.shift()) {
        writeFileSync(`${job.object}.log`, await run(job.command));
        writeFileSync(`${job.object}.command`, JSON.stringify(job.command));
      }
    }),
  );
  return list.map(({ object }) => object);
}

/** The latest change of anything the object was made from; never, when that is not known. */
function newestSource(object) {
  if (!existsSync(`${object}.d`)) return Number.POSITIVE_INFINITY;
  const names = readFileSync(`${object}.d`, "utf8").replaceAll("\\\n", " ").split(": ")[1].split(/\s+/).filter(Boolean);
  return Math.max(...names.map((name) => (existsSync(name) ? statSync(name).mtimeMs : Number.POSITIVE_INFINITY)));
}

async function target(output, inputs, [tool, ...flags]) {
  const command = [tool, [...flags, ...inputs, "-o", output]];
  if (fresh(output, Math.max(...inputs.map((file) => statSync(file).mtimeMs)), command)) {
    console.log(`native: ${output.slice(root.length)} is up to date`);
    return;
  }
  await run(command);
  mkdirSync(join(build, "objects"), { recursive: true });
  writeFileSync(join(build, "objects", `${basename(output)}.command`), JSON.stringify(command));
  console.log(`native: built ${output.slice(root.length)}`);
}

function fresh(output, newest, command) {
  if (given.force || !existsSync(output) || statSync(output).mtimeMs < newest) return false;
  const record = output.endsWith(".o") ? `${output}.command` : join(build, "objects", `${basename(output)}.command`);
  return existsSync(record) && readFileSync(record, "utf8") === JSON.stringify(command);
}

/** Runs a command; its output is shown and ends the build when it fails, and is returned when it does not. */
function run([tool, list]) {
  return new Promise((done) => {
    const child = spawn(tool, list, { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
    let text = "";
    child.stdout.on("data", (data) => (text += data));
    child.stderr.on("data", (data) => (text += data));
    child.on("error", (error) => stop(`${tool}: ${error.message}`));
    child.on("close", (status) =>
      status === 0 ? done(text) : stop(`${tool} ${list.join(" ")}\n${text}native: ${basename(tool)} failed`),
    );
  });
}

function stop(message) {
  console.error(message);
  process.exit(1);
}

/** One line per kernel and image: registers, shared memory, spills. */
function printResources(text) {
  const rows = [
    ...text.matchAll(
      /entry function '(\w+)' for 'sm_(\d+)'[\s\S]*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads[\s\S]*?Used (\d+) registers/g,
    ),
  ];
  const names = execFileSync("c++filt", { input: rows.map((row) => row[1]).join("\n"), encoding: "utf8" }).split("\n");
  const table = rows.map((row, i) => ({
    kernel: shorten(names[i]),
    arch: `sm_${row[2]}`,
    registers: row[6],
    stack: row[3],
    spills: Number(row[4]) + Number(row[5]),
  }));
  table.sort((a, b) => a.kernel.localeCompare(b.kernel) || a.arch.localeCompare(b.arch));
  console.log("kernel | image | registers | stack bytes | spilled bytes\n--- | --- | --- | --- | ---");
  for (const row of table) console.log(`${row.kernel} | ${row.arch} | ${row.registers} | ${row.stack} | ${row.spills}`);
  if (table.some((row) => row.spills > 0)) stop("native: a kernel spills registers");
}

function shorten(name) {
  return name
    .replace(/^void /, "")
    .replace(/\(.*\)$/, "")
    .replaceAll("kernels::", "")
    .replaceAll("unsigned ", "u");
}

function quoteForNvcc(define) {
  return define.replaceAll('"', '\\"').replaceAll(" ", "\\ ");
}

function files(folder) {
  const path = join(source, folder);
  return existsSync(path)
    ? readdirSync(path, { withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => join(path, entry.name))
        .sort()
    : [];
}

function isSource(file) {
  return /\.(cc|cu)$/.test(file);
}

function isLibrary(file) {
  return isSource(file) && !file.includes("/selftest/");
}

function find(name, variables, homes, fallback) {
  const places = [
    ...variables.map((variable) => process.env[variable]),
    ...homes.map((home) => process.env[home] && join(process.env[home], "bin", name)),
    ...(process.env.PATH ?? "").split(delimiter).map((folder) => folder && join(folder, name)),
    join(fallback, name),
  ];
  return places.find((path) => path && existsSync(path)) ?? null;
}

function missing(variant, why) {
  console.log(`native: ${variant} not built: ${why}; the other backends work`);
  if (mode === "required") process.exit(1);
}

function skip(why, status) {
  console.log(`native: nothing built: ${why}; the other backends work`);
  process.exit(status);
}
