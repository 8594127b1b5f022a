#!/usr/bin/env node
/**
 * GB/s of each WebGPU row kernel beside memcpy in the same run: `node dist/bench/webgpuKernels.js [--json]`. Rows are
 * 7168 columns wide, data is on the device, one launch and its completion are timed; the median of the rounds counts.
 */
import { pathToFileURL } from "node:url";
import { adapterTitle, createWebGpuBackend, type WebGpuBackend } from "../backends/webgpu/index.ts";
import {
  castBackKernel,
  castToFp8Kernel,
  combineKernel,
  dispatchKernel,
  scaleKernel,
} from "../backends/webgpu/kernels.ts";
import { GPUUsage, type Kernel, STORAGE } from "../backends/webgpu/launcher.ts";
import { describeMachine } from "./machine.ts";
import { measure, type Timed } from "./measure.ts";

const HIDDEN = 7168;
const MEMCPY = "memcpy (Buffer.copy)";

export interface KernelResult {
  readonly kernel: string;
  readonly workgroupSize: number | null;
  /** What `GBps` counts: bytes read and written by the kernel's rows, or bytes copied. */
  readonly bytes: number;
  readonly medianMs: number;
  readonly GBps: number;
  readonly timesMemcpy: number;
}

interface Job extends Timed {
  readonly bytes: number;
  readonly workgroupSize: number | null;
}

export interface KernelBenchOptions {
  /** Bytes of the largest operand. */
  readonly operandBytes: number;
  readonly workgroupSizes: readonly number[];
  readonly repeats: number;
  readonly progress?: (fraction: number) => void;
}

export async function benchKernels(backend: WebGpuBackend, options: KernelBenchOptions): Promise<KernelResult[]> {
  const jobs = [...hostJobs(backend, options.operandBytes), ...(await kernelJobs(backend, options))];
  const samples = await measure(jobs, {
    warmUps: 2,
    repeats: options.repeats,
    refresh: () => {},
    progress: options.progress,
  });
  const rate = (job: Job) => job.bytes / 1e6 / (samples.get(job.name)?.medianMs ?? Number.NaN);
  const memcpy = rate(jobs[0]);
  return jobs.map((job) => ({
    kernel: job.name.replace(/, W = \d+$/, ""),
    workgroupSize: job.workgroupSize,
    bytes: job.bytes,
    medianMs: samples.get(job.name)?.medianMs ?? Number.NaN,
    GBps: rate(job),
    timesMemcpy: rate(job) / memcpy,
  }));
}

/** memcpy, and what moves data between host and device. */
function hostJobs(backend: WebGpuBackend, bytes: number): Job[] {
  const { gpu } = backend.context.device;
  const source = Buffer.alloc(bytes, 1);
  const copy = Buffer.alloc(bytes, 2);
  const onDevice = gpu.createBuffer({ size: bytes, usage: STORAGE });
  const staging = gpu.createBuffer({ size: bytes, usage: GPUUsage.MAP_READ | GPUUsage.COPY_DST });
  const other = gpu.createBuffer({ size: bytes, usage: STORAGE });
  const submit = async (encode: (encoder: GPUCommandEncoder) => void) => {
    const encoder = gpu.createCommandEncoder();
    encode(encoder);
    gpu.queue.submit([encoder.finish()]);
    await gpu.queue.onSubmittedWorkDone();
  };
  const rowBytes = HIDDEN * 2;
  const rows = Math.floor(bytes / rowBytes);
  return [
    { name: MEMCPY, bytes, workgroupSize: null, run: () => source.copy(copy) },
    {
      name: "writeBuffer",
      bytes,
      workgroupSize: null,
      run: async () => {
        gpu.queue.writeBuffer(onDevice, 0, source);
        await submit(() => {});
      },
    },
    {
      name: "read back (copy, map, copy)",
      bytes,
      workgroupSize: null,
      run: async () => {
        await submit((encoder) => encoder.copyBufferToBuffer(onDevice, 0, staging, 0, bytes));
        await staging.mapAsync(1);
        copy.set(new Uint8Array(staging.getMappedRange()));
        staging.unmap();
      },
    },
    {
      name: "dispatch by copyBufferToBuffer per row",
      bytes: rows * rowBytes,
      workgroupSize: null,
      run: () =>
        submit((encoder) => {
          for (let row = 0; row < rows; row++) {
            encoder.copyBufferToBuffer(onDevice, scattered(row, rows) * rowBytes, other, row * rowBytes, rowBytes);
          }
        }),
    },
  ];
}

/** A permutation that is neither ascending nor far from it. */
function scattered(row: number, rows: number): number {
  return (row * 7 + Math.floor(row / 13)) % rows;
}

async function kernelJobs(backend: WebGpuBackend, options: KernelBenchOptions): Promise<Job[]> {
  const { device, launcher } = backend.context;
  const { gpu } = device;
  const buffer = (bytes: number, contents?: Uint32Array<ArrayBuffer>) => {
    const made = gpu.createBuffer({ size: Math.ceil(bytes / 256) * 256, usage: STORAGE });
    if (contents) gpu.queue.writeBuffer(made, 0, contents);
    return made;
  };
  const x = buffer(options.operandBytes, new Uint32Array(options.operandBytes / 4).fill(0x3f813f82));
  const out = buffer(options.operandBytes);
  const jobs: Job[] = [];
  const add = async (
    name: string,
    kernel: Kernel,
    bytes: number,
    params: number[],
    buffers: GPUBuffer[],
    numItems: number,
  ) => {
    const pipeline = await launcher.pipeline(kernel);
    const workgroupSize = kernel.workgroup[0] * kernel.workgroup[1];
    jobs.push({
      name: `${name}, W = ${workgroupSize}`,
      bytes,
      workgroupSize,
      run: async () => {
        const encoder = gpu.createCommandEncoder();
        const pass = encoder.beginComputePass();
        launcher.encode(pass, kernel, pipeline, { params, buffers, numItems });
        pass.end();
        gpu.queue.submit([encoder.finish()]);
        await gpu.queue.onSubmittedWorkDone();
      },
    });
  };
  const wide = (kernel: Kernel, W: number): Kernel => ({
    ...kernel,
    workgroup: kernel.workgroup[0] === 1 ? [1, W] : [W, 1],
  });
  for (const W of options.workgroupSizes) {
    const bf16Units = HIDDEN / 8;
    const rows = Math.floor(options.operandBytes / (bf16Units * 16));
    const from = buffer(
      rows * 4,
      Uint32Array.from({ length: rows }, (_, row) => scattered(row, rows)),
    );
    const moved = rows * bf16Units * 16;
    await add(
      "dispatch",
      wide(dispatchKernel(device, 16, bf16Units), W),
      2 * moved,
      [rows, bf16Units],
      [from, x, out],
      rows,
    );
    for (const [dtype, units] of [
      ["bf16", bf16Units],
      ["fp16", bf16Units],
      ["fp32", HIDDEN / 4],
    ] as const) {
      const numRows = Math.floor(options.operandBytes / (units * 16));
      for (const fanIn of dtype === "bf16" ? [2, 5, 8] : [5]) {
        const sums = Math.floor((numRows - 1) / (fanIn + 1));
        const table = new Uint32Array(sums * (fanIn + 1));
        for (let n = 0; n < sums; n++) {
          for (let i = 0; i <= fanIn; i++) table[n * (fanIn + 1) + i] = 1 + i * sums + n;
        }
        const segments = buffer(table.byteLength, table);
        const bytes = sums * (fanIn + 1) * units * 16;
        const kernel = wide(combineKernel(device, dtype, units, fanIn), W);
        await add(`combine ${dtype}, ${fanIn} rows to 1`, kernel, bytes, [sums, units], [segments, x], sums);
      }
      const factors = buffer(numRows * 4, new Uint32Array(numRows).fill(0x3f800001));
      const bytes = 2 * numRows * units * 16;
      await add(
        `scale ${dtype}`,
        wide(scaleKernel(device, dtype, units), W),
        bytes,
        [numRows, units],
        [x, factors, out],
        numRows,
      );
    }
    const blocks = HIDDEN / 128;
    const scales = buffer(rows * blocks * 4, new Uint32Array(rows * blocks).fill(0x3f000001));
    const fp8Units = HIDDEN / 16;
    const castBytes = rows * (HIDDEN * 3 + blocks * 4);
    await add(
      "cast to fp8, bf16",
      wide(castToFp8Kernel(device, "bf16"), W),
      castBytes,
      [rows, bf16Units, fp8Units, blocks],
      [x, out, scales],
      rows * blocks,
    );
    await add(
      "cast back",
      wide(castBackKernel(device, bf16Units), W),
      castBytes,
      [rows, HIDDEN / 8, bf16Units, blocks],
      [x, scales, out],
      rows,
    );
  }
  return jobs;
}

function table(results: readonly KernelResult[]): string {
  const lines = results.map(
    ({ kernel, workgroupSize, medianMs, GBps, timesMemcpy }) =>
      `| ${kernel} | ${workgroupSize ?? "-"} | ${medianMs.toFixed(1)} | ${GBps.toFixed(2)} | ${timesMemcpy.toFixed(2)} |`,
  );
  return ["| what | W | median ms | GB/s | x memcpy |", "|---|---|---|---|---|", ...lines].join("\n");
}

async function main(): Promise<void> {
  const backend = await createWebGpuBackend();
  const { chosen } = backend.report;
  const workgroupSizes = chosen?.isCpu ? [4, 8, 16] : [64, 128, 256];
  const results = await benchKernels(backend, { operandBytes: 64 * 2 ** 20, workgroupSizes, repeats: 5 });
  const machine = describeMachine("");
  if (process.argv.includes("--json")) console.log(JSON.stringify({ machine, adapter: chosen, results }, null, 2));
  else {
    console.log(
      `${chosen === null ? "" : adapterTitle(chosen)}; ${machine.cores} cores, load ${machine.load}\n\n${table(results)}`,
    );
  }
  await backend.close();
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) await main();
