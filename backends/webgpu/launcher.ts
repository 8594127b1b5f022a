/** Kernels as data, and the one launcher that runs any of them. */
import type { Device } from "./device.ts";
import type { KernelText } from "./options.ts";

/** A kernel: files of kernels/ joined in order, and what the host fixes when it compiles them. */
export interface Kernel {
  readonly name: string;
  readonly files: readonly string[];
  /** `const NAME = value;` in front of the text. */
  readonly constants?: Readonly<Record<string, number | boolean>>;
  /** `alias Unit = ...;` in front of the text. */
  readonly unit?: "vec4u" | "u32";
  /** Workgroup shape: invocations over columns and over rows. */
  readonly workgroup: readonly [columns: number, rows: number];
}

export interface Launch {
  /** u32 fields of the kernel's Params, in order. */
  readonly params: readonly number[];
  /** Storage buffers at bindings 1, 2, ... */
  readonly buffers: readonly GPUBuffer[];
  /** Items along the rows of workgroups; spread over two dimensions as the limit of 65,535 demands. */
  readonly numItems: number;
}

const PARAMS_STRIDE = 256;
const PARAMS_SLOTS = 512;

export class Launcher {
  readonly #device: Device;
  readonly #text: KernelText;
  readonly #pipelines = new Map<string, Promise<GPUComputePipeline>>();
  readonly #params: GPUBuffer;
  /** The device's own additions count subnormals as zero. */
  readonly #deviceFlushes: boolean;
  #slot = 0;

  constructor(device: Device, text: KernelText, deviceFlushes: boolean) {
    this.#device = device;
    this.#deviceFlushes = deviceFlushes;
    this.#text = text;
    this.#params = device.gpu.createBuffer({
      label: "params",
      size: PARAMS_STRIDE * PARAMS_SLOTS,
      usage: GPUUsage.UNIFORM | GPUUsage.COPY_DST,
    });
  }

  /** Compiles a kernel, once. Rejects with BackendFailure that names it. */
  pipeline(kernel: Kernel): Promise<GPUComputePipeline> {
    const key = JSON.stringify(kernel);
    let pipeline = this.#pipelines.get(key);
    if (pipeline === undefined) {
      pipeline = this.#compile(kernel);
      this.#pipelines.set(key, pipeline);
      pipeline.catch(() => this.#pipelines.delete(key));
    }
    return pipeline;
  }

  async #compile(kernel: Kernel): Promise<GPUComputePipeline> {
    const constants = Object.entries({ DEVICE_FLUSHES: this.#deviceFlushes, ...kernel.constants }).map(
      ([name, value]) => `const ${name} = ${typeof value === "number" ? `${value}u` : value};\n`,
    );
    const unit = kernel.unit ? `alias Unit = ${kernel.unit};\n` : "";
    const code = constants.join("") + unit + kernel.files.map(this.#text).join("\n");
    const [columns, rows] = kernel.workgroup;
    const { value, checked } = this.#device.guard(`webgpu kernel ${kernel.name}`, () => {
      const module = this.#device.gpu.createShaderModule({ label: kernel.name, code });
      return this.#device.gpu.createComputePipeline({
        label: kernel.name,
        layout: "auto",
        compute: { module, constants: { COLUMNS: columns, ROWS: rows } },
      });
    });
    await checked;
    return value;
  }

  /**
   * Encodes one launch. Parameters lie in a ring of slots written by the queue, so fewer than 512 launches may be
   * encoded between two submits.
   */
  encode(pass: GPUComputePassEncoder, kernel: Kernel, pipeline: GPUComputePipeline, launch: Launch): void {
    const { gpu } = this.#device;
    const offset = this.#slot * PARAMS_STRIDE;
    this.#slot = (this.#slot + 1) % PARAMS_SLOTS;
    gpu.queue.writeBuffer(this.#params, offset, new Uint32Array(launch.params));
    const group = gpu.createBindGroup({
      label: kernel.name,
      layout: pipeline.getBindGroupLayout(0),
      entries: [
        { binding: 0, resource: { buffer: this.#params, offset, size: PARAMS_STRIDE } },
        ...launch.buffers.map((buffer, i) => ({ binding: i + 1, resource: { buffer } })),
      ],
    });
    if (launch.numItems === 0) return;
    const groups = Math.ceil(launch.numItems / kernel.workgroup[1]);
    const most = gpu.limits.maxComputeWorkgroupsPerDimension;
    const width = Math.min(groups, most);
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(width, Math.ceil(groups / width));
  }
}

/** GPUBufferUsage of the specification: Node has no global of that name. */
export const GPUUsage = {
  MAP_READ: 0x0001,
  COPY_SRC: 0x0004,
  COPY_DST: 0x0008,
  UNIFORM: 0x0040,
  STORAGE: 0x0080,
} as const;

/** Storage that is filled by writes or kernels and may be copied from. */
export const STORAGE = GPUUsage.STORAGE | GPUUsage.COPY_SRC | GPUUsage.COPY_DST;

/** Workgroup shape for rows of `units`: as many columns as a row can use, the rest of the invocations take rows. */
export function rowWorkgroup(device: Device, units: number): readonly [number, number] {
  let columns = 1;
  while (columns < device.workgroupSize && columns < units) columns *= 2;
  return [columns, device.workgroupSize / columns];
}
