/** Whether the device's float32 arithmetic already counts subnormal terms, sums and factors as zero (design 2.11). */
import { add, bitsOf, floatOf, flush, multiply } from "../../core/dtype/float32.ts";
import { type Context, Lease } from "./context.ts";
import { itemKernel } from "./kernels.ts";
import { STORAGE } from "./launcher.ts";
import { streaming } from "./stream.ts";

/** Zeros, subnormals small and large, the first normals and their neighbours, and factors that make them large. */
const MAGNITUDES = [
  0, 1, 2, 0x1234, 0x3fffff, 0x400000, 0x7ffffe, 0x7fffff, 0x800000, 0x800001, 0x87ffff, 0x880000, 0xc00000, 0xffffff,
  0x1000000, 0x1000001, 0x1800000, 0x2000000, 0x5800000, 0x3f800000, 0x4b000000, 0x5f000000, 0x7f000000,
];

/**
 * Adds and multiplies every pair of values on the device. True only for a software adapter, where the same instruction
 * does every addition, and only if every sum equals the flushed sum of flushed terms (zeros of either sign alike: no sum
 * tells them apart) and every product, under the rule for products, that of flushed factors.
 */
export async function flushesSubnormals(context: Context): Promise<boolean> {
  const { device, launcher, pool } = context;
  if (!device.adapter.isCpu) return false;
  const values = MAGNITUDES.flatMap((magnitude) => [magnitude, (magnitude | 0x80000000) >>> 0]);
  const pairs = values.flatMap((a) => values.map((b) => [a, b] as const));
  while (pairs.length % 4 !== 0) pairs.push(pairs[0]);
  const numUnits = pairs.length / 4;
  const terms = new Uint32Array(pairs.length * 2);
  pairs.forEach(([a, b], i) => {
    const at = Math.floor(i / 4) * 8 + (i % 4);
    terms[at] = a;
    terms[at + 4] = b;
  });
  const kernel = itemKernel(device, "probe");
  const pipeline = await launcher.pipeline(kernel);
  let flushes = true;
  const lease = new Lease(pool);
  try {
    const input = await lease.acquire("terms", terms.byteLength, STORAGE);
    const output = await lease.acquire("sums", pairs.length * 8, STORAGE);
    await streaming(context, (stream) =>
      stream.push(
        "webgpu kernel probe",
        pairs.length * 8,
        async (staging) => {
          const { checked } = device.guard("webgpu kernel probe", () => {
            device.gpu.queue.writeBuffer(input, 0, terms);
            const encoder = device.gpu.createCommandEncoder();
            const pass = encoder.beginComputePass();
            launcher.encode(pass, kernel, pipeline, {
              params: [numUnits],
              buffers: [input, output],
              numItems: numUnits,
            });
            pass.end();
            encoder.copyBufferToBuffer(output, 0, staging, 0, pairs.length * 8);
            device.gpu.queue.submit([encoder.finish()]);
          });
          return [checked];
        },
        (bytes) => {
          const results = new Uint32Array(bytes.buffer, bytes.byteOffset, pairs.length * 2);
          pairs.forEach(([a, b], i) => {
            const at = Math.floor(i / 4) * 8 + (i % 4);
            const [x, y] = [flush(floatOf(a)), flush(floatOf(b))];
            flushes &&= sameBut(results[at], bitsOf(add(x, y)), 0);
            flushes &&= sameBut(results[at + 4], bitsOf(multiply(x, y)), 1);
          });
        },
      ),
    );
  } finally {
    lease.release();
  }
  return flushes;
}

/** Equal, or both with an exponent field of at most `exponent` (and, where that is 1, of one sign). */
function sameBut(received: number, expected: number, exponent: 0 | 1): boolean {
  if (received === expected) return true;
  const counted = (bits: number) => ((bits >>> 23) & 0xff) <= exponent;
  if (exponent === 0) return ((received | expected) & 0x7fffffff) === 0;
  return counted(received) && counted(expected) && received >>> 31 === expected >>> 31;
}
