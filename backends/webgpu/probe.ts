/** Whether the device's float32 additions already obey the rule for terms and sums of design 2.11. */
import { add, bitsOf, floatOf, flush } from "../../core/dtype/float32.ts";
import { type Context, Lease } from "./context.ts";
import { itemKernel } from "./kernels.ts";
import { STORAGE } from "./launcher.ts";
import { streaming } from "./stream.ts";

/** Around the smallest normal number: zeros, subnormals small and large, the first normals, and their neighbours. */
const MAGNITUDES = [
  0, 1, 2, 0x1234, 0x3fffff, 0x400000, 0x7ffffe, 0x7fffff, 0x800000, 0x800001, 0x87ffff, 0x880000, 0xc00000, 0xffffff,
  0x1000000, 0x1000001, 0x1800000, 0x2000000, 0x5800000, 0x3f800000,
];

/**
 * Adds every pair of values around the bottom of the range on the device. True only for a software adapter, whose
 * additions are all one instruction, and only if every sum equals the flushed sum of flushed terms (zeros of either
 * sign alike: no sum tells them apart).
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
    const output = await lease.acquire("sums", pairs.length * 4, STORAGE);
    await streaming(context, (stream) =>
      stream.push(
        "webgpu kernel probe",
        pairs.length * 4,
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
            encoder.copyBufferToBuffer(output, 0, staging, 0, pairs.length * 4);
            device.gpu.queue.submit([encoder.finish()]);
          });
          return [checked];
        },
        (bytes) => {
          const sums = new Uint32Array(bytes.buffer, bytes.byteOffset, pairs.length);
          pairs.forEach(([a, b], i) => {
            const expected = bitsOf(add(flush(floatOf(a)), flush(floatOf(b))));
            const bothZero = (expected & 0x7fffffff) === 0 && (sums[i] & 0x7fffffff) === 0;
            if (sums[i] !== expected && !bothZero) flushes = false;
          });
        },
      ),
    );
  } finally {
    lease.release();
  }
  return flushes;
}
